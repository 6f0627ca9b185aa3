//! One role as a process: what it prints, what ends it, and what the operator's commands say to it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdin, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::run::{end, run, tessera, wait_for};

/// A registry on free ports. Its stdin is held, as `up` holds it: dropping this ends it.
pub(crate) struct Registry {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) address: String,
    _data: Option<TempDir>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let mut registry = Self::over(data.path());
        registry._data = Some(data);
        registry
    }

    /// Over a folder that outlives it.
    pub(crate) fn over(data: &Path) -> Self {
        Self::with(data, &[])
    }

    /// The same with further flags.
    pub(crate) fn with(data: &Path, flags: &[&str]) -> Self {
        Self::logging(data, flags, Stdio::null())
    }

    /// The same, whose log is kept.
    pub(crate) fn logging(data: &Path, flags: &[&str], log: impl Into<Stdio>) -> Self {
        let path = data.display().to_string();
        let args = ["registry", "--listen", "127.0.0.1:0", "--data-dir", &path];
        let mut command = tessera(&[&args, flags].concat());
        command
            .env("TESSERA_EXIT_WITH_PARENT", "1")
            .stdin(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().expect("the binary starts");
        let stdin = child.stdin.take();
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line
            .strip_prefix("tessera registry listening on ")
            .and_then(|rest| rest.split_once(" (admin 127.0.0.1:"))
            .map(|(address, _)| address.to_owned())
            .unwrap_or_else(|| panic!("not the line of the contract: {line:?}"));
        Self {
            child,
            stdin,
            address,
            _data: None,
        }
    }
}

