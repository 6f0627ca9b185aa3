//! A server that asks for a password, and one that proves who it is: over TCP, as in production.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::*;
use crate::testing::{Guard, Server};

const PASSWORD: &str = "correcthorse17";

/// An authority of a test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for `localhost` and its key.
    fn for_localhost(&self) -> (String, String) {
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn write(&self, folder: &TempDir, name: &str) -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, &self.pem).expect("written");
        path.display().to_string()
    }
}

/// Refused at once: an error of the server that no retry mends, and that shows `secret` nowhere.
async fn refused(url: String, secret: &str) -> String {
    let error = try_open(url).await.expect_err("refused");
    let OpenError::Server { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(!is_busy(source), "no retry helps: {source:?}");
    let mut said = format!("{error} {error:?}");
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        said.push_str(&format!(" {error}"));
        cause = error.source();
    }
    assert!(!said.contains(secret), "{said}");
    said
}

#[tokio::test]
async fn a_password_opens_the_store_and_a_wrong_one_says_so() {
    let guard = Guard {
        password: PASSWORD.into(),
        certificate: None,
    };
    let Some((_server, port)) = Server::guarded(&guard) else {
        return;
    };
    let url = |password: &str| format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable");
    let database = try_open(url(PASSWORD)).await.expect("the store opens");
    insert(&database, 1).await.expect("inserted");
    assert_eq!(count(&database).await, 1);
    let said = refused(url("wronghorse18"), "wronghorse18").await;
    assert!(
        said.contains(&format!("postgres at 127.0.0.1:{port}")) && said.contains("password authentication failed"),
        "{said}"
    );
    let none = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    refused(none, PASSWORD).await;
    // It has no certificate: who asks for a connection that is verified does not get another one.
    let unverified = url(PASSWORD).replace("disable", "require");
    refused(unverified, PASSWORD).await;
}

#[tokio::test]
async fn a_server_that_proves_who_it_is_is_believed_and_no_other() {
    let folder = folder();
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let guard = Guard {
        password: PASSWORD.into(),
        certificate: Some(authority.for_localhost()),
    };
    let Some((_server, port)) = Server::guarded(&guard) else {
        return;
    };
    let [ours, others] = [
        authority.write(&folder, "ours.pem"),
        other.write(&folder, "another.pem"),
    ];
    let url = |host: &str, root: &str| {
        format!("postgres://postgres:{PASSWORD}@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={root}")
    };
    let database = try_open(url("localhost", &ours)).await.expect("the store opens");
    insert(&database, 1).await.expect("inserted");
    let is_secured = "SELECT CAST(ssl AS TEXT) FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut write = database.begin(None).await.expect("begun");
    let secured: String = sqlx::query_scalar(is_secured)
        .fetch_one(&mut *write.tx)
        .await
        .expect("an answer");
    assert_eq!(secured, "true");
    drop(write);
    // Another authority has signed it; it is called otherwise.
    for url in [url("localhost", &others), url("127.0.0.1", &ours)] {
        let said = refused(url, PASSWORD).await;
        assert!(said.contains("certificate"), "{said}");
    }
    let wrong = url("localhost", &ours).replace(PASSWORD, "wronghorse18");
    let said = refused(wrong, "wronghorse18").await;
    assert!(said.contains("password authentication failed"), "{said}");
}
