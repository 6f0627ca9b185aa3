//! Tokens from the command line: made, shown once, sent, revoked; and listening beyond this machine, which needs one of them, TLS
//! or a word.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use crate::{
    role::Registry,
    run::{Ended, end, run, tessera, wait_for},
};
use rustix::process::{Pid, Signal, kill_process};

/// Issues a token and keeps it in a file, as a person would.
fn issue(folder: &Path, scopes: &[&str]) -> (String, String) {
    let tokens = folder.join("tokens.json").display().to_string();
    let mut args = vec!["token", "issue", "--file", &tokens, "--name", "test"];
    for scope in scopes {
        args.extend(["--scope", scope]);
    }
    let ended = run(&args).code(0).says(&["only time", "tokens.json"]);
    let secret = ended.stdout.trim().to_owned();
    assert!(!ended.stderr.contains(&secret), "once");
    let file = folder.join(format!("{}.token", secret.split('_').nth(1).expect("an id")));
    fs::write(&file, &ended.stdout).expect("written");
    (secret, format!("@{}", file.display()))
}

/// Asks until the registry has read the file again.
fn until(args: &[&str], code: i32) -> Ended {
    wait_for(|| Some(run(args)).filter(|ended| ended.code == code))
}

#[test]
fn a_token_is_shown_once_sent_from_a_file_and_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reader, reader_file) = issue(folder.path(), &["read"]);
    let (_, stranger_file) = issue(folder.path(), &["read:elsewhere"]);
    let tokens = folder.path().join("tokens.json").display().to_string();
    let registry = Registry::with(&folder.path().join("data"), &["--tokens", &tokens]);
    let address = registry.address.as_str();
    let ask = |more: &[&'static str], token: &str| {
        let mut args = vec!["services", "--registry", address];
        args.extend(more);
        let token = token.to_owned();
        if !token.is_empty() {
            args.extend(["--token", &token]);
        }
        run(&args)
    };
    ask(&[], "").code(1).one_line(&["does not know you", "--token @FILE"]);
    ask(&[], &reader_file).code(0);
    ask(&[], &reader).code(0);
    let wrong = ask(&[], &format!("{}x", &reader[..reader.len() - 1])).code(1);
    assert!(!wrong.stderr.contains(&reader[20..]), "{wrong:?}");
    ask(&[], &stranger_file)
        .code(1)
        .one_line(&["SCOPE_MISSING", "read:default"]);

    // Everything that a registry is asked goes with it.
    let health = run(&["healthcheck", address]).code(0);
    assert!(health.stdout.contains("SERVING"), "{health:?}");
    let list = "tessera.registry.v1.RegistryService/ListServices";
    run(&["call", address, list]).code(80);
    run(&["call", address, list, "--token", &reader_file]).code(0);
    run(&["backup", "never", "--registry", address, "--token", &reader_file])
        .code(71)
        .says(&["operate:*"]);

    let id = reader.split('_').nth(1).expect("an id");
    let listed = run(&["token", "list", "--file", &tokens]).code(0).stdout;
    assert!(listed.contains(id) && listed.contains("read:elsewhere"), "{listed}");
    assert!(!listed.contains(&reader[20..]), "{listed}");
    run(&["token", "revoke", id, "--file", &tokens]).code(0);
    until(&["services", "--registry", address, "--token", &reader_file], 1);
    run(&["token", "revoke", id, "--file", &tokens])
        .code(1)
        .one_line(&["token list"]);
    let whole = run(&["token", "revoke", &reader, "--file", &tokens]).code(1);
    assert!(!whole.stderr.contains(&reader[20..]), "{whole:?}");
    registry.stop();
}

