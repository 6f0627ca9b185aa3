//! The tokens that are good now, found by what their holders send. Pure: time is an argument.

use std::{collections::HashMap, fmt, sync::Arc};

use service_host::Revocation;
use subtle::ConstantTimeEq as _;

use super::secret::{self, Secret};
use crate::access::scope::Scope;

/// One token as the file has it, and what ends its streams.
pub(crate) struct Token {
    id: Box<str>,
    name: Box<str>,
    hash: [u8; 32],
    scopes: Box<[Scope]>,
    issued_at: u64,
    not_after: Option<u64>,
    revocation: Revocation,
}

impl Token {
    /// Of a secret that was just drawn.
    pub(crate) fn new(secret: &Secret, name: &str, scopes: Vec<Scope>, issued_at: u64, not_after: Option<u64>) -> Self {
        Self::restored(secret.id(), name, secret.hash(), scopes, issued_at, not_after)
    }

    /// As it was written.
    pub(crate) fn restored(
        id: &str,
        name: &str,
        hash: [u8; 32],
        scopes: Vec<Scope>,
        issued_at: u64,
        not_after: Option<u64>,
    ) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            hash,
            scopes: scopes.into(),
            issued_at,
            not_after,
            revocation: Revocation::new(),
        }
    }

    /// Its public part.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whose it is.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The hash of the whole token.
    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// What it may do.
    pub(crate) fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// In seconds since 1970.
    pub(crate) fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// In seconds since 1970.
    pub(crate) fn not_after(&self) -> Option<u64> {
        self.not_after
    }

    /// Whether its time is over.
    pub(crate) fn has_expired(&self, now: u64) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }

    /// Fires when it is no longer good.
    pub(crate) fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    /// Whether both say the same, so that streams of the one may go on under the other.
    fn is_as_good_as(&self, other: &Self) -> bool {
        self.hash == other.hash && self.scopes == other.scopes && self.not_after == other.not_after
    }
}

/// Without the hash, which is nobody's business either.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// All tokens that are good.
#[derive(Debug, Default)]
pub(crate) struct TokenSet(HashMap<Box<str>, Arc<Token>>);

impl TokenSet {
    /// Of a file.
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        Self(
            tokens
                .into_iter()
                .map(|token| (token.id.clone(), Arc::new(token)))
                .collect(),
        )
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The token that somebody shows, if it is a good one.
    pub(crate) fn find(&self, text: &str, now: u64) -> Option<Arc<Token>> {
        let token = self.0.get(secret::id(text)?)?;
        // Ids are no secret; how much of a guessed secret was right must not be told by how long this takes.
        let is_right: bool = secret::hash(text).ct_eq(&token.hash).into();
        (is_right && !token.has_expired(now) && !token.revocation.is_revoked()).then(|| token.clone())
    }

    /// The set that follows when the file has changed: what it says the same of is kept with its streams, and the streams of
    /// what is gone or says something else end.
    pub(crate) fn followed_by(&self, next: Vec<Token>) -> Self {
        let next = Self::new(next);
        let kept = |(id, new): (Box<str>, Arc<Token>)| match self.0.get(&id) {
            Some(old) if old.is_as_good_as(&new) && !old.revocation.is_revoked() => (id, old.clone()),
            _ => (id, new),
        };
        let next = Self(next.0.into_iter().map(kept).collect());
        for (id, old) in &self.0 {
            if !next.0.get(id).is_some_and(|new| Arc::ptr_eq(old, new)) {
                old.revocation.revoke();
            }
        }
        next
    }

    /// Ends the streams of what has expired.
    pub(crate) fn expire(&self, now: u64) {
        for token in self.0.values().filter(|token| token.has_expired(now)) {
            token.revocation.revoke();
        }
    }
}
