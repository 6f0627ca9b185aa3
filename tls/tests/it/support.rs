//! Certificates of every kind, their files, and a handshake that is tried from both ends.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use tempfile::TempDir;
use tls::{Accepted, ClientAuth, Expected, Listener, Settings, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

pub(crate) const TICKET: &str = "spiffe://example/ns/default/svc/ticket-svc";
pub(crate) const USER: &str = "spiffe://example/ns/default/svc/user-svc";

/// An authority, and a folder for what it issues.
pub(crate) struct World {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of one party.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

pub(crate) fn days_from_now(days: i64) -> std::time::SystemTime {
    let now = std::time::SystemTime::now();
    let by = Duration::from_secs(days.unsigned_abs() * 86_400);
    if days < 0 { now - by } else { now + by }
}

/// Valid from and until, in days from now.
pub(crate) fn valid(params: &mut CertificateParams, from: i64, until: i64) {
    let at = |days| {
        let since = days_from_now(days)
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970");
        rcgen::date_time_ymd(1970, 1, 1) + since
    };
    (params.not_before, params.not_after) = (at(from), at(until));
}

impl World {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).expect("written");
        std::fs::write(folder.path().join("ca.key"), key.serialize_pem()).expect("written");
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority's own certificate, as if it were a process's.
    pub(crate) fn authority(&self) -> Files {
        Files {
            certificate: self.path("ca.crt"),
            key: self.path("ca.key"),
        }
    }

    /// A good certificate for both purposes at `localhost` and 127.0.0.1, after `change`.
    pub(crate) fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Files {
        let (params, key) = leaf(change);
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        self.write(name, &signed.pem(), &key)
    }

    /// The same, signed by itself.
    pub(crate) fn self_signed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Files {
        let (params, key) = leaf(change);
        let signed = params.self_signed(&key).expect("signed");
        self.write(name, &signed.pem(), &key)
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> Files {
        let files = Files {
            certificate: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate).expect("written");
        std::fs::write(&files.key, key.serialize_pem()).expect("written");
        files
    }

    pub(crate) fn settings(&self, files: Option<&Files>, client_auth: ClientAuth) -> Settings {
        Settings {
            certificate: files.map(|files| files.certificate.clone()),
            key: files.map(|files| files.key.clone()),
            authorities: Some(self.path("ca.crt")),
            client_auth,
        }
    }

    pub(crate) fn tls(&self, files: Option<&Files>, client_auth: ClientAuth) -> Tls {
        Tls::load(self.settings(files, client_auth)).expect("good files")
    }
}

fn leaf(change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    valid(&mut params, -1, 1);
    change(&mut params);
    (params, KeyPair::generate().expect("a key"))
}

/// What each end says of a handshake and a word in each direction.
pub(crate) struct Met {
    pub(crate) server: Result<Accepted<DuplexStream>, String>,
    pub(crate) client: Result<(), String>,
    /// Whom the server showed.
    pub(crate) shown: Option<Vec<u8>>,
}

pub(crate) async fn meet(server: &Tls, client: &Tls, host: &str, expected: &Expected) -> Met {
    let (near, far) = tokio::io::duplex(64 << 10);
    let acceptor = server.server().expect("a certificate").acceptor(Listener::Grpc);
    let serve = async {
        let mut accepted = acceptor.accept(far).await.map_err(|error| error.to_string())?;
        // A client that is refused hears of it when it first reads.
        accepted
            .stream
            .write_all(b"!")
            .await
            .map_err(|error| error.to_string())?;
        accepted.stream.flush().await.map_err(|error| error.to_string())?;
        Ok(accepted)
    };
    let mut shown = None;
    let dial = async {
        let connected = client
            .client()
            .expect("a CA bundle")
            .connect(near, host, expected)
            .await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        let chain = stream.get_ref().1.peer_certificates();
        shown = chain.and_then(|chain| chain.first()).map(|first| first.to_vec());
        stream.read_u8().await.map_err(|error| {
            tls::ConnectError::explain(&error).map_or_else(|| error.to_string(), |error| error.to_string())
        })?;
        Ok(())
    };
    let (server, client) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(serve, dial) })
        .await
        .expect("both come to an end");
    Met { server, client, shown }
}