/// Whoever does not want to wait for the next look: SIGHUP reads the file, changed or not, and says so.
#[test]
fn a_signal_has_the_registry_read_its_tokens_again() {
    const READ: &str = "the token file was read";
    let folder = tempfile::tempdir().expect("a folder");
    let (_, first) = issue(folder.path(), &["read"]);
    let tokens = folder.path().join("tokens.json").display().to_string();
    let log = folder.path().join("log");
    let file = fs::File::create(&log).expect("a file");
    let registry = Registry::logging(&folder.path().join("data"), &["--tokens", &tokens], file);
    let ask = |token: &str| run(&["services", "--registry", &registry.address, "--token", token]);
    ask(&first).code(0);
    let times = || fs::read_to_string(&log).expect("a log").matches(READ).count();
    assert_eq!(times(), 0, "nothing has changed, and nobody has asked");
    registry.signal(Signal::HUP);
    wait_for(|| (times() == 1).then_some(()));
    let (second_secret, second) = issue(folder.path(), &["read"]);
    registry.signal(Signal::HUP);
    wait_for(|| (times() >= 2).then_some(()));
    ask(&second).code(0);
    ask(&first).code(0);
    // What is in it now counts, also when that is less.
    let id = second_secret.split('_').nth(1).expect("an id");
    run(&["token", "revoke", id, "--file", &tokens]).code(0);
    registry.signal(Signal::HUP);
    until(&["services", "--registry", &registry.address, "--token", &second], 1);
    ask(&first).code(0);
    registry.stop();
}

/// A client showed what its file had at its start, until it was restarted. What it asks for at its end is granted only to the
/// token that replaced the one that it began with.
#[test]
fn a_token_is_exchanged_while_its_client_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, old_file) = issue(folder.path(), &["register:default/pricing", "read"]);
    let (new, _) = issue(folder.path(), &["register:default/pricing", "read"]);
    let (_, reader) = issue(folder.path(), &["read"]);
    let tokens = folder.path().join("tokens.json").display().to_string();
    let registry = Registry::with(&folder.path().join("data"), &["--tokens", &tokens]);
    let (shown, log, told) = (
        folder.path().join("shown"),
        folder.path().join("log"),
        folder.path().join("told"),
    );
    let output = |path: &Path| fs::File::create(path).expect("a file");
    let text = |path: &Path| fs::read_to_string(path).expect("a file");
    fs::write(&shown, &old).expect("written");
    let mut watch = tessera(&["watch", "pricing", "--output", "json", "--registry", &registry.address]);
    watch
        .args(["--token", &reader])
        .stdout(output(&told))
        .stderr(Stdio::null());
    let watch = Running(watch.spawn().expect("the binary starts"));
    // The snapshot: what comes now comes as an event.
    wait_for(|| text(&told).contains('\n').then_some(()));
    let mut agent = tessera(&[
        "agent",
        "--service",
        "pricing",
        "--endpoint",
        "127.0.0.1:1",
        "--probe",
        "none",
    ]);
    agent.args([
        "--registry",
        &registry.address,
        "--token",
        &format!("@{}", shown.display()),
    ]);
    agent.stdout(Stdio::null()).stderr(output(&log));
    let mut agent = Running(agent.spawn().expect("the binary starts"));
    wait_for(|| text(&told).contains("\"UP\"").then_some(()));

    fs::write(&shown, &new).expect("written");
    wait_for(|| text(&log).contains("the token's file has changed").then_some(()));
    let id = old.split('_').nth(1).expect("an id");
    run(&["token", "revoke", id, "--file", &tokens]).code(0);
    until(&["services", "--registry", &registry.address, "--token", &old_file], 1);
    agent.signal(Signal::TERM);
    let ended = wait_for(|| agent.0.try_wait().expect("its state"));
    assert_eq!(ended.code(), Some(0), "{}", text(&log));
    let reason = wait_for(|| {
        let told = text(&told);
        let reasons = ["DRAINED", "EXPIRED"];
        reasons
            .into_iter()
            .find(|reason| told.contains(&format!("\"{reason}\"")))
    });
    assert_eq!(reason, "DRAINED", "{}", text(&log));
    assert!(!text(&log).contains(&new[20..]) && !text(&log).contains(&old[20..]));
    drop(watch);
    registry.stop();
}

