//! The access token: what it says, how it is signed, and what of it is believed.
//!
//! A JWS in compact form (RFC 7515) with EdDSA (RFC 8037) and the claims of a JWT (RFC 7519). It is parsed more strictly than
//! these allow (RFC 8725): one algorithm, which the header must name and which is never chosen by it; a key is found by its
//! name in the set of those that are trusted and by nothing that the token brings along; one issuer; one audience, which must
//! be one's own. The signature is checked before a claim is read.

mod wire;

use std::fmt;

use uuid::Uuid;

use crate::{
    keys::{KeyPair, KeySet, Kid},
    roles::Roles,
};

/// The longest token that is read, in bytes. Ours take some 450.
pub const MAX_TOKEN: usize = 2048;

/// Who signs here: the user service. What tokens have as `iss`.
pub const ISSUER: &str = "user-svc";

/// Whom people's tokens are for: every service of the platform. Those that services show to each other are for one of them.
pub const PLATFORM: &str = "tessera";

/// How far the clock of whoever signed may be ahead of ours, in seconds: clocks that nobody looks after differ so far. None is
/// given at the end: a token that is good for too long is the worse mistake.
const LEEWAY: u64 = 60;

/// A signed token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`: who signed.
    pub issuer: String,
    /// `sub`, and with a person `sid`: who shows it.
    pub subject: Subject,
    /// `roles`: what they are.
    pub roles: Roles,
    /// `aud`: whom it is for.
    pub audience: String,
    /// `iat`: when it was signed, in seconds since 1970.
    pub issued_at: u64,
    /// `exp`: until when it is good; at that second it no longer is.
    pub expires_at: u64,
}

/// Whom a token is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A person's account, in one of its sessions.
    User {
        /// The account.
        id: Uuid,
        /// The session.
        session: Uuid,
    },
    /// A service, by its name in the registry.
    Service(String),
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of ours, or more than [`MAX_TOKEN`].
    #[error("the token is not one of this platform")]
    Malformed,
    /// Signed with a key that is not in the set: it may be newer than the set is.
    #[error("the token is signed with key {0}, which is not known")]
    KeyUnknown(Kid),
    /// Not signed with the key that it names.
    #[error("the token's signature is wrong")]
    Forged,
    /// Signed for somebody else, or by somebody else.
    #[error("the token was issued for something else")]
    Misplaced,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come: a clock is wrong.
    #[error("the token is not good yet; is the clock right?")]
    TooEarly,
}

/// Believes tokens of one issuer for some audiences.
#[derive(Debug, Clone)]
pub struct Verifier {
    issuer: String,
    audiences: Vec<String>,
    keys: KeySet,
}

impl Claims {
    /// Signs them.
    #[must_use]
    pub fn sign(&self, key: &KeyPair) -> AccessToken {
        AccessToken(wire::sign(self, key))
    }
}

impl AccessToken {
    /// The token, to be sent.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Never what it is.
impl fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AccessToken([redacted])")
    }
}

impl Verifier {
    /// Believes what `issuer` signed with one of `keys` for one of `audiences`.
    pub fn new<'a>(issuer: &str, audiences: impl IntoIterator<Item = &'a str>, keys: KeySet) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: audiences.into_iter().map(str::to_owned).collect(),
            keys,
        }
    }

    /// The keys that it believes.
    #[must_use]
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// What the token says, if it is good at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`TokenError`]. What it tells may be told to whoever showed the token.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let claims = wire::open(token, &self.keys)?;
        if claims.issuer != self.issuer || !self.audiences.contains(&claims.audience) {
            return Err(TokenError::Misplaced);
        }
        if now >= claims.expires_at {
            return Err(TokenError::Expired);
        }
        if claims.issued_at > now + LEEWAY {
            return Err(TokenError::TooEarly);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
