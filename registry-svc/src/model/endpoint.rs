//! Addresses of an instance. Nothing here resolves or dials them; the `prober` does, where it is asked to and may.

use std::{fmt, net::IpAddr, num::NonZeroU16, sync::Arc};

use super::{ValueError, name::bounded, packed::Packed};
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

/// The addresses of an instance, in the order of its preference; 1 to 8. Each is a protocol, a port, and a host with its length
/// before it: most instances have one, which fits in the value itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoints(Packed);

/// One of them, to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointView<'a> {
    /// How it is spoken to.
    pub(crate) protocol: Protocol,
    /// Where.
    pub(crate) host: &'a str,
    /// On which port.
    pub(crate) port: Port,
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<T: IntoIterator<Item = Endpoint>>(endpoints: T) -> Self {
        let mut bytes = Vec::new();
        for Endpoint { protocol, host, port } in endpoints {
            bytes.push(match protocol {
                Protocol::Grpc => 0,
                Protocol::Grpcs => 1,
                Protocol::Http => 2,
            });
            bytes.extend(port.0.get().to_be_bytes());
            // At most 253: see `limits::HOST_CHARS`; it is ASCII.
            bytes.push(u8::try_from(host.0.len()).unwrap_or(u8::MAX));
            bytes.extend(host.0.bytes().take(usize::from(u8::MAX)));
        }
        Self(Packed::new(&bytes))
    }
}

impl Endpoints {
    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = EndpointView<'_>> {
        let mut rest = self.0.as_bytes();
        std::iter::from_fn(move || {
            let (&[protocol, high, low, len], after) = rest.split_first_chunk()?;
            let (host, after) = after.split_at_checked(len.into())?;
            rest = after;
            Some(EndpointView {
                protocol: match protocol {
                    0 => Protocol::Grpc,
                    1 => Protocol::Grpcs,
                    _ => Protocol::Http,
                },
                host: std::str::from_utf8(host).unwrap_or_default(),
                port: Port(NonZeroU16::new(u16::from_be_bytes([high, low]))?),
            })
        })
    }

    /// Roughly what they cost in memory and on the wire.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|endpoint| endpoint.host.len() + 16).sum()
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
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
    #[cfg(test)]
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
    fn many_are_kept_as_one() {
        let endpoint = |protocol, host: &str, port| Endpoint {
            protocol,
            host: Host::try_new(host).expect("a host"),
            port: Port::try_new(port).expect("a port"),
        };
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        let all = [
            endpoint(Protocol::Http, "10.0.0.1", 1),
            endpoint(Protocol::Grpc, &longest, 65_535),
            endpoint(Protocol::Grpcs, "::1", 443),
        ];
        for some in [&all[..1], &all[..2], &all] {
            let packed: Endpoints = some.iter().cloned().collect();
            let read: Vec<_> = packed.iter().map(|e| (e.protocol, e.host.to_owned(), e.port)).collect();
            let written: Vec<_> = some
                .iter()
                .map(|e| (e.protocol, e.host.as_str().to_owned(), e.port))
                .collect();
            assert_eq!(read, written);
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