impl Registry {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it runs");
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) {
        self.stdin = None;
        let status = wait_for(|| self.child.try_wait().expect("its state"));
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stdin = None;
        // It has ended, or ends now; a test that failed must not leave it behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// However the parent ends, `kill -9` included, the kernel closes its end of the pipe.
#[test]
fn the_end_of_stdin_ends_a_role_in_order() {
    let mut registry = Registry::start();
    run(&["healthcheck", &registry.address]).code(0);
    registry.stdin = None;
    let status = wait_for(|| registry.child.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(0), "drained, not killed");
}

#[test]
fn a_port_in_use_is_told_with_what_to_do() {
    let registry = Registry::start();
    let data = tempfile::tempdir().expect("a folder");
    let path = data.path().display().to_string();
    let args = [
        "registry",
        "--listen",
        &registry.address,
        "--admin-listen",
        "off",
        "--data-dir",
        &path,
    ];
    let ended = run(&args).code(1).says(&["cannot start", &registry.address, "in use"]);
    assert_eq!(ended.stdout, "");
}

/// It used to retry for ever, said nothing on stdout that was wrong, and nobody ever found it.
#[test]
fn an_instance_that_no_registry_will_take_does_not_start() {
    let registry = Registry::start();
    let data = tempfile::tempdir().expect("a folder");
    let path = data.path().display().to_string();
    let place = ["ticket", "--listen", "127.0.0.1:0", "--data-dir", &path];
    let ended = run(&[
        &place[..],
        &["--registry", &registry.address, "--instance-id", "bad id!"],
    ]
    .concat());
    let ended = ended.code(1).says(&["does not take this instance", "instances[0].id"]);
    assert_eq!(ended.stdout, "", "nothing is announced");
}

/// Once there was a moment between the line on stdout and the registration: scripts that waited for the line and then
/// called by discovery found nobody.
#[test]
fn what_is_announced_can_be_called() {
    let registry = Registry::start();
    let data = tempfile::tempdir().expect("a folder");
    let path = data.path().display().to_string();
    let mut command = tessera(&["ticket", "--listen", "127.0.0.1:0", "--data-dir", &path, "--seed"]);
    command
        .args(["--registry", &registry.address])
        .env("TESSERA_EXIT_WITH_PARENT", "1")
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    let method = "tessera.ticket.v1.TicketService/ListEvents";
    let ended = run(&[
        "call",
        "ticket-svc",
        method,
        "{}",
        "--verbose",
        "--registry",
        &registry.address,
    ]);
    drop(child.stdin.take());
    let status = wait_for(|| child.try_wait().expect("its state"));
    let ended = ended.code(0).says(&["answered by ticket-svc-", "trace "]);
    assert!(ended.stdout.contains("seatsFree"), "{ended:?}");
    assert_eq!(status.code(), Some(0), "{line}");
}

#[test]
fn an_empty_registry_is_an_answer() {
    let registry = Registry::start();
    let services = |more: &[&str]| run(&[&["services", "--registry", &registry.address], more].concat()).code(0);
    assert!(services(&[]).stdout.contains("Nothing is registered"));
    assert_eq!(
        services(&["--output", "json"]).stdout,
        "{\"namespace\":\"default\",\"services\":[]}\n"
    );
    run(&["instances", "ticket-svc", "--registry", &registry.address])
        .code(1)
        .one_line(&["no service ticket-svc is registered", "tessera up"]);
}

/// `tessera services | true`: the reader has left before the first line. `println!` would panic with code 101.
#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let registry = Registry::start();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = tessera(&["services", "--registry", &registry.address]);
    command.stdout(writer);
    let ended = end(command).code(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn calls_say_what_there_is_instead() {
    let registry = Registry::start();
    let call = |method: &str, request: &str| run(&["call", &registry.address, method, request]);
    let of_registry = |method: &str| format!("tessera.registry.v1.RegistryService/{method}");

    let listed = call(&of_registry("ListServices"), "{}").code(0).stdout;
    assert!(listed.contains("STATE_FRESH"), "{listed}");
    let streamed = call(
        &of_registry("KeepAlive"),
        r#"[{"renewals": [{"leaseId": "a"}]}, {"renewals": [{"leaseId": "b"}]}]"#,
    );
    assert_eq!(streamed.code(0).stdout.lines().count(), 2, "one document a line");

    call("tessera.registry.v1.Nope/List", "{}")
        .code(1)
        .one_line(&["RegistryService", "GovernanceService"]);
    call(&of_registry("Nope"), "{}")
        .code(1)
        .one_line(&["ListServices", "Watch"]);
    call(&of_registry("ListServices"), r#"{"pageSise": 1}"#)
        .code(2)
        .one_line(&["pageSise", "pageSize"]);
    call(&of_registry("ListServices"), r#"{"pageSize": "many"}"#)
        .code(2)
        .one_line(&["pageSize"]);
    call(&of_registry("ListServices"), "{").code(2).one_line(&["JSON"]);
    call(&of_registry("ListServices"), "@/nowhere")
        .code(2)
        .one_line(&["/nowhere"]);
    call(&of_registry("ListServices"), r#"{"pageSize": 5000}"#)
        .code(64 + 3)
        .says(&["INVALID_ARGUMENT", "page_size"]);
    call(&of_registry("GetInstance"), r#"{"service": "a", "id": "b"}"#)
        .code(64 + 5)
        .says(&["NOT_FOUND", "INSTANCE_UNKNOWN"]);
}

#[test]
fn of_an_instance_that_nobody_knows_nothing_is_decided() {
    let registry = Registry::start();
    let commands: [&[&str]; 4] = [
        &["drain", "a/b"],
        &["undrain", "a/b"],
        &["weight", "a/b", "10"],
        &["explain", "a/b"],
    ];
    for command in commands {
        let args = [command, &["--registry", &registry.address]].concat();
        run(&args)
            .code(64 + 5)
            .one_line(&["NOT_FOUND", "INSTANCE_UNKNOWN", "no such instance: default/a/b"]);
    }
}

#[test]
fn healthcheck_tells_services_apart() {
    let registry = Registry::start();
    let check = |service: &str| run(&["healthcheck", &registry.address, "--service", service]);
    assert_eq!(check("tessera.registry.v1.RegistryService").code(0).stdout, "SERVING\n");
    check("nobody").code(1).one_line(&["nobody", "not known"]);
}
