//! An authority, and whatever certificates a test wants of it.

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;
use tls::{
    ClientAuth, Settings, SpiffeId, Tls,
    issue::{Authority, Issued, Leaf, Purpose},
};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// An authority and the folder of its files.
pub(crate) struct World {
    folder: TempDir,
    authority: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().expect("a folder"),
            authority: Authority::generate("test", DAY).expect("a key"),
        };
        std::fs::write(world.path("ca.crt"), world.authority.certificate_pem()).expect("written");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn issue(&self, service: &str, purpose: Purpose) -> Issued {
        self.issue_for(service, purpose, DAY)
    }

    pub(crate) fn issue_for(&self, service: &str, purpose: Purpose, lifetime: Duration) -> Issued {
        let leaf = Leaf {
            spiffe: Some(SpiffeId::of_service("example", "default", service).expect("an id")),
            dns_names: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1".parse().expect("an address")],
            purpose,
            lifetime,
        };
        self.authority.issue(&leaf).expect("issued")
    }

    /// Puts the pair where `settings` expects it.
    pub(crate) fn write(&self, name: &str, issued: &Issued) {
        std::fs::write(self.path(&format!("{name}.crt")), &issued.certificate_pem).expect("written");
        std::fs::write(self.path(&format!("{name}.key")), &issued.key_pem).expect("written");
    }

    pub(crate) fn load(&self, name: Option<&str>, client_auth: ClientAuth) -> Tls {
        Tls::load(Settings {
            certificate: name.map(|name| self.path(&format!("{name}.crt"))),
            key: name.map(|name| self.path(&format!("{name}.key"))),
            authorities: Some(self.path("ca.crt")),
            client_auth,
        })
        .expect("good files")
    }

    /// A client that is not ours.
    pub(crate) fn somebody(&self, name: Option<&str>) -> std::sync::Arc<rustls::ClientConfig> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
        let certificate = |name: &str| CertificateDer::from_pem_slice(&self.read(name)).expect("PEM");
        let mut authorities = rustls::RootCertStore::empty();
        authorities.add(certificate("ca.crt")).expect("an authority");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(authorities);
        std::sync::Arc::new(match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_slice(&self.read(&format!("{name}.key"))).expect("PEM");
                let chain = vec![certificate(&format!("{name}.crt"))];
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        })
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("written before")
    }

    pub(crate) fn tls(&self, service: &str, client_auth: ClientAuth) -> Tls {
        self.write(service, &self.issue(service, Purpose::Both));
        self.load(Some(service), client_auth)
    }
}
