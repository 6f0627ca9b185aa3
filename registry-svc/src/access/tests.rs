//! What a gate decides, for each way of not being known and for certificates.

use std::sync::Arc;

use super::*;
use crate::{
    model::{Namespace, ServiceKey, ServiceName},
    tokens::{Secret, Token},
};

const NOW: u64 = 1_000;
const WATCH: &str = "/tessera.registry.v1.RegistryService/Watch";
const REGISTER: &str = "/tessera.registry.v1.RegistryService/Register";
const BACKUP: &str = "/tessera.registry.v1.GovernanceService/Backup";

fn token(secret: &Secret, scopes: &[&str], not_after: Option<u64>) -> Token {
    let scopes = scopes.iter().map(|scope| scope.parse().expect("a scope")).collect();
    Token::new(secret, "test", scopes, 0, not_after)
}

fn shown(token: &str) -> Shown<'_> {
    Shown {
        token: Some(Ok(token)),
        identity: None,
        now: NOW,
    }
}

const NOBODY: Shown<'_> = Shown {
    token: None,
    identity: None,
    now: NOW,
};

fn is_unknown(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Unknown)
}

/// Row 46: none, unknown, wrong, expired, revoked, empty, huge, and texts of other token formats.
#[test]
fn every_way_of_having_no_good_token_is_the_same() {
    let (good, expired, revoked, stranger) = (Secret::draw(), Secret::draw(), Secret::draw(), Secret::draw());
    let revoked_token = token(&revoked, &["read:*"], None);
    revoked_token.revocation().revoke();
    let set = TokenSet::new(vec![
        token(&good, &["read:*"], Some(NOW + 1)),
        token(&expired, &["read:*"], Some(NOW)),
        revoked_token,
    ]);
    assert!(matches!(decide(WATCH, shown(good.reveal()), &set), Verdict::Known(_)));

    let text = good.reveal();
    let (head, secret) = text.rsplit_once('_').expect("three parts");
    let other_secret = stranger.reveal().rsplit_once('_').expect("three parts").1;
    let mut cases: Vec<String> = vec![
        String::new(),
        stranger.reveal().to_owned(),
        expired.reveal().to_owned(),
        revoked.reveal().to_owned(),
        head.to_owned(),
        format!("{head}_"),
        // Its id, somebody else's secret.
        format!("{head}_{other_secret}"),
        secret.to_owned(),
        text.to_uppercase(),
        text.to_lowercase(),
        format!("{text}A"),
        text[..text.len() - 1].to_owned(),
        format!(" {text}"),
        format!("{text} "),
        format!("{text}\n"),
        text.replace("tsr_", ""),
        "x".repeat(1 << 20),
        // alg:none, and what other systems take for a password.
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.".to_owned(),
        "admin".to_owned(),
        "*".to_owned(),
    ];
    // Each letter of the secret counts.
    for at in 0..secret.len() {
        let mut letters: Vec<char> = secret.chars().collect();
        letters[at] = if letters[at] == 'A' { 'B' } else { 'A' };
        cases.push(format!("{head}_{}", letters.into_iter().collect::<String>()));
    }
    for case in &cases {
        for path in [WATCH, REGISTER, "/no.such/Method"] {
            assert!(is_unknown(&decide(path, shown(case), &set)), "{case:?} {path}");
        }
    }
    assert!(is_unknown(&decide(WATCH, NOBODY, &set)));
    let unreadable = Shown {
        token: Some(Err(())),
        ..NOBODY
    };
    assert!(is_unknown(&decide(WATCH, unreadable, &set)));
}

#[test]
fn only_the_known_are_told_which_methods_there_are_and_health_is_everybodys() {
    let good = Secret::draw();
    let set = TokenSet::new(vec![token(&good, &["read:*"], None)]);
    let of = |path| decide(path, shown(good.reveal()), &set);
    assert!(matches!(of("/no.such/Method"), Verdict::NoSuchMethod));
    assert!(matches!(
        of("/tessera.user.v1.UserService/SignIn"),
        Verdict::NoSuchMethod
    ));
    assert!(is_unknown(&decide("/tessera.user.v1.UserService/SignIn", NOBODY, &set)));
    assert!(matches!(
        decide("/grpc.health.v1.Health/Check", NOBODY, &set),
        Verdict::Anybody
    ));
    assert!(matches!(of(REGISTER), Verdict::Lacks(_, Missing::Kind(Kind::Register))));
    assert!(matches!(of(BACKUP), Verdict::Lacks(_, Missing::Scope(scope)) if scope == "operate:*"));
}

fn identity(spiffe: &str) -> Arc<tls::Identity> {
    Arc::new(tls::Identity {
        spiffe: Some(spiffe.parse().expect("a SPIFFE id")),
        ..tls::Identity::default()
    })
}

