//! Files of tokens: what is written, what is refused, and what a change of one ends.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use tempfile::TempDir;

use super::*;

struct Fixture {
    _directory: TempDir,
    file: PathBuf,
}

fn fixture() -> Fixture {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("tokens.json");
    Fixture {
        _directory: directory,
        file,
    }
}

fn wanted(scopes: &[&str]) -> Wanted {
    Wanted {
        name: "ci".to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ttl: None,
    }
}

#[test]
fn what_is_issued_is_found_listed_and_revoked() {
    let Fixture { file, .. } = &fixture();
    let (listed, secret) = issue(file, &wanted(&["read", "register:a/b"])).expect("issued");
    let (second, _) = issue(file, &wanted(&["operate:*"])).expect("issued");
    assert_eq!(listed.scopes, ["read:default", "register:a/b"]);
    assert_eq!(list(file).expect("listed"), [listed.clone(), second.clone()]);
    let found = TokenSet::new(read(file).expect("read")).find(secret.reveal(), now());
    assert_eq!(found.expect("found").id(), listed.id);
    assert_eq!(revoke(file, &listed.id).expect("revoked"), listed);
    assert_eq!(list(file).expect("listed"), [second]);
    assert!(
        TokenSet::new(read(file).expect("read"))
            .find(secret.reveal(), now())
            .is_none()
    );
    assert!(matches!(revoke(file, &listed.id), Err(TokensError::NoSuchToken(_))));
}

/// `tsr_ID_SECRET` with 258 random bits: for scanners a form, for guessers nothing.
#[test]
fn a_secret_has_a_form_and_is_in_no_file() {
    let Fixture { file, .. } = &fixture();
    let (listed, secret) = issue(file, &wanted(&["read"])).expect("issued");
    let text = secret.reveal();
    let parts: Vec<&str> = text.splitn(3, '_').collect();
    assert_eq!((parts[0], parts[1], parts[2].len()), ("tsr", listed.id.as_str(), 43));
    assert_ne!(text, Secret::draw().reveal());
    let written = fs::read_to_string(file).expect("written");
    assert!(!written.contains(parts[2]), "{written}");
    assert!(!format!("{secret:?} {listed:?}").contains(parts[2]));
    for name in [file.clone(), file.with_extension("json.lock")] {
        let mode = fs::metadata(&name).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", name.display());
    }
    assert!(!file.with_extension("json.new").exists(), "nothing is left behind");
}

#[test]
fn what_cannot_be_a_token_is_refused_and_leaves_no_file() {
    let Fixture { file, .. } = &fixture();
    for (change, right) in [
        (
            Box::new(|w: &mut Wanted| w.name = " ".into()) as Box<dyn Fn(&mut Wanted)>,
            "1 to 63",
        ),
        (Box::new(|w: &mut Wanted| w.name = "a\u{1b}b".into()), "printable"),
        (Box::new(|w: &mut Wanted| w.scopes.clear()), "1 to 64 scopes"),
        (
            Box::new(|w: &mut Wanted| w.scopes = vec!["admin".into()]),
            "register:NAMESPACE/SERVICE",
        ),
        (Box::new(|w: &mut Wanted| w.ttl = Some(Duration::ZERO)), "10 years"),
        (Box::new(|w: &mut Wanted| w.ttl = Some(Duration::MAX)), "10 years"),
    ] {
        let mut token = wanted(&["read"]);
        change(&mut token);
        let error = issue(file, &token).expect_err(right).to_string();
        assert!(error.contains(right), "{error}");
    }
    assert!(!file.exists());
    let absent = list(file).expect_err("there is none").to_string();
    assert!(absent.contains("tessera token issue"), "{absent}");
    assert!(matches!(revoke(file, "x"), Err(TokensError::Absent(_))));
}

