//! Who a certificate belongs to, and which certificates nobody should be known by. Pure; that the certificate is genuine has
//! been found out before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer as _, X509Certificate},
};

use crate::spiffe::{InvalidSpiffeId, SpiffeId};

/// What a verified certificate says of its holder. At least one of the three names is there, or nobody was named at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its SPIFFE id, which names a service or an operator.
    pub spiffe: Option<SpiffeId>,
    /// Its DNS names, in lower case; one may begin with `*.`.
    pub dns_names: Vec<String>,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The last second in which it is good, since 1970 (UTC). `None` only for what was read from no certificate.
    pub not_after: Option<u64>,
}

/// Why a certificate cannot be somebody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not a certificate that can be read.
    #[error("the certificate cannot be read: {problem}")]
    Unreadable {
        /// What the parser says.
        problem: String,
    },
    /// It may sign others, so whoever holds its key can be anybody.
    #[error("the certificate is an authority's ({why}); issue a certificate for the process itself")]
    Authority {
        /// By which of its extensions.
        why: &'static str,
    },
    /// Two URI names leave open who it is (SPIFFE X.509-SVID, 2).
    #[error("the certificate has {count} URI names, where exactly one may stand")]
    SeveralUris {
        /// How many there are.
        count: usize,
    },
    /// A URI name that wants to be a SPIFFE id and is none.
    #[error(transparent)]
    Spiffe(#[from] InvalidSpiffeId),
}

