//! Command lines that make no sense: code 2, and what would have made sense.

use crate::run::{end, run, tessera};

#[test]
fn nothing_to_do_is_answered_with_help() {
    run(&[]).code(2).says(&["Usage: tessera", "up"]);
}

#[test]
fn unknown_commands_and_flags_are_named() {
    run(&["upp"]).code(2).says(&["'upp'", "'up'"]);
    run(&["up", "--instancs", "3"])
        .code(2)
        .says(&["--instancs", "--instances"]);
    run(&["demo", "--buyers"]).code(2).says(&["--buyers"]);
}

#[test]
fn malformed_values_are_answered_with_what_would_be_right() {
    let check = |args: &[&str], parts: &[&str]| {
        run(args).code(2).says(parts);
    };
    check(&["ticket", "--listen", "nowhere"], &["nowhere", "127.0.0.1:7000"]);
    check(&["ticket", "--heartbeat-interval", "0s"], &["more than 0"]);
    check(&["ticket", "--drain-grace", "-5s"], &["300ms, 10s or 2m"]);
    check(&["ticket", "--heartbeat-misses", "0"], &["1..=100"]);
    check(&["ticket", "--namespace", "Not_A_Name"], &["a-z"]);
    check(&["user", "--registry", "ftp://nowhere:1"], &["http://HOST:PORT"]);
    check(&["services", "--registry", "https://localhost:7000"], &["--tls-ca"]);
    check(&["user", "--registry", "https://localhost:7000"], &["CA bundle"]);
    check(&["registry", "--tls-client-auth", "required"], &["--tls-cert"]);
    check(&["registry", "--tls-cert", "a.crt"], &["private key", "--tls-key"]);
    check(&["registry", "--admin-listen", "on"], &["`off`"]);
    check(&["registry", "--listen", "127.0.0.1:65000"], &["--admin-listen"]);
    check(&["up", "--instances", "0"], &["1..=32"]);
    check(&["up", "--registry-port", "65536"], &["65536"]);
    check(&["demo", "--seats", "11"], &["1..=10"]);
    check(&["demo", "--buyers", "-1"], &["--buyers", "-1", "1..=100000"]);
    check(&["call", "ticket-svc", "ListEvents"], &["PACKAGE.SERVICE/METHOD"]);
    check(
        &["call", "ticket-svc", "a.B/C", "{}", "-d", "{}"],
        &["cannot be used with"],
    );
    check(&["healthcheck", "localhost"], &["HOST:PORT"]);
    check(&["weight", "ticket-svc/ticket-1", "1001"], &["0 to 1000"]);
    check(&["weight", "a/b", "own", "--until", "1h"], &["leave --until out"]);
    check(&["drain", "a/b", "--until", "soon"], &["90m, 12h or 7d"]);
    check(&["drain", "a/b", "--ack-timeout", "6m"], &["5m at the most"]);
    // Was taken, and cut to 5 min without a word.
    check(&["ticket", "--drain-linger", "6m"], &["5m at the most"]);
    check(&["drain", "ticket-1"], &["SERVICE/ID"]);
    check(&["services", "--output", "yaml"], &["table", "json"]);
}

/// What is wrong in a file of settings is told with its line, before anything is opened.
#[test]
fn a_bad_service_config_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("service-config.json");
    std::fs::write(
        &file,
        "{\"methodConfig\": [\n  {\"name\": [{}],\n   \"timeOut\": \"1s\"}\n]}",
    )
    .expect("written");
    let user = |file: &std::path::Path| {
        let mut command = tessera(&["user", "--listen", "127.0.0.1:0", "--service-config"]);
        command.arg(file).arg("--data-dir").arg(folder.path());
        end(command).code(2)
    };
    user(&file).says(&["line 3, column 4", "methodConfig[0].timeOut", "did you mean timeout?"]);
    user(&folder.path().join("nowhere.json")).says(&["cannot read", "nowhere.json"]);
}

#[test]
fn the_environment_is_held_to_the_same() {
    let mut command = tessera(&["ticket"]);
    command.env("TESSERA_LISTEN", "nowhere");
    end(command).code(2).says(&["nowhere", "127.0.0.1:7000"]);
}

#[test]
fn ports_that_collide_are_found_before_anything_starts() {
    run(&["up", "--registry-port", "7102"])
        .code(2)
        .one_line(&["port 7102", "registry", "ticket-2", "--ticket-port"]);
}

/// `RUST_LOG` is the only variable that is not ours and that a person writes by hand.
#[test]
fn a_filter_that_is_none_is_told() {
    let mut command = tessera(&["services"]);
    command.env("RUST_LOG", "cli=loud=very");
    end(command).code(2).one_line(&["cli=loud=very"]);
}

/// Accounts are made what they are on a store that is there: a wrong path must not make an empty one.
#[test]
fn what_cannot_be_granted_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let none = run(&[
        "account",
        "grant",
        "ada@example.org",
        "--role",
        "operator",
        "--data-dir",
        &data,
    ]);
    none.code(1).says(&["there is no store", "users.db", "--data-dir"]);
    assert!(std::fs::read_dir(folder.path()).expect("the folder").next().is_none());
    run(&["account", "keys", "--data-dir", &data])
        .code(1)
        .says(&["there is no store"]);
    run(&["account", "grant", "ada@example.org"]).code(2).says(&["--role"]);
    let king = run(&["account", "grant", "ada@example.org", "--role", "king"]);
    king.code(2).says(&["organiser", "operator"]);
}

/// Nobody opens a ticket service to other machines by one flag, and a token that is none is not repeated.
#[test]
fn a_service_that_asks_nobody_stays_on_this_machine() {
    run(&["ticket", "--open", "--listen", "0.0.0.0:0"]).code(2).says(&[
        "--listen 0.0.0.0:0",
        "--insecure",
        "127.0.0.1",
    ]);
    run(&["ticket", "--open", "--identity-keys", "keys.json"])
        .code(2)
        .says(&["cannot be used with"]);
    let bad = run(&["call", "127.0.0.1:1", "a.B/C", "--bearer", "not a token"]).code(2);
    assert!(
        bad.stderr.contains("--bearer") && !bad.stderr.contains("not a token"),
        "{bad:?}"
    );
}