#[test]
fn a_certificate_may_what_its_name_says() {
    let [team, te, tickets] = ["team", "te", "ticket-svc"];
    let (team, te) = (Namespace::try_new(team), Namespace::try_new(te));
    let (team, te) = (team.expect("a name"), te.expect("a name"));
    let tickets = ServiceName::try_new(tickets).expect("a name");
    let other = ServiceName::try_new("ticket").expect("a name");
    let check = |spiffe: &str, need: Need<'_>, expected: bool| {
        let principal = Principal::Identity(identity(spiffe));
        assert_eq!(principal.may(need), expected, "{spiffe} {need:?}");
    };
    let service = "spiffe://acme/ns/team/svc/ticket-svc";
    check(service, Need::Read(&team), true);
    check(service, Need::Read(&te), false);
    check(service, Need::Register(&team, &tickets), true);
    check(service, Need::Register(&team, &other), false);
    check(service, Need::Register(&te, &tickets), false);
    check(service, Need::Operate(&team), false);
    let operator = "spiffe://acme/operator/ada";
    check(operator, Need::Read(&team), true);
    check(operator, Need::Operate(&team), true);
    check(operator, Need::OperateAll, true);
    check(operator, Need::Register(&team, &tickets), false);
    let neither = "spiffe://acme/something/else";
    check(neither, Need::Read(&team), false);
    check(neither, Need::Operate(&team), false);
}

/// A certificate was looked at when its connection was opened, and never again.
#[test]
fn a_certificate_that_has_ended_is_nobodys() {
    let set = TokenSet::new(Vec::new());
    for (not_after, is_known) in [(NOW, true), (NOW - 1, false)] {
        let operator = Arc::new(tls::Identity {
            not_after: Some(not_after),
            ..(*identity("spiffe://acme/operator/ada")).clone()
        });
        let certificate = Shown {
            identity: Some(&operator),
            ..NOBODY
        };
        let verdict = decide(BACKUP, certificate, &set);
        assert_eq!(is_unknown(&verdict), !is_known, "{verdict:?}");
    }
}

#[test]
fn a_token_that_is_shown_decides_alone() {
    let operator = identity("spiffe://acme/operator/ada");
    let good = Secret::draw();
    let set = TokenSet::new(vec![token(&good, &["read:team"], None)]);
    let both = |token| Shown {
        token: Some(Ok(token)),
        identity: Some(&operator),
        now: NOW,
    };
    // Its token was revoked: it does not go on by its certificate unnoticed.
    assert!(is_unknown(&decide(BACKUP, both("tsr_gone"), &set)));
    assert!(matches!(decide(BACKUP, both(good.reveal()), &set), Verdict::Lacks(..)));
    let certificate = Shown {
        identity: Some(&operator),
        ..NOBODY
    };
    assert!(matches!(decide(BACKUP, certificate, &set), Verdict::Known(_)));
}

/// A secret of another service's lease was good with any certificate or token that may register something.
#[test]
fn a_leases_secret_is_bound_by_the_token_and_by_the_certificate_beside_it() {
    let service = |namespace: &str, service: &str| ServiceKey {
        namespace: Namespace::try_new(namespace).expect("a name"),
        service: ServiceName::try_new(service).expect("a name"),
    };
    let tickets = service("team", "ticket-svc");
    let certificate = || identity("spiffe://acme/ns/team/svc/ticket-svc");
    let operator = || identity("spiffe://acme/operator/ada");
    let by_token = |scope: &str| Principal::Token(Arc::new(token(&Secret::draw(), &[scope], None)));
    let check = |principal, beside, of: &ServiceKey, expected: bool| {
        let bounds = Bounds::of(principal, beside).expect("bound");
        assert_eq!(bounds.cover(of), expected, "{bounds:?} {of:?}");
    };
    for (other, is_own) in [
        (&tickets, true),
        (&service("team", "ticket"), false),
        (&service("te", "ticket-svc"), false),
        (&service("default", "ticket-svc"), false),
    ] {
        check(
            Some(Principal::Identity(certificate())),
            Some(certificate()),
            other,
            is_own,
        );
        // Where everybody may come in, a certificate that is shown binds all the same, as it does in Register.
        check(None, Some(certificate()), other, is_own);
        check(Some(by_token("register:team/ticket-svc")), None, other, is_own);
        check(Some(by_token("register:*/*")), Some(certificate()), other, is_own);
        check(Some(by_token("register:*/*")), None, other, true);
        check(Some(by_token("operate:*")), None, other, false);
        // Who decides about a service is not the service, whatever token it has found.
        check(Some(Principal::Identity(operator())), Some(operator()), other, false);
        check(Some(by_token("register:*/*")), Some(operator()), other, false);
        check(Some(by_token("register:other/*")), Some(certificate()), other, false);
    }
    assert!(Bounds::of(None, None).is_none());
}
