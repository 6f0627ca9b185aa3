//! Addresses of an instance. Nothing here resolves or dials them: the registry never connects to what clients register.

use std::{fmt, net::IpAddr, num::NonZeroU16, sync::Arc};

use super::{ValueError, name::bounded};
use crate::limits;

const HOST_RULE: &str = "a DNS name or an IP address that others can dial, without port and brackets";

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// gRPC over HTTP/2 without TLS.
    Grpc,
    /// gRPC over HTTP/2 with TLS.
    Grpcs,
    /// Plain HTTP.
    Http,
}

/// A DNS name or an IP address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host(Arc<str>);

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Port(NonZeroU16);

/// An address of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// How it is spoken to.
    pub(crate) protocol: Protocol,
    /// Where.
    pub(crate) host: Host,
    /// On which port.
    pub(crate) port: Port,
}

impl Host {
    /// Refuses the unspecified addresses (`0.0.0.0`, `::`): to register what one listens on instead of what others dial is the
    /// commonest mistake, and it would send every caller to itself.
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Missing { rule: HOST_RULE });
        }
        bounded(text, limits::HOST_CHARS)?;
        let fits = match text.parse::<IpAddr>() {
            Ok(address) => !address.is_unspecified(),
            Err(_) => is_dns_name(text),
        };
        if !fits {
            return Err(ValueError::Malformed { rule: HOST_RULE });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Port {
    /// 1 to 65535.
    pub(crate) fn try_new(port: u32) -> Result<Self, ValueError> {
        u16::try_from(port)
            .ok()
            .and_then(NonZeroU16::new)
            .map(Self)
            .ok_or(ValueError::OutOfRange {
                min: 1,
                max: u64::from(u16::MAX),
                found: port.into(),
            })
    }

    /// The number.
    pub(crate) fn get(self) -> u32 {
        self.0.get().into()
    }
}

/// Labels of letters, digits, '-' and (as container networks use it) '_'. A last label of digits alone is a mistyped IP address.
fn is_dns_name(text: &str) -> bool {
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_can_be_dialled() {
        for good in [
            "127.0.0.1",
            "::1",
            "fd00::7",
            "localhost",
            "ticket-svc.prod.example",
            "tickets_ticket_1",
            "3com.com",
        ] {
            assert!(Host::try_new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "0.0.0.0",
            "::",
            "[::1]",
            "host:80",
            "http://a",
            "a b",
            "-a",
            "a-",
            "a..b",
            ".",
            "256.1.1.1",
            "10.0.0",
            "ä",
            "fe80::1%eth0",
            "a\n",
            &"a.".repeat(127),
        ] {
            assert!(Host::try_new(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn ports_are_ports() {
        for (port, fits) in [
            (0, false),
            (1, true),
            (65_535, true),
            (65_536, false),
            (u32::MAX, false),
        ] {
            assert_eq!(Port::try_new(port).is_ok(), fits, "{port}");
        }
    }
}
