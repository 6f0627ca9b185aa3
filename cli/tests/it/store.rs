//! A registry's store by its flags: an etcd that is spoken to with TLS, and what is said where the flags do not fit together.

use std::fs;

use crate::{etcd_server::EtcdServer, role::Registry, run::run};

/// Certificates of one authority, as a person makes them.
fn certificates(folder: &str) {
    run(&["certs", "--out", folder, "--service", "etcd"]).code(0);
}

/// The operator's certificate has no names, which etcd would hold against where the connection comes from.
#[test]
fn a_registry_serves_over_an_etcd_with_mutual_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let certs = folder.path().join("certs").display().to_string();
    certificates(&certs);
    let file = |name: &str| format!("{certs}/{name}");
    let etcd = EtcdServer::start_with(&[
        "--cert-file",
        &file("etcd.crt"),
        "--key-file",
        &file("etcd.key"),
        "--client-cert-auth",
        "--trusted-ca-file",
        &file("ca.crt"),
    ]);
    let Some(etcd) = etcd else { return };
    // By a file, as where it has a password.
    let store = folder.path().join("store");
    fs::write(&store, format!("etcds://{}/a\n", etcd.address())).expect("written");
    let store = format!("@{}", store.display());
    let (ca, certificate, key) = (file("ca.crt"), file("operator.crt"), file("operator.key"));
    let believes = ["--store", &store, "--store-ca", &ca];
    let shows = ["--store-cert", &certificate, "--store-key", &key];
    let data = folder.path().join("data");
    let registry = Registry::with(&data, &[believes, shows].concat());
    run(&["services", "--registry", &registry.address]).code(0);
    registry.stop();

    let start = ["registry", "--listen", "127.0.0.1:0", "--admin-listen", "off"];
    let unknown = run(&[&start[..], &believes].concat());
    unknown.code(1).says(&["we have none to show", "--store-cert"]);
    let plain = format!("etcd://{}", etcd.address());
    let plain = run(&[&start[..], &["--store", &plain]].concat());
    plain.code(1).says(&["etcds://"]);
}

#[test]
fn tls_to_the_store_is_all_or_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let certs = folder.path().display().to_string();
    certificates(&certs);
    let (ca, certificate) = (format!("{certs}/ca.crt"), format!("{certs}/registry.crt"));
    let start = |flags: &[&str]| run(&[&["registry", "--listen", "127.0.0.1:0", "--data-dir", &certs], flags].concat());
    let secured = ["--store", "etcds://127.0.0.1:1"];
    start(&secured).code(2).one_line(&["etcds://", "--store-ca"]);
    let alone = [&secured[..], &["--store-ca", &ca, "--store-cert", &certificate]].concat();
    start(&alone)
        .code(2)
        .one_line(&["--store-cert and --store-key together"]);
    start(&[&secured[..], &["--store-ca", &certs]].concat())
        .code(1)
        .says(&[&certs]);
    for plain in ["etcd://127.0.0.1:1", "embedded"] {
        start(&["--store", plain, "--store-ca", &ca])
            .code(2)
            .one_line(&["--store-ca", "etcds://"]);
    }
    start(&["--store", "@nowhere"]).code(2).one_line(&["nowhere"]);
}
