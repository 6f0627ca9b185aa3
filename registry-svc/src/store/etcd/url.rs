//! Where an etcd cluster is, as one text: `etcd://[user:password@]host[:port],…[/prefix]`, and `etcds://` where it is spoken to
//! with TLS. Which certificates that takes is not said here.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::keys::DEFAULT_PREFIX;

/// etcd's port for clients.
const PORT: u16 = 2379;

/// The address of an etcd cluster. Printed without its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdUrl {
    /// `etcds://`
    pub(super) is_secured: bool,
    /// `host:port`, at least one.
    pub(super) members: Vec<String>,
    /// Begins and ends with '/'.
    pub(super) prefix: String,
    pub(super) credentials: Option<Credentials>,
}

/// For etcd's own authentication.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

/// Why a text is no address of an etcd cluster. Repeats nothing of it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}; expected etcd://HOST[:PORT],…[/PREFIX], or etcds:// for TLS")]
pub struct EtcdUrlError(&'static str);

impl EtcdUrl {
    /// Whether it is spoken to with TLS: `etcds://`.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.is_secured
    }
}

impl FromStr for EtcdUrl {
    type Err = EtcdUrlError;

    fn from_str(text: &str) -> Result<Self, EtcdUrlError> {
        let (is_secured, rest) = match (text.strip_prefix("etcd://"), text.strip_prefix("etcds://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return Err(EtcdUrlError("it begins with neither etcd:// nor etcds://")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last '@': a password may have one.
        let (credentials, members) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((credentials, members)) => (Some(Credentials::parse(credentials)?), members),
        };
        let members = members.split(',').map(member).collect::<Result<Vec<_>, _>>()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
        if !path.chars().all(plain) {
            return Err(EtcdUrlError("the prefix is of letters, digits, '/', '-', '_' and '.'"));
        }
        let path = path.trim_matches('/');
        let prefix = if path.is_empty() {
            DEFAULT_PREFIX.to_owned()
        } else {
            format!("/{path}/")
        };
        Ok(Self {
            is_secured,
            members,
            prefix,
            credentials,
        })
    }
}

fn member(text: &str) -> Result<String, EtcdUrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, port) = literal
                .split_once(']')
                .ok_or(EtcdUrlError("an IPv6 address stands in brackets"))?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| EtcdUrlError("an IPv6 address stands in brackets"))?;
            (&text[..address.len() + 2], port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => PORT,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(EtcdUrlError("a port is 1 to 65535")),
        },
        None => return Err(EtcdUrlError("a port follows a colon")),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '[' | ']' | ':');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(EtcdUrlError("each member is a host name or an address"));
    }
    Ok(format!("{host}:{port}"))
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, EtcdUrlError> {
        let (user, password) = text
            .split_once(':')
            .ok_or(EtcdUrlError("a user has a password, after a colon"))?;
        Ok(Self {
            user: unescape(user)?,
            password: unescape(password)?,
        })
    }
}

/// Takes back `%2F` and the like: what a URL cannot hold in this place is written so.
fn unescape(text: &str) -> Result<String, EtcdUrlError> {
    let wrong = EtcdUrlError("in user and password '%' is followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or(wrong)?, digit().ok_or(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong)?);
    }
    String::from_utf8(bytes).map_err(|_| wrong)
}

impl fmt::Display for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secured { "etcds" } else { "etcd" };
        write!(f, "{scheme}://{}{}", self.members.join(","), self.prefix)
    }
}

impl fmt::Debug for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = text.parse::<EtcdUrl>().map(|url| url.to_string());
        assert_eq!(found.ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn members_ports_and_prefixes() {
        check("etcd://h1", Some("etcd://h1:2379/tessera/registry/"));
        check(
            "etcd://h1:1,h2,[::1]:3/",
            Some("etcd://h1:1,h2:2379,[::1]:3/tessera/registry/"),
        );
        check("etcd://h1/a/b", Some("etcd://h1:2379/a/b/"));
        check("etcd://h1//a/", Some("etcd://h1:2379/a/"));
        check("etcds://h1,h2:1/a", Some("etcds://h1:2379,h2:1/a/"));
        for bad in [
            "",
            "h1:2379",
            "http://h1",
            "etcd://",
            "etcds://",
            "etcdss://h1",
            "etcd://h1,",
            "etcd://h1:",
            "etcd://h1:0",
            "etcd://h1:65536",
            "etcd://h 1",
            "etcd://[::1",
            "etcd://[x]",
            "etcd://h1/ä",
            "etcd://user@h1",
            "etcd://u:%f@h1",
            "etcd://u:%ff@h1",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_password_is_read_and_never_printed() {
        let url: EtcdUrl = "etcd://root:s%40cr%2Fet@@h1/x".parse().expect("an address");
        let credentials = url.credentials.clone().expect("there are some");
        assert_eq!(
            (credentials.user.as_str(), credentials.password.as_str()),
            ("root", "s@cr/et@")
        );
        assert_eq!(format!("{url} {url:?}"), "etcd://h1:2379/x/ etcd://h1:2379/x/");
        let error = "etcd://root:secret".parse::<EtcdUrl>().expect_err("no host");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
