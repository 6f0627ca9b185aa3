//! Issuing certificates: a small authority of one's own, to get started with and for tests. Not a public key infrastructure:
//! nothing is revoked, and whoever has the authority's key can be anybody.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::spiffe::SpiffeId;

/// Clocks differ: a certificate is good from so long before it was issued.
const BACKDATED: Duration = Duration::from_secs(300);

/// An authority that issues certificates.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for, and what it says of them.
#[derive(Debug, Clone, Default)]
pub struct Leaf {
    /// Who it is.
    pub spiffe: Option<SpiffeId>,
    /// DNS names under which it may be dialled.
    pub dns_names: Vec<String>,
    /// Addresses at which it may be dialled.
    pub addresses: Vec<IpAddr>,
    /// What it is good for.
    pub purpose: Purpose,
    /// How long it is good.
    pub lifetime: Duration,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To serve and to call, as services do.
    #[default]
    Both,
    /// To serve.
    Server,
    /// To call.
    Client,
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub struct Issued {
    /// To be shown to everybody.
    pub certificate_pem: String,
    /// To be shown to nobody.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name that a certificate cannot have.
    #[error("{name:?} cannot stand in a certificate")]
    Name {
        /// As it was given.
        name: String,
    },
    /// The authority's files are not an authority's.
    #[error("this is no certificate authority with its key: {problem}")]
    Authority {
        /// What is wrong.
        problem: String,
    },
    /// It would end after the last year that a certificate can name.
    #[error("a certificate cannot be good for {} days, beyond the year 9999; give it a shorter lifetime", .lifetime.as_secs() / 86_400)]
    Lifetime {
        /// As it was given.
        lifetime: Duration,
    },
    /// Keys or signatures cannot be made.
    #[error("no certificate can be made: {problem}")]
    Failed {
        /// What happened.
        problem: String,
    },
}

fn failed(error: rcgen::Error) -> IssueError {
    IssueError::Failed {
        problem: error.to_string(),
    }
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn generate(name: &str, lifetime: Duration) -> Result<Self, IssueError> {
        let mut params = params(name, lifetime)?;
        // It issues for processes only, not for further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate: Certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// An authority that was made before.
    ///
    /// # Errors
    /// If the two are not an authority's certificate and its key. rcgen looks at neither, and what it then issued nobody would
    /// believe.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, IssueError> {
        let not = |error: rcgen::Error| IssueError::Authority {
            problem: error.to_string(),
        };
        let key = KeyPair::from_pem(key_pem).map_err(not)?;
        goes_with(certificate_pem, &key).map_err(|problem| IssueError::Authority { problem })?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(not)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer,
        })
    }

    /// Its certificate, for the CA bundles of those who shall believe it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its key. Whoever has it can be anybody.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// A name that a certificate cannot have, or no key can be made.
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued, IssueError> {
        let name = leaf.spiffe.as_ref().map_or("tessera", |id| id.as_str());
        let mut params = params(name, leaf.lifetime)?;
        params.subject_alt_names = names(leaf)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        params.extended_key_usages = match leaf.purpose {
            Purpose::Both => vec![server, client],
            Purpose::Server => vec![server],
            Purpose::Client => vec![client],
        };
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// # Errors
/// Why the key and the certificate are not an authority's.
fn goes_with(certificate_pem: &str, key: &KeyPair) -> Result<(), String> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let constraints = certificate.basic_constraints().map_err(|error| error.to_string())?;
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err("the certificate is not an authority's: it has no cA".to_owned());
    }
    let usage = certificate.key_usage().map_err(|error| error.to_string())?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("the certificate's key usage has no keyCertSign".to_owned());
    }
    if certificate.public_key().subject_public_key.data != key.public_key_raw() {
        return Err("the key is another one than the certificate's".to_owned());
    }
    Ok(())
}

fn params(name: &str, lifetime: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_before = now - BACKDATED;
    let not_after = lifetime.try_into().ok().and_then(|lifetime| now.checked_add(lifetime));
    params.not_after = not_after.ok_or(IssueError::Lifetime { lifetime })?;
    Ok(params)
}

fn names(leaf: &Leaf) -> Result<Vec<SanType>, IssueError> {
    let text = |name: &str| name.try_into().map_err(|_| IssueError::Name { name: name.to_owned() });
    let mut names = Vec::new();
    if let Some(id) = &leaf.spiffe {
        names.push(SanType::URI(text(id.as_str())?));
    }
    for name in &leaf.dns_names {
        names.push(SanType::DnsName(text(name)?));
    }
    names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// What was issued with another key, or by a process's certificate, was written and believed by nobody.
    #[test]
    fn an_authority_is_one_and_has_its_own_key() {
        let [one, other] = ["one", "other"].map(|name| Authority::generate(name, DAY).expect("a key"));
        Authority::from_pem(one.certificate_pem(), one.key_pem()).expect("a pair");
        let leaf = Leaf {
            lifetime: DAY,
            ..Leaf::default()
        };
        let leaf = one.issue(&leaf).expect("issued");
        for (certificate, key, problem) in [
            (
                one.certificate_pem(),
                other.key_pem(),
                "another one than the certificate's",
            ),
            (&leaf.certificate_pem, &leaf.key_pem, "not an authority's"),
            ("", one.key_pem(), "no certificate authority"),
            (one.certificate_pem(), "", "no certificate authority"),
        ] {
            let error = Authority::from_pem(certificate, key).expect_err(problem).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    /// It panicked.
    #[test]
    fn a_lifetime_beyond_all_calendars_is_an_error() {
        for lifetime in [Duration::MAX, DAY * 366 * 10_000] {
            let error = Authority::generate("long", lifetime).expect_err("too long");
            assert!(matches!(error, IssueError::Lifetime { .. }), "{error}");
            let leaf = Leaf {
                lifetime,
                ..Leaf::default()
            };
            let authority = Authority::generate("one", DAY).expect("a key");
            authority.issue(&leaf).map(|_| ()).expect_err("too long");
        }
    }
}