impl Identity {
    /// Reads a certificate (DER) by the rules of SPIFFE's X.509-SVID, 4 and 5.2: a leaf that signs nobody else's, with one URI
    /// name at most. A certificate without any names is an identity without any.
    ///
    /// # Errors
    /// [`IdentityError`] with the rule that it breaks.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let unreadable = |problem: String| IdentityError::Unreadable { problem };
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(unreadable("something follows it".to_owned()));
        }
        let mut identity = Self {
            // One that ended before 1970 has ended.
            not_after: Some(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default()),
            ..Self::default()
        };
        let mut uris = Vec::new();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                    return Err(IdentityError::Authority { why: "cA is true" });
                }
                ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() => {
                    return Err(IdentityError::Authority {
                        why: "its key usage has keyCertSign",
                    });
                }
                ParsedExtension::KeyUsage(usage) if usage.crl_sign() => {
                    return Err(IdentityError::Authority {
                        why: "its key usage has cRLSign",
                    });
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::URI(uri) => uris.push(*uri),
                            GeneralName::DNSName(name) => identity.dns_names.push(name.to_ascii_lowercase()),
                            GeneralName::IPAddress(bytes) => identity.addresses.push(
                                address(bytes)
                                    .ok_or_else(|| unreadable("an IP address of its names is none".to_owned()))?,
                            ),
                            // Read over, a second URI or a host that another parser sees would not be there for us.
                            GeneralName::Invalid(..) => {
                                return Err(unreadable("one of its names cannot be read".to_owned()));
                            }
                            _ => {}
                        }
                    }
                }
                // An extension that we decide by and cannot read must not pass for one that is not there.
                ParsedExtension::ParseError { error } => return Err(unreadable(format!("{error:?}"))),
                _ => {}
            }
        }
        match uris[..] {
            [] => {}
            // A scheme has no case (RFC 3986, 3.1); an id has, so SPIFFE:… is malformed and not somebody else's business.
            [uri]
                if uri
                    .get(..7)
                    .is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")) =>
            {
                identity.spiffe = Some(uri.parse()?)
            }
            // A name of another scheme is nobody's business here.
            [_] => {}
            _ => return Err(IdentityError::SeveralUris { count: uris.len() }),
        }
        Ok(identity)
    }

    /// Whether it is good no longer, at a time in seconds since 1970.
    #[must_use]
    pub fn has_ended(&self, now: u64) -> bool {
        self.not_after.is_some_and(|last| now > last)
    }

    /// The service's namespace and name, by its SPIFFE id.
    #[must_use]
    pub fn service(&self) -> Option<(&str, &str)> {
        self.spiffe.as_ref().and_then(SpiffeId::service)
    }

    /// The operator's name, by their SPIFFE id.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        self.spiffe.as_ref().and_then(SpiffeId::operator)
    }

    /// Whether its DNS names or addresses cover `host`, an IP address or a DNS name without port. A `*.` stands for exactly
    /// one label (RFC 9525, 6.3).
    #[must_use]
    pub fn covers_host(&self, host: &str) -> bool {
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            return self.addresses.iter().any(|covered| covered.to_canonical() == address);
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.dns_names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => *name == host,
        })
    }

    /// Who it is, in one word for logs: the SPIFFE id, or else the first name, or else the first address.
    #[must_use]
    pub fn name(&self) -> String {
        if let Some(id) = &self.spiffe {
            return id.to_string();
        }
        let first = self.dns_names.first().cloned();
        first
            .or_else(|| self.addresses.first().map(ToString::to_string))
            .unwrap_or_else(|| "a certificate without names".to_owned())
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| Ipv6Addr::from(sixteen).into())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn read(change: impl FnOnce(&mut CertificateParams)) -> Result<Identity, IdentityError> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        Identity::of_certificate(certificate.der())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().expect("ASCII"))
    }

    const TICKET: &str = "spiffe://example/ns/default/svc/ticket-svc";

    #[test]
    fn names_and_addresses_are_read() {
        let identity = read(|params| {
            params.subject_alt_names = vec![
                uri(TICKET),
                dns("Tickets.Example"),
                SanType::IpAddress("10.0.0.1".parse().expect("an address")),
                SanType::IpAddress("::1".parse().expect("an address")),
            ];
        })
        .expect("a leaf");
        assert_eq!(identity.service(), Some(("default", "ticket-svc")));
        assert_eq!(identity.dns_names, ["tickets.example"]);
        assert_eq!(identity.addresses.len(), 2);
        assert_eq!(identity.name(), TICKET);
    }

    #[test]
    fn a_certificate_without_names_is_nobodys_in_particular() {
        let identity = read(|_| {}).expect("a leaf");
        assert_eq!(
            (&identity.spiffe, identity.dns_names.len(), identity.addresses.len()),
            (&None, 0, 0)
        );
        assert_eq!(identity.name(), "a certificate without names");
    }

    #[test]
    fn who_may_sign_others_is_refused() {
        let authority = read(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(authority, Err(IdentityError::Authority { why: "cA is true" }));
        for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
            let signer = read(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature, usage]);
            assert!(
                matches!(signer, Err(IdentityError::Authority { .. })),
                "{usage:?}: {signer:?}"
            );
        }
    }

    #[test]
    fn two_uris_are_refused_whatever_they_are() {
        for second in [
            "spiffe://example/ns/default/svc/user-svc",
            "https://example.org",
            TICKET,
        ] {
            let several = read(|params| params.subject_alt_names = vec![uri(TICKET), uri(second)]);
            assert_eq!(several, Err(IdentityError::SeveralUris { count: 2 }), "{second}");
        }
    }

    #[test]
    fn a_uri_that_is_no_spiffe_id_names_nobody_and_a_malformed_one_is_refused() {
        let other = read(|params| params.subject_alt_names = vec![uri("https://example.org")]);
        assert_eq!(other.expect("a leaf").spiffe, None);
        for malformed in [
            "spiffe://example/../x",
            "SPIFFE://example/ns/default/svc/ticket-svc",
            "Spiffe:x",
        ] {
            let refused = read(|params| params.subject_alt_names = vec![uri(malformed)]);
            assert!(
                matches!(refused, Err(IdentityError::Spiffe(_))),
                "{malformed}: {refused:?}"
            );
        }
    }

    /// x509-parser hands names that it cannot read on as such, and they were passed over: a certificate with a second URI that is
    /// no UTF-8 had one.
    #[test]
    fn names_that_cannot_be_read_are_refused() {
        // SubjectAltName: a URI of one byte that is no UTF-8; a DNS name likewise; an address of three bytes.
        for (tag, value) in [(0x86, &[0xff][..]), (0x82, &[0xff]), (0x87, &[10, 0, 1])] {
            let mut name = vec![tag, u8::try_from(value.len()).expect("short")];
            name.extend(value);
            let mut names = vec![0x30, u8::try_from(name.len()).expect("short")];
            names.extend(name);
            let read = read(|params| {
                let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
                params.custom_extensions = vec![extension];
            });
            assert!(
                matches!(read, Err(IdentityError::Unreadable { .. })),
                "{tag:x}: {read:?}"
            );
        }
    }

    #[test]
    fn it_ends_after_its_last_second() {
        let identity = read(|params| params.not_after = rcgen::date_time_ymd(2001, 9, 9)).expect("a leaf");
        let last = 999_993_600;
        assert_eq!(identity.not_after, Some(last));
        assert!(!identity.has_ended(last) && identity.has_ended(last + 1));
        assert!(!Identity::default().has_ended(u64::MAX));
    }

    #[test]
    fn noise_is_no_certificate() {
        for noise in [&b""[..], b"\x30\x03\x02\x01\x01", &[0xff; 600]] {
            let read = Identity::of_certificate(noise);
            assert!(matches!(read, Err(IdentityError::Unreadable { .. })), "{read:?}");
        }
    }

    #[test]
    fn hosts_are_covered_by_names_and_addresses() {
        let identity = Identity {
            spiffe: None,
            dns_names: vec!["a.example".into(), "*.b.example".into()],
            addresses: vec!["10.0.0.1".parse().expect("one"), "::1".parse().expect("one")],
            not_after: None,
        };
        for host in [
            "a.example",
            "A.EXAMPLE.",
            "x.b.example",
            "10.0.0.1",
            "::1",
            "[::1]",
            "::ffff:10.0.0.1",
        ] {
            assert!(identity.covers_host(host), "{host}");
        }
        for host in [
            "",
            "example",
            "b.example",
            "x.y.b.example",
            ".b.example",
            "xa.example",
            "10.0.0.2",
            "::2",
            "*",
        ] {
            assert!(!identity.covers_host(host), "{host}");
        }
    }
}
