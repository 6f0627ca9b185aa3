//! Where NATS is, and how one is let in: read once, and never shown with what is secret.

use std::{fmt, path::PathBuf, str::FromStr};

use async_nats::{ConnectOptions, ServerAddr};

/// `nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]`, or `tls://…`. A user without a password is a token. Reserved characters in
/// either are percent-encoded.
///
/// For `tls://`, `?ca=FILE` names the authorities that are believed (otherwise the system's), and `cert=FILE&key=FILE` what is shown
/// to a server that asks.
///
/// Whatever shows it tells the servers, and nothing of who connects to them.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl {
    servers: Vec<ServerAddr>,
    is_tls: bool,
    shown: Shown,
    ca: Option<PathBuf>,
    own: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, PartialEq, Eq)]
enum Shown {
    Nothing,
    Token(String),
    Password { user: String, password: String },
}

/// Why a text is no such URL. Repeats nothing of it: there may be a password in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNatsUrl {
    /// Another scheme.
    #[error("it must begin with nats:// or tls://")]
    Scheme,
    /// A server that is none.
    #[error("it must name servers as HOST:PORT, separated by commas")]
    Server,
    /// What stands before the '@'.
    #[error("what stands before the @ must be a token or USER:PASSWORD, with reserved characters percent-encoded")]
    Credentials,
    /// What stands after the '?'.
    #[error("after the ? there may be ca=FILE, and cert=FILE with key=FILE, for tls:// only")]
    Parameter,
}

impl NatsUrl {
    pub(super) fn servers(&self) -> Vec<ServerAddr> {
        self.servers.clone()
    }

    pub(super) fn applied_to(&self, options: ConnectOptions) -> ConnectOptions {
        let options = match self.shown.clone() {
            Shown::Nothing => options,
            Shown::Token(token) => options.token(token),
            Shown::Password { user, password } => options.user_and_password(user, password),
        };
        let options = options.require_tls(self.is_tls);
        let options = match &self.ca {
            Some(ca) => options.add_root_certificates(ca.clone()),
            None => options,
        };
        match &self.own {
            Some((cert, key)) => options.add_client_certificate(cert.clone(), key.clone()),
            None => options,
        }
    }
}

impl FromStr for NatsUrl {
    type Err = InvalidNatsUrl;

    fn from_str(text: &str) -> Result<Self, InvalidNatsUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidNatsUrl::Scheme)?;
        let is_tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(InvalidNatsUrl::Scheme),
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (shown, servers) = match rest.rsplit_once('@') {
            Some((shown, servers)) => (Shown::read(shown)?, servers),
            None => (Shown::Nothing, rest),
        };
        let (mut ca, mut cert, mut key) = (None, None, None);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, file) = parameter.split_once('=').ok_or(InvalidNatsUrl::Parameter)?;
            let place = match name {
                "ca" => &mut ca,
                "cert" => &mut cert,
                "key" => &mut key,
                _ => return Err(InvalidNatsUrl::Parameter),
            };
            if !is_tls || file.is_empty() || place.replace(PathBuf::from(file)).is_some() {
                return Err(InvalidNatsUrl::Parameter);
            }
        }
        let own = match (cert, key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            _ => return Err(InvalidNatsUrl::Parameter),
        };
        Ok(Self {
            servers: servers
                .split(',')
                .map(|server| address(scheme, server))
                .collect::<Result<_, _>>()?,
            is_tls,
            shown,
            ca,
            own,
        })
    }
}

/// One server, and nothing else of a URL.
fn address(scheme: &str, server: &str) -> Result<ServerAddr, InvalidNatsUrl> {
    let is_plain = !server.is_empty() && !server.contains(['/', '#', '@', '\\', ' ']);
    let read = is_plain
        .then(|| format!("{scheme}://{server}").parse::<ServerAddr>().ok())
        .flatten();
    let read = read.filter(|address| !address.host().is_empty());
    read.ok_or(InvalidNatsUrl::Server)
}

impl Shown {
    fn read(text: &str) -> Result<Self, InvalidNatsUrl> {
        let read = match text.split_once(':') {
            None => Self::Token(decoded(text)?),
            Some((user, password)) => Self::Password {
                user: decoded(user)?,
                password: decoded(password)?,
            },
        };
        match &read {
            Self::Token(token) if token.is_empty() => Err(InvalidNatsUrl::Credentials),
            Self::Password { user, .. } if user.is_empty() => Err(InvalidNatsUrl::Credentials),
            _ => Ok(read),
        }
    }
}

fn decoded(text: &str) -> Result<String, InvalidNatsUrl> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let (high, low) = high.zip(low).ok_or(InvalidNatsUrl::Credentials)?;
                bytes.extend(u8::try_from(high * 16 + low));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| InvalidNatsUrl::Credentials)
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_tls { "tls://" } else { "nats://" })?;
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match server.host() {
                host if host.contains(':') => write!(formatter, "{comma}[{host}]:{}", server.port())?,
                host => write!(formatter, "{comma}{host}:{}", server.port())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> NatsUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn servers_are_shown_and_secrets_are_not() {
        for (text, shown) in [
            ("nats://localhost", "nats://localhost:4222"),
            (
                "nats://127.0.0.1:4333,b.example",
                "nats://127.0.0.1:4333,b.example:4222",
            ),
            ("tls://[::1]:4222", "tls://[::1]:4222"),
            ("nats://secret@h", "nats://h:4222"),
            ("nats://me:s%40cret@h:1", "nats://h:1"),
            ("tls://h?ca=/ca.pem&cert=/c.pem&key=/k.pem", "tls://h:4222"),
        ] {
            let url = read(text);
            assert_eq!(
                (url.to_string(), format!("{url:?}")),
                (shown.to_owned(), shown.to_owned())
            );
        }
    }

    #[test]
    fn who_connects_is_read_from_what_stands_before_the_at() {
        assert!(matches!(read("nats://t%2Fk@h").shown, Shown::Token(token) if token == "t/k"));
        let Shown::Password { user, password } = read("nats://me:a%40b:c@h").shown else {
            panic!("a password")
        };
        assert_eq!((user.as_str(), password.as_str()), ("me", "a@b:c"));
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("", InvalidNatsUrl::Scheme),
            ("localhost:4222", InvalidNatsUrl::Scheme),
            ("ws://h", InvalidNatsUrl::Scheme),
            ("nats://", InvalidNatsUrl::Server),
            ("nats://h,", InvalidNatsUrl::Server),
            ("nats://h:port", InvalidNatsUrl::Server),
            ("nats://h:70000", InvalidNatsUrl::Server),
            ("nats://h/path", InvalidNatsUrl::Server),
            ("nats://@h", InvalidNatsUrl::Credentials),
            ("nats://:p@h", InvalidNatsUrl::Credentials),
            ("nats://a%4@h", InvalidNatsUrl::Credentials),
            ("nats://a%FF@h", InvalidNatsUrl::Credentials),
            ("nats://h?ca=/f", InvalidNatsUrl::Parameter),
            ("tls://h?ca=", InvalidNatsUrl::Parameter),
            ("tls://h?ca=/f&ca=/g", InvalidNatsUrl::Parameter),
            ("tls://h?cert=/f", InvalidNatsUrl::Parameter),
            ("tls://h?verify=no", InvalidNatsUrl::Parameter),
        ] {
            assert_eq!(text.parse::<NatsUrl>(), Err(why), "{text}");
        }
    }
}
