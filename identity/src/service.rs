//! The token that a service shows to another one: signed by itself, short-lived, renewed before it ends.

use std::sync::Mutex;

use http::HeaderValue;

use crate::{
    keys::{KeyPair, Kid},
    roles::Roles,
    token::{Claims, Subject},
};

/// How long one is good, in seconds: longer than any call, shorter than people take to find a stolen one useful.
const LIFETIME: u64 = 300;
/// How long before its end it is replaced: a call that starts with it ends before it does, and clocks differ.
const MARGIN: u64 = 120;

/// A source of tokens of one service for another one.
#[derive(Debug)]
pub struct ServiceToken {
    issuer: String,
    name: String,
    audience: String,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    kid: Kid,
    renew_at: u64,
    issued_at: u64,
    /// Marked sensitive, so its Debug does not show it.
    header: HeaderValue,
}

impl ServiceToken {
    /// Of the service `name`, shown to `audience`, signed with keys of `issuer`.
    #[must_use]
    pub fn new(issuer: &str, name: &str, audience: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            name: name.to_owned(),
            audience: audience.to_owned(),
            current: Mutex::new(None),
        }
    }

    /// The value of an `authorization` header that is good at `now` (seconds since 1970) and for two minutes more. Signed
    /// anew when it would not be, when `key` is another one than before, and when the clock was set back.
    #[must_use]
    pub fn header(&self, key: &KeyPair, now: u64) -> HeaderValue {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(held) = &*current
            && held.kid == *key.kid()
            && (held.issued_at..held.renew_at).contains(&now)
        {
            return held.header.clone();
        }
        let header = self.sign(key, now);
        *current = Some(Current {
            kid: key.kid().clone(),
            renew_at: now + LIFETIME - MARGIN,
            issued_at: now,
            header: header.clone(),
        });
        header
    }

    fn sign(&self, key: &KeyPair, now: u64) -> HeaderValue {
        let claims = Claims {
            issuer: self.issuer.clone(),
            subject: Subject::Service(self.name.clone()),
            roles: Roles::SERVICE,
            audience: self.audience.clone(),
            issued_at: now,
            expires_at: now + LIFETIME,
        };
        let value = format!("Bearer {}", claims.sign(key).expose());
        // Letters, digits, '-', '_' and '.': always a header.
        let mut header = HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static(""));
        header.set_sensitive(true);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::KeySet, token::Verifier};

    #[test]
    fn it_is_kept_while_it_is_good_and_renewed_before_it_ends() {
        let (key, next) = (
            KeyPair::generate().expect("a pair"),
            KeyPair::generate().expect("a pair"),
        );
        let source = ServiceToken::new("user-svc", "user-svc", "ticket-svc");
        let first = source.header(&key, 1000);
        assert!(first.is_sensitive());
        assert_eq!(source.header(&key, 1179), first);
        assert_ne!(source.header(&key, 1180), first, "two minutes before its end");
        assert_ne!(source.header(&key, 900), first, "the clock was set back");
        let keys = KeySet::new([key.public_key().clone(), next.public_key().clone()]);
        let verifier = Verifier::new("user-svc", ["ticket-svc"], keys);
        for (key, now) in [(&key, 1000), (&next, 1000), (&key, 5000)] {
            let header = source.header(key, now);
            let token = header
                .to_str()
                .expect("text")
                .strip_prefix("Bearer ")
                .expect("a bearer token");
            let claims = verifier
                .verify(token, now + MARGIN)
                .expect("good for two minutes at least");
            assert_eq!(claims.subject, Subject::Service("user-svc".into()));
        }
        assert!(!format!("{source:?}").contains("ey"), "{source:?}");
    }
}