/// A process that a test which failed must not leave behind.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_cannot_be_a_token_or_a_scope_is_a_usage_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.json").display().to_string();
    let issue = |more: &[&str]| run(&[&["token", "issue", "--file", &file], more].concat());
    issue(&["--name", "a", "--scope", "admin"])
        .code(2)
        .one_line(&["register:NAMESPACE/SERVICE"]);
    issue(&["--name", "a"]).code(2).says(&["--scope"]);
    issue(&["--name", "a", "--scope", "read", "--ttl", "90"])
        .code(2)
        .says(&["90d"]);
    assert!(!Path::new(&file).exists());
    run(&["token", "list", "--file", &file])
        .code(1)
        .one_line(&["tessera token issue"]);
    let shown = run(&["services", "--token", "my secret", "--registry", "127.0.0.1:1"]).code(2);
    assert!(!shown.stderr.contains("my secret"), "{shown:?}");
    run(&["services", "--token", "@nowhere"]).code(2).one_line(&["nowhere"]);
}

/// Other users read `--help` over a shoulder, and screens are shared.
#[test]
fn help_does_not_show_the_token_of_the_environment() {
    let mut command = tessera(&["services", "--help"]);
    command.env("TESSERA_TOKEN", "tsr_canary");
    let help = end(command).code(0).stdout;
    assert!(help.contains("TESSERA_TOKEN") && !help.contains("canary"), "{help}");
}

#[test]
fn a_token_is_not_sent_where_everybody_can_read_it() {
    for address in ["http://registry.example:7000", "10.255.255.1:7000"] {
        let refused = run(&["services", "--registry", address, "--token", "tsr_canary"]).code(2);
        let refused = refused.one_line(&["in the clear", "--insecure"]);
        assert!(!refused.stderr.contains("canary"), "{refused:?}");
    }
    // Refused before anything is dialled: a service that starts so would send it with its first heartbeat.
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let role = ["ticket", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let args = [
        &role[..],
        &["--registry", "http://registry.example:7000", "--token", "tsr_canary"],
    ]
    .concat();
    run(&args).code(2).says(&["in the clear"]);
}

/// Row 49: no default secret, and no start without one where it is needed.
#[test]
fn beyond_this_machine_nothing_starts_unprotected_by_accident() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let missing = folder.path().join("tokens.json").display().to_string();
    for role in ["registry", "ticket", "user"] {
        let start = |more: &[&str]| run(&[&[role, "--data-dir", &data], more].concat());
        let refused = start(&["--listen", "0.0.0.0:0"]).code(2);
        refused.one_line(&["--listen 0.0.0.0:0", "--tls-cert", "--insecure", "127.0.0.1"]);
        let admin = start(&["--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"]).code(2);
        admin.one_line(&["--admin-listen 0.0.0.0:0", "--insecure"]);
    }
    // A registry's certificate says who the registry is. It started so, and anybody could drain anything, encrypted.
    let certs = folder.path().join("certs").display().to_string();
    run(&["certs", "--out", &certs]).code(0);
    let (certificate, key) = (format!("{certs}/registry.crt"), format!("{certs}/registry.key"));
    let encrypted = ["--listen", "0.0.0.0:0", "--tls-cert", &certificate, "--tls-key", &key];
    let unknown = run(&[&["registry", "--data-dir", &data], &encrypted[..]].concat()).code(2);
    unknown.one_line(&["--listen 0.0.0.0:0", "--tls-ca", "--tokens", "--insecure"]);
    let ca = format!("{certs}/ca.crt");
    let unasked = ["--tls-ca", &ca, "--tls-client-auth", "none"];
    let unknown = run(&[&["registry", "--data-dir", &data], &encrypted[..], &unasked].concat()).code(2);
    unknown.one_line(&["nothing of who calls"]);
    let guarded = [
        "registry",
        "--data-dir",
        &data,
        "--listen",
        "0.0.0.0:0",
        "--tokens",
        &missing,
    ];
    run(&guarded).code(2).one_line(&["tessera token issue", "tokens.json"]);
    let made = fs::read_dir(&data).map(|mut entries| entries.next().is_some());
    assert!(!made.unwrap_or(false), "nothing was made");
    for weak in [
        "",
        "changeme",
        r#"{"version":1,"tokens":[{"id":"abcdefghijkl","name":"x","sha256":"0011223344556677","scopes":["read"],"issued_at":"2026-01-01T00:00:00Z","not_after":null}]}"#,
    ] {
        fs::write(&missing, weak).expect("written");
        run(&guarded).code(2).one_line(&["tokens.json", "tessera token"]);
    }
}