/// Row 49: a hash that is short, or of a secret that somebody chose, is no token.
#[test]
fn files_that_are_not_as_they_should_be_are_refused() {
    let hash = "a".repeat(64);
    let entry = |id: &str, hash: &str, more: &str| {
        format!(
            r#"{{"version":1,"tokens":[{{"id":"{id}","name":"x","sha256":"{hash}","scopes":["read"],"issued_at":"2026-01-01T00:00:00Z","not_after":null{more}}}]}}"#
        )
    };
    let id = "abcdefghijkl";
    file::parse(&entry(id, &hash, "")).expect("the good one");
    for (text, problem) in [
        (String::new(), "no JSON"),
        ("[]".to_owned(), "no JSON"),
        (entry(id, &hash, r#","not_afer":"2026-01-01T00:00:00Z""#), "no JSON"),
        (
            entry(id, &hash, "").replace("\"version\":1", "\"version\":2"),
            "version 2",
        ),
        (entry(id, &hash[..62], ""), "64 hexadecimal"),
        (entry(id, "", ""), "64 hexadecimal"),
        (entry(id, &"g".repeat(64), ""), "64 hexadecimal"),
        (entry(id, &"é".repeat(32), ""), "64 hexadecimal"),
        (entry("admin", &hash, ""), "its id"),
        (entry(id, &hash, "").replace("[\"read\"]", "[]"), "1 to 64 scopes"),
        (entry(id, &hash, "").replace("read", "root"), "no scope"),
        (
            entry(id, &hash, "").replace("2026-01-01T00:00:00Z", "soon"),
            "its times",
        ),
        (
            entry(id, &hash, "").replace(
                "\"tokens\":[",
                &format!("\"tokens\":[{},", &{
                    let whole = entry(id, &hash, "");
                    whole[whole.find("[{").expect("a list") + 1..whole.len() - 2].to_owned()
                }),
            ),
            "same id",
        ),
    ] {
        let error = file::parse(&text).expect_err(&text);
        assert!(error.contains(problem), "{error} for {text}");
    }
}

/// Whoever can write the file can make tokens.
#[test]
fn a_file_that_others_may_write_is_refused() {
    let Fixture { file, .. } = &fixture();
    issue(file, &wanted(&["read"])).expect("issued");
    for (mode, is_good) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("changed");
        let read = list(file);
        assert_eq!(read.is_ok(), is_good, "{mode:o} {read:?}");
    }
}

/// Two at the same time: the second read what the first had not written yet, and one token was lost.
#[test]
fn tokens_that_are_issued_at_the_same_time_are_all_kept() {
    let Fixture { file, .. } = &fixture();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| issue(file, &wanted(&["read"])).expect("issued"));
        }
    });
    assert_eq!(list(file).expect("listed").len(), 8);
}

#[test]
fn a_change_ends_what_it_takes_away_and_nothing_else() {
    let (kept, changed, gone) = (Secret::draw(), Secret::draw(), Secret::draw());
    let token =
        |secret: &Secret, scope: &str, end| Token::new(secret, "x", vec![scope.parse().expect("a scope")], 0, end);
    let before = TokenSet::new(vec![
        token(&kept, "read:a", Some(9)),
        token(&changed, "read:a", None),
        token(&gone, "read:a", None),
    ]);
    let open = |secret: &Secret| before.find(secret.reveal(), 1).expect("good");
    let streams = [open(&kept), open(&changed), open(&gone)];
    let after = before.followed_by(vec![token(&kept, "read:a", Some(9)), token(&changed, "read:b", None)]);
    let ended: Vec<bool> = streams.iter().map(|token| token.revocation().is_revoked()).collect();
    assert_eq!(ended, [false, true, true]);
    assert!(after.find(gone.reveal(), 1).is_none());
    let new = after.find(changed.reveal(), 1).expect("good for something else");
    assert!(!new.revocation().is_revoked());
    after.expire(8);
    assert!(!streams[0].revocation().is_revoked());
    after.expire(9);
    assert!(streams[0].revocation().is_revoked());
    assert!(
        after.find(kept.reveal(), 1).is_none(),
        "also by a clock that was set back"
    );
}
