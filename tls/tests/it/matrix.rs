//! Row 44 of the fault plan: which certificates get in, and in which words the others are refused. The same from the client's
//! side: whom it believes.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use tls::{ClientAuth, Expected, LoadError, Settings, Tls};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Files, Met, TICKET, USER, World, meet, uri, valid};

fn named(id: &'static str) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.subject_alt_names.push(uri(id))
}

/// A client that shows what no process of ours would load by itself: built by hand, as an attacker does.
async fn shows(world: &World, server: &Tls, files: &Files) -> Result<(), String> {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let (near, far) = tokio::io::duplex(64 << 10);
    let mut authorities = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(world.path("ca.crt")).expect("PEM");
    authorities.add(authority).expect("an authority");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(authorities)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&files.certificate).expect("PEM")],
            PrivateKeyDer::from_pem_file(&files.key).expect("PEM"),
        )
        .expect("a pair");
    let dial = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let acceptor = server.server().expect("a certificate").acceptor(tls::Listener::Grpc);
    let localhost = "localhost".try_into().expect("a name");
    let (accepted, _) = tokio::join!(acceptor.accept(far), dial.connect(localhost, near));
    accepted.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn only_good_client_certificates_get_in_and_the_others_are_told_apart() {
    let world = World::new();
    let stranger = World::new();
    let server = world.tls(Some(&world.issue("server", named(USER))), ClientAuth::Required);

    let good = world.issue("good", named(TICKET));
    assert_eq!(shows(&world, &server, &good).await, Ok(()));
    let unnamed = world.issue("unnamed", |params| params.subject_alt_names.clear());
    assert_eq!(
        shows(&world, &server, &unnamed).await,
        Ok(()),
        "names are for others to ask for"
    );

    let refused = [
        (
            "expired",
            world.issue("expired", |params| valid(params, -10, -1)),
            "expired",
        ),
        (
            "not yet valid",
            world.issue("early", |params| valid(params, 1, 10)),
            "not valid yet",
        ),
        (
            "wrong CA",
            stranger.issue("stranger", named(TICKET)),
            "none of the authorities",
        ),
        (
            "self-signed",
            world.self_signed("own", named(TICKET)),
            "none of the authorities",
        ),
        ("CA as leaf", world.authority(), "it is an authority's"),
        (
            "signs others",
            world.issue("signer", |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            "authority's (its key usage has keyCertSign)",
        ),
        (
            "two URIs",
            world.issue("two", |params| {
                params.subject_alt_names.extend([uri(TICKET), uri(USER)])
            }),
            "2 URI names",
        ),
        (
            "malformed id",
            world.issue("malformed", named("spiffe://example/../x")),
            "no SPIFFE id",
        ),
        (
            "server certificate",
            world.issue("server-only", |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "extended key usage",
        ),
    ];
    for (what, files, reason) in refused {
        let outcome = shows(&world, &server, &files).await;
        let error = outcome.expect_err(what);
        assert!(error.contains(reason), "{what}: {error}");
        assert!(
            error.starts_with("the client's certificate was refused"),
            "{what}: {error}"
        );
    }
}

#[tokio::test]
async fn no_certificate_is_refused_where_one_is_required_and_taken_where_it_is_not() {
    let world = World::new();
    let files = world.issue("server", |_| {});
    let nobody = world.tls(None, ClientAuth::None);
    for (client_auth, gets_in) in [
        (ClientAuth::None, true),
        (ClientAuth::Optional, true),
        (ClientAuth::Required, false),
    ] {
        let server = world.tls(Some(&files), client_auth);
        let Met { server, client, .. } = meet(&server, &nobody, "localhost", &Expected::Host).await;
        assert_eq!(client.is_ok(), gets_in, "{client_auth:?}: {client:?}");
        match server {
            Ok(accepted) => assert_eq!(accepted.identity, None),
            Err(error) => {
                assert!(error.contains("it showed none, and one is required"), "{error}");
                let told = client.expect_err("refused");
                assert!(told.contains("it requires one, and we have none"), "{told}");
            }
        }
    }
    // Where it is optional, a bad one is no better than where it is required.
    let server = world.tls(Some(&files), ClientAuth::Optional);
    let expired = world.issue("expired", |params| valid(params, -10, -1));
    shows(&world, &server, &expired).await.expect_err("refused");
}

#[tokio::test]
async fn the_server_learns_who_calls() {
    let world = World::new();
    let server = world.tls(Some(&world.issue("server", |_| {})), ClientAuth::Optional);
    let client = world.tls(Some(&world.issue("client", named(TICKET))), ClientAuth::None);
    let met = meet(&server, &client, "localhost", &Expected::Host).await;
    met.client.expect("got in");
    let identity = met.server.expect("got in").identity.expect("shown");
    assert_eq!(identity.service(), Some(("default", "ticket-svc")));
    assert!(identity.covers_host("127.0.0.1"));
}

#[tokio::test]
async fn a_client_speaks_to_whom_it_expected_and_nobody_else() {
    let world = World::new();
    let client = world.tls(None, ClientAuth::None);
    let ticket = Expected::service("default", "ticket-svc");
    let at_localhost = world.issue("plain", |_| {});
    let elsewhere = |id: &'static str| move |params: &mut CertificateParams| params.subject_alt_names = vec![uri(id)];
    let right = world.issue("right", elsewhere(TICKET));
    // The hijack of row 53: genuine, on the right host, and another service.
    let wrong = world.issue("wrong", named(USER));
    for (what, files, host, expected, outcome) in [
        ("host", &at_localhost, "localhost", &Expected::Host, Ok(())),
        ("address", &at_localhost, "127.0.0.1", &Expected::Host, Ok(())),
        ("host without an id", &at_localhost, "localhost", &ticket, Ok(())),
        ("id, whatever the host", &right, "10.1.2.3", &ticket, Ok(())),
        (
            "another host",
            &at_localhost,
            "other",
            &Expected::Host,
            Err("not valid for name"),
        ),
        (
            "another host without an id",
            &at_localhost,
            "10.0.0.1",
            &ticket,
            Err("not valid for name"),
        ),
        (
            "another service",
            &wrong,
            "localhost",
            &ticket,
            Err("belongs to spiffe://example/ns/default/svc/user-svc"),
        ),
        (
            "an id and no host",
            &right,
            "localhost",
            &Expected::Host,
            Err("not valid for name"),
        ),
        ("no host", &right, "a b", &ticket, Err("neither a DNS name")),
    ] {
        let server = world.tls(Some(files), ClientAuth::None);
        let (near, far) = tokio::io::duplex(64 << 10);
        let acceptor = server.server().expect("a certificate").acceptor(tls::Listener::Grpc);
        let serving = tokio::spawn(async move { acceptor.accept(far).await });
        let connected = client.client().expect("a bundle").connect(near, host, expected).await;
        match (connected, outcome) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{what}: {error}"),
            (connected, _) => panic!("{what}: {connected:?}"),
        }
        let _ = serving.await;
    }
}

#[tokio::test]
async fn servers_that_are_no_good_are_refused() {
    let world = World::new();
    let stranger = World::new();
    let client = world.tls(None, ClientAuth::None);
    for (files, reason) in [
        (world.issue("expired", |params| valid(params, -10, -1)), "expired"),
        (stranger.issue("stranger", |_| {}), "none of the authorities"),
        (
            world.issue("client-only", |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            "extended key usage",
        ),
    ] {
        let server = world.tls(Some(&files), ClientAuth::None);
        let met = meet(&server, &client, "localhost", &Expected::Host).await;
        let error = met.client.expect_err(reason);
        assert!(error.contains(reason), "{error}");
        assert!(error.starts_with("the server's certificate was refused"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_called_so() {
    let world = World::new();
    let client = world.tls(None, ClientAuth::None);
    let (near, mut far) = tokio::io::duplex(64 << 10);
    far.write_all(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64")
        .await
        .expect("room");
    let error = client
        .client()
        .expect("a bundle")
        .connect(near, "localhost", &Expected::Host)
        .await;
    assert_eq!(error.map(|_| ()), Err(tls::ConnectError::Plain));
}

/// One authority, or a bundle of several, may issue for more than one trust domain, and each has an operator called ada.
#[tokio::test]
async fn an_id_of_another_trust_domain_is_refused_on_both_sides() {
    let world = World::new();
    let ours = world.issue("ours", named(TICKET));
    let theirs = world.issue("theirs", named("spiffe://elsewhere/ns/default/svc/ticket-svc"));
    let ticket = Expected::service("default", "ticket-svc");
    let server = world.tls(Some(&ours), ClientAuth::Optional);
    let error = shows(&world, &server, &theirs).await.expect_err("another domain");
    assert!(error.contains("our own is of the trust domain example"), "{error}");
    let server = world.tls(Some(&theirs), ClientAuth::None);
    for expected in [ticket.clone(), Expected::Host] {
        let met = meet(
            &server,
            &world.tls(Some(&ours), ClientAuth::None),
            "localhost",
            &expected,
        )
        .await;
        let error = met.client.expect_err("another domain");
        assert!(error.contains("our own is of the trust domain example"), "{error}");
    }
    // Who has no id, on either side, has none to compare.
    let plain = world.issue("plain", |_| {});
    let met = meet(
        &server,
        &world.tls(Some(&plain), ClientAuth::None),
        "localhost",
        &ticket,
    )
    .await;
    met.client.expect("any domain of the bundle");
    shows(&world, &world.tls(Some(&ours), ClientAuth::Optional), &plain)
        .await
        .expect("no id");
}

/// rustls holds up to 64 KiB of a hello that never ends, of every connection that anybody opens.
#[tokio::test]
async fn a_hello_that_does_not_end_is_given_up_after_16_kib() {
    let world = World::new();
    let server = world.tls(Some(&world.issue("server", |_| {})), ClientAuth::None);
    let acceptor = server.server().expect("a certificate").acceptor(tls::Listener::Grpc);
    let (mut near, far) = tokio::io::duplex(64 << 10);
    // Records of 4 KiB, full of a ClientHello that says it has 60,000 bytes.
    let mut record = vec![0x16, 3, 1, 0x10, 0];
    record.extend([0; 4 << 10]);
    for n in 0..8 {
        record[5..9].copy_from_slice(if n == 0 { &[1, 0, 0xea, 0x60] } else { &[0; 4] });
        near.write_all(&record).await.expect("room");
    }
    let accepted = tokio::time::timeout(std::time::Duration::from_secs(20), acceptor.accept(far)).await;
    let error = accepted.expect("given up").expect_err("no hello").to_string();
    assert!(error.contains("16 KiB"), "{error}");
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut near, &mut answer)
        .await
        .expect("closed");
}

/// A session that is resumed brings the client's identity along without another look at its certificate.
#[tokio::test]
async fn no_session_is_resumed() {
    let world = World::new();
    let server = world.tls(Some(&world.issue("server", |_| {})), ClientAuth::Optional);
    let client = world.tls(Some(&world.issue("client", named(TICKET))), ClientAuth::None);
    for _ in 0..3 {
        let met = meet(&server, &client, "localhost", &Expected::Host).await;
        let accepted = met.server.expect("got in");
        let kind = accepted.stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn files_that_are_no_good_are_named_with_what_is_wrong() {
    let world = World::new();
    let (good, other) = (world.issue("good", |_| {}), world.issue("other", |_| {}));
    std::fs::write(world.path("empty"), "").expect("written");
    std::fs::write(
        world.path("noise"),
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    std::fs::write(
        world.path("encrypted"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .expect("written");
    let load = |certificate: Option<&str>, key: Option<&str>, authorities: Option<&str>, client_auth| {
        let path = |name: &str| world.path(name);
        let error = Tls::load(Settings {
            certificate: certificate.map(path),
            key: key.map(path),
            authorities: authorities.map(path),
            client_auth,
        });
        error.map(|_| ()).expect_err("refused").to_string()
    };
    let required = ClientAuth::Required;
    let none = ClientAuth::None;
    let _ = other;
    for (error, file, reason) in [
        (
            load(Some("gone.crt"), Some("good.key"), None, none),
            "gone.crt",
            "cannot be read",
        ),
        (
            load(Some("empty"), Some("good.key"), None, none),
            "empty",
            "BEGIN CERTIFICATE",
        ),
        (load(Some("noise"), Some("good.key"), None, none), "noise", "no PEM"),
        (
            load(Some("good.crt"), Some("empty"), None, none),
            "empty",
            "no private key",
        ),
        (
            load(Some("good.crt"), Some("encrypted"), None, none),
            "encrypted",
            "openssl pkey",
        ),
        (
            load(Some("good.crt"), Some("other.key"), None, none),
            "other.key",
            "not that of the certificate",
        ),
        (load(Some("good.crt"), None, None, none), "private key", "go together"),
        (load(None, Some("good.key"), None, none), "certificate", "go together"),
        (
            load(Some("good.crt"), Some("good.key"), None, required),
            "CA bundle",
            "verify",
        ),
        (
            load(Some("ca.crt"), Some("ca.key"), None, none),
            "ca.crt",
            "authority's",
        ),
        (load(None, None, Some("empty"), none), "empty", "CA bundle"),
    ] {
        assert!(
            error.contains(file) && error.contains(reason),
            "{file}, {reason}: {error}"
        );
    }
    let malformed = Tls::load(world.settings(
        Some(&Files {
            key: good.certificate.clone(),
            ..good
        }),
        none,
    ));
    assert!(matches!(malformed, Err(LoadError::Malformed { .. })), "{malformed:?}");
}
