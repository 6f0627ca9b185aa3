//! Tokens: how they are made, kept and found.
//!
//! A token is `tsr_ID_SECRET`: a name to look it up by, and 43 characters of base64url drawn at random, which are 258 bits. Of
//! that the file has the SHA-256 alone. A slow hash is for passwords, which people choose and others can guess; of 2^258 nobody
//! guesses one, and a fast hash is what a registry can afford for each call. There is no way to choose a secret by hand, hence
//! none that is weak, and none that came with the software.
//!
//! The prefix is there for those who scan repositories and logs for secrets. Not here: what a token may do (`access`).

mod file;
mod secret;
mod set;

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use file::TokensError;
pub(crate) use file::read;
pub use secret::Secret;
pub(crate) use set::{Token, TokenSet};

use crate::access::scope::Scope;
pub use crate::access::scope::ScopeError;

/// Characters of a token's name.
const NAME_CHARS: usize = 63;
/// Scopes of a token; who needs more needs several tokens.
const SCOPES: usize = 64;
/// The longest that a token may be made for: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For people: whose it is. 1 to 63 printable characters, need not be unique.
    pub name: String,
    /// What it may do, at least one: `read`, `read:NAMESPACE`, `register:NAMESPACE/SERVICE`, `operate`, `operate:NAMESPACE`,
    /// with `*` for every namespace or service.
    pub scopes: Vec<String>,
    /// How long it is good for, 1 s to 10 years; `None`: until it is revoked.
    pub ttl: Option<Duration>,
}

/// What a file says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name in the file, and for [`revoke`].
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do, in full.
    pub scopes: Vec<String>,
    /// When it was made, in seconds since 1970.
    pub issued_at: u64,
    /// When it ends by itself, in seconds since 1970.
    pub not_after: Option<u64>,
    /// Whether it has.
    pub expired: bool,
}

/// Makes a token and adds it to the file, which is made where there is none. The secret is in the answer and nowhere else.
///
/// # Errors
/// [`TokensError`]: a name, scope or time that cannot be, or a file that cannot be read or written.
pub fn issue(path: &Path, wanted: &Wanted) -> Result<(Listed, Secret), TokensError> {
    let name = wanted.name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS || name.chars().any(char::is_control) {
        return Err(TokensError::Wanted(format!(
            "a name has 1 to {NAME_CHARS} printable characters"
        )));
    }
    if wanted.scopes.is_empty() || wanted.scopes.len() > SCOPES {
        return Err(TokensError::Wanted(format!("a token has 1 to {SCOPES} scopes")));
    }
    let scopes: Result<Vec<Scope>, ScopeError> = wanted.scopes.iter().map(|scope| scope.parse()).collect();
    let scopes = scopes.map_err(|error| TokensError::Wanted(error.to_string()))?;
    if wanted
        .ttl
        .is_some_and(|ttl| ttl < Duration::from_secs(1) || ttl > LONGEST)
    {
        return Err(TokensError::Wanted(
            "a token is good for 1 s to 10 years, or until it is revoked".into(),
        ));
    }
    let now = now();
    let secret = Secret::draw();
    let token = Token::new(
        &secret,
        name,
        scopes,
        now,
        wanted.ttl.map(|ttl| now.saturating_add(ttl.as_secs())),
    );
    let listed = listed(&token, now);
    file::change(path, file::Absent::IsEmpty, |tokens| {
        tokens.push(token);
        Ok(())
    })?;
    Ok((listed, secret))
}

/// The tokens of a file, in the order in which they were made.
///
/// # Errors
/// [`TokensError`]: there is no such file, or it is not one of tokens.
pub fn list(path: &Path) -> Result<Vec<Listed>, TokensError> {
    let now = now();
    Ok(file::read(path)?.iter().map(|token| listed(token, now)).collect())
}

/// Takes a token out of the file. Registries that read it refuse the token within 2 s and end its open streams within 5 s.
///
/// # Errors
/// [`TokensError`]: no such file, or no such token.
pub fn revoke(path: &Path, id: &str) -> Result<Listed, TokensError> {
    let now = now();
    let mut revoked = None;
    file::change(path, file::Absent::IsAnError, |tokens| {
        let at = tokens.iter().position(|token| token.id() == id);
        let at = at.ok_or_else(|| TokensError::NoSuchToken(secret::shortened(id)))?;
        revoked = Some(listed(&tokens.remove(at), now));
        Ok(())
    })?;
    revoked.ok_or_else(|| TokensError::NoSuchToken(secret::shortened(id)))
}

fn listed(token: &Token, now: u64) -> Listed {
    Listed {
        id: token.id().to_owned(),
        name: token.name().to_owned(),
        scopes: token.scopes().iter().map(ToString::to_string).collect(),
        issued_at: token.issued_at(),
        not_after: token.not_after(),
        expired: token.has_expired(now),
    }
}

/// Seconds since 1970 by the wall clock, which is what ends are written in.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
