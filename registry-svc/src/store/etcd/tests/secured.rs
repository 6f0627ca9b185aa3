//! etcd speaks TLS, and wants to see a certificate: the suite of all stores over it, and what is said of everything that does not
//! fit.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tls::issue::{Authority, Leaf, Purpose};
use tokio_util::sync::CancellationToken;

use super::fixture::{Place, begin_commit, listen};
use crate::{
    model::Revision,
    store::{
        Etcd, Store as _, StoreError, Verdict,
        tests::{model::batch, suite, suite::Shelf},
    },
};

suite::suite!(Secured, 4);

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A prefix in an etcd that nobody reaches without a certificate of its authority.
struct Secured {
    place: Place,
    files: Files,
}

/// Certificates of one authority, and that of another one.
struct Files(tempfile::TempDir);

impl Files {
    fn issue() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::generate("etcd's", DAY).expect("an authority");
        let files = Self(folder);
        files.write("ca.crt", authority.certificate_pem());
        let other = Authority::generate("another", DAY).expect("an authority");
        files.write("other-ca.crt", other.certificate_pem());
        files.issue_by(&authority, "etcd", Purpose::Both, &["127.0.0.1"]);
        files.issue_by(&authority, "elsewhere", Purpose::Both, &["192.0.2.1"]);
        files.issue_by(&authority, "registry", Purpose::Client, &[]);
        files.issue_by(&other, "stranger", Purpose::Client, &[]);
        files
    }

    fn issue_by(&self, authority: &Authority, name: &str, purpose: Purpose, addresses: &[&str]) {
        let leaf = Leaf {
            addresses: addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect(),
            purpose,
            lifetime: DAY,
            ..Leaf::default()
        };
        let issued = authority.issue(&leaf).expect("issued");
        self.write(&format!("{name}.crt"), &issued.certificate_pem);
        self.write(&format!("{name}.key"), &issued.key_pem);
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        Path::to_str(&self.path(name)).expect("is UTF-8").to_owned()
    }

    /// What a registry dials with that believes `authority` and shows the certificate of `own`.
    fn tls(&self, authority: &str, own: Option<&str>) -> tls::Tls {
        let settings = tls::Settings {
            certificate: own.map(|own| self.path(&format!("{own}.crt"))),
            key: own.map(|own| self.path(&format!("{own}.key"))),
            authorities: Some(self.path(authority)),
            ..tls::Settings::default()
        };
        tls::Tls::load(settings).expect("good files")
    }

    fn client(&self, authority: &str, own: Option<&str>) -> tls::Client {
        let tls = self.tls(authority, own);
        tls.client().expect("has an authority").clone()
    }
}

impl Secured {
    /// An etcd with this certificate.
    fn showing(certificate: &str) -> Option<Self> {
        let files = Files::issue();
        let mut place = Place::alone_with(&[
            "--cert-file",
            &files.text(&format!("{certificate}.crt")),
            "--key-file",
            &files.text(&format!("{certificate}.key")),
            "--client-cert-auth",
            "--trusted-ca-file",
            &files.text("ca.crt"),
        ])?;
        place.tls = Some(files.client("ca.crt", Some("registry")));
        Some(Self { place, files })
    }

    /// What a registry is told that is started so.
    fn refused(&self, scheme: &str, tls: Option<&tls::Client>) -> String {
        let address = self.place.server().address();
        let url = format!("{scheme}://{address}/x").parse().expect("an address");
        let opened = Etcd::open(&url, tls, self.place.runtime.handle(), CancellationToken::new());
        let error = opened.expect_err("is refused");
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
        error.to_string()
    }
}

impl Shelf for Secured {
    type Store = Etcd;

    fn new() -> Option<Self> {
        Self::showing("etcd")
    }

    fn open(&self) -> Etcd {
        self.place.open()
    }

    fn raw(&self) -> Vec<u8> {
        self.place.raw()
    }
}

#[test]
fn whoever_does_not_fit_is_told_what_to_do() {
    let Some(secured) = Secured::showing("etcd") else {
        return;
    };
    let client = |authority, own| secured.files.client(authority, own);
    for (what, scheme, tls, expected) in [
        (
            "another authority",
            "etcds",
            Some(client("other-ca.crt", Some("registry"))),
            ["none of the authorities", "--store-ca"],
        ),
        (
            "no certificate",
            "etcds",
            Some(client("ca.crt", None)),
            ["we have none to show", "--store-cert"],
        ),
        (
            "a stranger's certificate",
            "etcds",
            Some(client("ca.crt", Some("stranger"))),
            ["refused our certificate", "--store-cert"],
        ),
        ("no TLS", "etcd", None, ["without a word", "etcds://"]),
        ("nobody to believe", "etcds", None, ["no CA bundle", "--store-ca"]),
    ] {
        let text = secured.refused(scheme, tls.as_ref());
        for words in expected {
            assert!(text.contains(words), "{what}: {text}");
        }
        assert!(!text.contains("majority"), "{what}: {text}");
    }
}

#[test]
fn an_etcd_of_another_name_is_not_believed() {
    let Some(secured) = Secured::showing("elsewhere") else {
        return;
    };
    let tls = secured.files.client("ca.crt", Some("registry"));
    let text = secured.refused("etcds", Some(&tls));
    assert!(
        text.contains("certificate was refused") && text.contains("--store names its members"),
        "{text}"
    );
}

#[test]
fn tls_where_etcd_has_none_is_said_so() {
    let Some(place) = Place::shared() else { return };
    let files = Files::issue();
    let tls = files.client("ca.crt", Some("registry"));
    let secured = Secured { place, files };
    let text = secured.refused("etcds", Some(&tls));
    assert!(text.contains("is etcd://"), "{text}");
}

/// Watches, sessions and commits go over it, etcd's restart included.
#[test]
fn replicas_follow_each_other_over_tls_and_survive_a_restart_of_etcd() {
    let Some(mut secured) = Secured::showing("etcd") else {
        return;
    };
    let tls = secured.files.tls("ca.crt", Some("registry"));
    secured.place.tls = tls.client().cloned();
    let mut store = secured.open();
    store.load().expect("loads");
    let mut follower = secured.open();
    let mut news = listen(&mut follower);
    let verdict = store.commit(&[batch(1, 1, false)], Revision::ZERO).expect("commits");
    assert_eq!(verdict, Verdict::Durable);
    assert_eq!(news.batches(), [batch(1, 1, false)]);
    secured.place.own_server().kill();
    let pending = begin_commit(store, 2);
    secured.place.own_server().restart();
    let (_store, verdict) = pending.join().expect("no panic");
    assert_eq!(verdict, Verdict::Durable);
    assert_eq!(news.batches(), [batch(2, 1, false)]);
}
