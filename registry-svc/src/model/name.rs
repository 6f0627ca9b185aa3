//! Names: what identifies and labels. Plain text with a rule each, cheap to clone.

use std::{fmt, sync::Arc};

use super::{ValueError, packed::Packed};
use crate::limits;

const NAME_RULE: &str = "1 to 63 of a-z, 0-9 and '-', starting with a letter";
const ID_RULE: &str = "1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'";
const ZONE_RULE: &str = "at most 63 of a-z, 0-9 and '-'";
const GRPC_RULE: &str = "a full protobuf name such as \"tessera.ticket.v1.TicketService\"";
const DETAIL_RULE: &str = "plain text without control characters";

/// A text newtype: the rule is in its `try_new`, the field is private.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text! {
    /// Isolates tenants and environments.
    Namespace
}
text! {
    /// An application's name, for example `ticket-svc`.
    ServiceName
}
/// Names an instance within its service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InstanceId(Packed);

impl InstanceId {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

text! {
    /// A group or a tag; empty means none.
    Label
}
text! {
    /// Where an instance runs; empty means unknown.
    Zone
}
text! {
    /// The full name of a gRPC service.
    GrpcService
}
text! {
    /// A sentence for people; may be empty.
    Detail
}

impl Namespace {
    /// The namespace of those who do not choose one.
    pub(crate) const DEFAULT: &'static str = "default";

    /// Empty reads as [`Namespace::DEFAULT`].
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Ok(Self(Self::DEFAULT.into()));
        }
        name(text).map(Self)
    }
}

impl ServiceName {
    /// A name; never empty.
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        name(text).map(Self)
    }
}

impl InstanceId {
    /// Never empty; see [`InstanceId::chosen`] for those that leave the choice to us.
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Missing { rule: ID_RULE });
        }
        bounded(text, limits::INSTANCE_ID_CHARS)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        // "." and ".." are fine for a map but not for the paths and URLs that people build from an id.
        if !text.bytes().all(allowed) || text.bytes().all(|b| b == b'.') {
            return Err(ValueError::Malformed { rule: ID_RULE });
        }
        Ok(Self(Packed::new(text.as_bytes())))
    }

    /// An id for an instance that has none; `random` makes it unique.
    pub(crate) fn chosen(service: &ServiceName, random: u64) -> Self {
        Self(Packed::new(format!("{service}-{random:016x}").as_bytes()))
    }
}

impl Label {
    /// A name, or empty.
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Ok(Self("".into()));
        }
        name(text).map(Self)
    }
}

impl Zone {
    /// At most 63 of a-z, 0-9 and '-'; may begin with a digit.
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        bounded(text, limits::NAME_CHARS)?;
        if !text.bytes().all(is_name_byte) {
            return Err(ValueError::Malformed { rule: ZONE_RULE });
        }
        Ok(Self(text.into()))
    }
}

impl GrpcService {
    /// Dotted protobuf identifiers.
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Missing { rule: GRPC_RULE });
        }
        bounded(text, limits::GRPC_SERVICE_CHARS)?;
        let identifier = |part: &str| {
            part.bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !text.split('.').all(identifier) {
            return Err(ValueError::Malformed { rule: GRPC_RULE });
        }
        Ok(Self(text.into()))
    }
}

impl Detail {
    /// Control characters are refused: the text ends in logs and terminals (RUSTSEC-2025-0055).
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        bounded(text, limits::DETAIL_CHARS)?;
        if text.chars().any(char::is_control) {
            return Err(ValueError::Malformed { rule: DETAIL_RULE });
        }
        Ok(Self(text.into()))
    }

    /// A sentence of our own; cut to the limit.
    pub(crate) fn of(text: &str) -> Self {
        let end = text
            .char_indices()
            .nth(limits::DETAIL_CHARS)
            .map_or(text.len(), |(at, _)| at);
        Self(text[..end].into())
    }
}

fn name(text: &str) -> Result<Arc<str>, ValueError> {
    if text.is_empty() {
        return Err(ValueError::Missing { rule: NAME_RULE });
    }
    bounded(text, limits::NAME_CHARS)?;
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !starts_well || !text.bytes().all(is_name_byte) {
        return Err(ValueError::Malformed { rule: NAME_RULE });
    }
    Ok(text.into())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

pub(super) fn bounded(text: &str, limit: usize) -> Result<(), ValueError> {
    // Bytes first: counting the characters of a megabyte is work that its sender should not get for free.
    if text.len() > limit * 4 {
        return Err(ValueError::TooManyCharacters {
            limit,
            found: text.len(),
        });
    }
    let found = text.chars().count();
    if found > limit {
        return Err(ValueError::TooManyCharacters { limit, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "ticket-svc", "a1", &"a".repeat(63)] {
            assert_eq!(ServiceName::try_new(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "1a",
            "-a",
            "A",
            "a_b",
            "a.b",
            "a b",
            "ä",
            "a\n",
            "\u{1b}[31m",
            "<script>",
            &"a".repeat(64),
        ] {
            assert!(ServiceName::try_new(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_empty_namespace_is_the_default_one() {
        assert_eq!(Namespace::try_new("").expect("empty").as_str(), "default");
    }

    #[test]
    fn ids_allow_what_host_names_and_ports_need() {
        for good in ["a", "ticket-1", "10.0.0.1_7101", "Pod.A", &"x".repeat(128)] {
            assert!(InstanceId::try_new(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a:1", "a b", "a\0", &"x".repeat(129)] {
            assert!(InstanceId::try_new(bad).is_err(), "{bad:?} was taken");
        }
        let service = ServiceName::try_new("ticket-svc").expect("a name");
        let chosen = InstanceId::chosen(&service, 7);
        assert_eq!(
            InstanceId::try_new(chosen.as_str()).expect("follows its own rule"),
            chosen
        );
    }

    #[test]
    fn grpc_services_are_protobuf_names() {
        for good in ["a", "tessera.ticket.v1.TicketService", "_a._b"] {
            assert!(GrpcService::try_new(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a/b", "1a", "a-b", &"x".repeat(256)] {
            assert!(GrpcService::try_new(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_detail_cannot_forge_log_lines() {
        assert!(Detail::try_new("rolled out 1.4.2 – ok").is_ok());
        assert!(Detail::try_new("a\nINFO all is well").is_err());
        assert!(Detail::try_new("\u{1b}[2J").is_err());
        assert!(Detail::try_new(&"é".repeat(256)).is_ok());
        assert!(Detail::try_new(&"é".repeat(257)).is_err());
    }
}
