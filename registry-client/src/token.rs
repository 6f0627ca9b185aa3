//! What a client shows to a registry: a bearer token, on every call, over connections that others cannot read.

use std::{fmt, str::FromStr, sync::Arc};

use arc_swap::ArcSwap;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Uri},
};

use crate::traced::Traced;

/// The longest token that is sent; a registry reads no longer ones.
const MAX_TOKEN: usize = 4_000;

/// A token for a registry, as `tessera token issue` prints it. Its `Debug` and its errors show nothing of it.
///
/// Clones are one token: what [`Token::replace`] puts in is shown by all that was given one, from the next call on.
#[derive(Clone)]
pub struct Token(Arc<ArcSwap<MetadataValue<Ascii>>>);

/// A text that cannot be a token. It is not repeated: it may be one with a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token is not one: give 1 to {MAX_TOKEN} visible ASCII characters without spaces, as `tessera token issue` or SignIn gives it"
)]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    /// Takes the token alone, without `Bearer`. What a line of a file has around it, spaces and its end, is left away.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken);
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().map_err(|_| InvalidToken)?;
        // `{:?}` of a request shows `Sensitive`, and HPACK keeps it out of the tables that later requests share.
        value.set_sensitive(true);
        Ok(Self(Arc::new(ArcSwap::from_pointee(value))))
    }
}

impl Token {
    /// Shows another one from now on, for whoever rotates tokens. Streams that are open live as long as what they were opened with.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// Puts the token, if there is one, into every request of a connection: no call can be written that forgets it.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<Token>);

impl Bearer {
    /// Of this token, or of none.
    #[must_use]
    pub fn new(token: Option<Token>) -> Self {
        Self(token)
    }
}

/// A connection with what is shown on it.
pub(crate) type Line = InterceptedService<Traced<Channel>, Bearer>;

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let shown = MetadataValue::clone(&token.0.load());
            request.metadata_mut().insert("authorization", shown);
        }
        Ok(request)
    }
}

/// Whether what is sent to this endpoint can be read on the way: by `http://` to another machine.
pub(crate) fn is_in_the_clear(endpoint: &Uri) -> bool {
    if endpoint.scheme_str() != Some("http") {
        return false;
    }
    let host = endpoint.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // A name that merely points to this machine today is not one that always does.
    let is_here = match bare.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    };
    !is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_visible_ascii_and_is_never_shown() {
        let token: Token = " tsr_abc_canary\n".parse().expect("a token");
        assert_eq!(format!("{token:?}"), "Token([redacted])");
        let request = Bearer::new(Some(token)).call(Request::new(())).expect("sent");
        assert!(!format!("{request:?}").contains("canary"), "{request:?}");
        assert_eq!(
            request.metadata().get("authorization").expect("sent").as_bytes(),
            b"Bearer tsr_abc_canary"
        );
        for wrong in ["", " ", "a b", "a\nb", "é", &"x".repeat(MAX_TOKEN + 1)] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong:?}");
        }
        let error = "se cret"
            .parse::<Token>()
            .map(|_| ())
            .expect_err("two words")
            .to_string();
        assert!(!error.contains("cret"), "{error}");
    }

    #[test]
    fn what_was_given_a_token_shows_the_one_that_replaced_it() {
        let token: Token = "tsr_old".parse().expect("a token");
        let mut bearer = Bearer::new(Some(token.clone()));
        let mut shown = || {
            let request = bearer.call(Request::new(())).expect("sent");
            let shown = request.metadata().get("authorization").expect("sent").clone();
            assert!(shown.is_sensitive());
            shown
        };
        assert_eq!(shown().as_bytes(), b"Bearer tsr_old");
        token.replace(&"tsr_new".parse().expect("a token"));
        assert_eq!(shown().as_bytes(), b"Bearer tsr_new");
    }

    #[test]
    fn plain_http_beyond_this_machine_is_in_the_clear() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:7000", false),
            ("http://127.8.8.8:7000", false),
            ("http://[::1]:7000", false),
            ("http://[::ffff:127.0.0.1]:7000", false),
            ("http://localhost:7000", false),
            ("https://registry:7000", false),
            ("http://registry:7000", true),
            ("http://10.0.0.7:7000", true),
            ("http://localhost.evil.example:7000", true),
            ("http://127.0.0.1.evil.example:7000", true),
            ("http://[fe80::1]:7000", true),
        ] {
            let uri: Uri = endpoint.parse().expect(endpoint);
            assert_eq!(is_in_the_clear(&uri), expected, "{endpoint}");
        }
    }
}
