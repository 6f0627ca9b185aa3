//! Sessions: what is shown to refresh one, and how long it lasts. Pure; sessions are kept by `store`.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use service_store::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// How many an account may have open: more devices than people have. The oldest makes room.
pub(crate) const MOST_SESSIONS: usize = 20;

/// After this it ends however often it is refreshed, so that what was stolen unnoticed ends as well.
pub(crate) const LONGEST: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What is shown to refresh a session. The session's id finds it; the family's secret, the same at every refresh, proves that
/// somebody once had a token of it; and the last part is good once. So a token that was used up is told from one that was
/// made up by somebody who only knows the session's id, which is in every access token: that must not end the session.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    pub(crate) session: Uuid,
    family: [u8; 16],
    secret: [u8; 32],
}

/// What is stored of a refresh token. One fast hash each is enough: unlike passwords they cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hashes {
    pub(crate) family: [u8; 32],
    pub(crate) secret: [u8; 32],
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) user_agent: String,
    pub(crate) created_at: Timestamp,
    pub(crate) refreshed_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

impl RefreshToken {
    /// The first one of a session.
    pub(crate) fn first(session: Uuid, family: [u8; 16], secret: [u8; 32]) -> Self {
        Self {
            session,
            family,
            secret,
        }
    }

    /// The one after this one.
    pub(crate) fn next(&self, secret: [u8; 32]) -> Self {
        Self { secret, ..self.clone() }
    }

    /// From what a caller sent; `None` if it is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        // 64 bytes have 86 digits; whatever is longer is not decoded.
        if text.len() != 86 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (session, rest) = bytes.split_first_chunk::<16>()?;
        let (family, secret) = rest.split_first_chunk::<16>()?;
        Some(Self {
            session: Uuid::from_bytes(*session),
            family: *family,
            secret: secret.try_into().ok()?,
        })
    }

    /// As it is sent.
    pub(crate) fn expose(&self) -> String {
        let parts = [&self.session.as_bytes()[..], &self.family, &self.secret];
        URL_SAFE_NO_PAD.encode(parts.concat())
    }

    pub(crate) fn hashes(&self) -> Hashes {
        Hashes {
            family: Sha256::digest(self.family).into(),
            secret: Sha256::digest(self.secret).into(),
        }
    }
}

/// Whose it is, never what it is.
impl fmt::Debug for RefreshToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RefreshToken({}, [redacted])", self.session)
    }
}

/// What a client calls itself, as it may be shown: at most 100 characters, none of them control characters.
pub(crate) fn user_agent(sent: &str) -> String {
    sent.chars().filter(|letter| !letter.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text_and_from_nothing_else() {
        let token = RefreshToken::first(Uuid::from_u128(7), [1; 16], [2; 32]);
        let text = token.expose();
        assert_eq!(RefreshToken::read(&text), Some(token.clone()));
        for bad in [
            String::new(),
            text[1..].to_owned(),
            format!("{text}="),
            format!("{text}A"),
            "ä".repeat(43),
            "?".repeat(86),
        ] {
            assert_eq!(RefreshToken::read(&bad), None, "{bad}");
        }
        assert!(!format!("{token:?}").contains(&text[30..]));
    }

    #[test]
    fn the_next_one_is_of_the_same_family_and_no_more() {
        let first = RefreshToken::first(Uuid::from_u128(7), [1; 16], [2; 32]);
        let next = first.next([3; 32]);
        assert_eq!(first.hashes().family, next.hashes().family);
        assert_ne!(first.hashes().secret, next.hashes().secret);
    }

    #[test]
    fn a_client_s_name_is_cut_and_cleaned() {
        assert_eq!(user_agent("grpc\r\n\u{1b}[31m"), "grpc[31m");
        assert_eq!(user_agent(&"x".repeat(1000)).len(), 100);
    }
}
