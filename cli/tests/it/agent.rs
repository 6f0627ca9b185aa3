//! `tessera agent` with real children: what the registry is told of them, what the shell is told, and what is left.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    role::Registry,
    run::{Ended, end, run, tessera, wait_for},
};

/// A child that says its process id, and its own child's, and runs until it is ended.
const SLEEPER: &str = "sleep 600 & echo $$ $! > pids.new; mv pids.new pids; wait";
/// The same, deaf to SIGTERM, as is its own child.
const DEAF: &str = "trap '' TERM; sleep 600 & echo $$ $! > pids.new; mv pids.new pids; wait; wait";

/// A registry, a watch of the service `pricing`, and an agent in a folder of its own.
struct Stage {
    registry: Registry,
    folder: TempDir,
    watch: Child,
}

/// An agent that runs.
struct Agent {
    child: Child,
    folder: PathBuf,
}

impl Stage {
    fn set() -> Self {
        let registry = Registry::start();
        let folder = tempfile::tempdir().expect("a folder");
        let mut watch = tessera(&["watch", "pricing", "--output", "json", "--registry", &registry.address]);
        watch.stdout(File::create(folder.path().join("watch")).expect("a file"));
        watch.stderr(File::create(folder.path().join("watch.log")).expect("a file"));
        let stage = Self {
            watch: watch.spawn().expect("the binary starts"),
            registry,
            folder,
        };
        // An agent that registered before the watch had begun was in its snapshot, and no event ever told of it.
        wait_for(|| (!stage.lines().is_empty()).then_some(()));
        stage
    }

    /// An agent for something at `endpoint`.
    fn agent(&self, endpoint: &str, flags: &[&str], command: &[&str]) -> Agent {
        let mut agent = tessera(&["agent", "--service", "pricing", "--instance-id", "one"]);
        agent
            .args(["--registry", &self.registry.address, "--endpoint", endpoint])
            .args(["--probe-interval", "50ms", "--probe-timeout", "5s"])
            .args(flags)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(File::create(self.folder.path().join("log")).expect("a file"));
        if !command.is_empty() {
            agent.arg("--").args(command);
        }
        Agent {
            child: agent.spawn().expect("the binary starts"),
            folder: self.folder.path().to_owned(),
        }
    }

    /// What the watch has been told so far: the status of each event, or why it left.
    fn told(&self) -> Vec<String> {
        let word = |event: &Value| {
            let word = event["reason"]
                .as_str()
                .or_else(|| event["instance"]["status"].as_str());
            word.map(ToOwned::to_owned)
        };
        self.lines().iter().filter_map(word).collect()
    }

    /// What the watch has written so far.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("watch")).expect("a file");
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("a document"))
            .collect()
    }

    /// Waits until exactly this has been told.
    #[track_caller]
    fn tells(&self, expected: &[&str]) {
        wait_for(|| {
            let told = self.told();
            assert!(
                told.len() <= expected.len() && told.iter().zip(expected).all(|(told, expected)| told == expected),
                "{told:?} instead of {expected:?}"
            );
            (told.len() == expected.len()).then_some(())
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
        if std::thread::panicking() {
            for file in ["watch", "watch.log", "log"] {
                let said = fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
                eprintln!("--- {file}:\n{said}");
            }
        }
    }
}

fn pids_in(folder: &Path) -> Option<Vec<Pid>> {
    let told = fs::read_to_string(folder.join("pids")).ok()?;
    let pid = |text: &str| Pid::from_raw(text.parse().expect("a number")).expect("a process id");
    Some(told.split_whitespace().map(pid).collect())
}

impl Agent {
    /// The processes that its command has told, once it has.
    fn pids(&self) -> Vec<Pid> {
        wait_for(|| pids_in(&self.folder))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end: its code, and the last line that it wrote.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = wait_for(|| self.child.try_wait().expect("its state"));
        let log = fs::read_to_string(self.folder.join("log")).expect("a file");
        (status.code(), log.lines().last().unwrap_or_default().to_owned())
    }
}

/// A test that failed must not leave anything behind: what the agent started ends with it.
impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until none of them runs. A zombie has ended.
#[track_caller]
fn gone(pids: &[Pid]) {
    for pid in pids {
        let stat = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("stat");
        wait_for(|| {
            let is_zombie = fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "));
            (is_zombie || test_kill_process(*pid).is_err()).then_some(())
        });
    }
}

#[test]
fn a_child_is_registered_once_it_answers_and_drains_at_sigterm() {
    let stage = Stage::set();
    let probed = Registry::start();
    let flags = [
        "--version-label",
        "1.4.2",
        "--weight",
        "7",
        "--zone",
        "here",
        "--metadata",
        "owner=me,a=b",
    ];
    let agent = stage.agent(&probed.address, &flags, &["sh", "-c", SLEEPER]);
    stage.tells(&["UP"]);
    let listed = run(&[
        "instances",
        "pricing",
        "--output",
        "json",
        "--registry",
        &stage.registry.address,
    ])
    .code(0);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("a document");
    let one = &listed["instances"][0];
    assert_eq!(
        (
            one["id"].as_str(),
            one["address"].as_str(),
            one["version"].as_str(),
            one["weight"].as_i64()
        ),
        (Some("one"), Some(probed.address.as_str()), Some("1.4.2"), Some(7)),
        "{one}"
    );
    assert_eq!(
        (one["zone"].as_str(), one["metadata"]["owner"].as_str()),
        (Some("here"), Some("me")),
        "{one}"
    );
    let pids = agent.pids();
    agent.signal(Signal::TERM);
    let (code, said) = agent.ended();
    // The shell that was told to end did; its own child, which nobody told, is not left behind.
    gone(&pids);
    assert_eq!(code, Some(0), "{said}");
    stage.tells(&["UP", "DRAINING", "DRAINED"]);
}

#[test]
fn a_child_that_is_killed_is_gone_from_the_registry_at_once() {
    let stage = Stage::set();
    let probed = Registry::start();
    // The lease would last for an hour.
    let agent = stage.agent(
        &probed.address,
        &["--heartbeat-interval", "20m"],
        &["sh", "-c", SLEEPER],
    );
    stage.tells(&["UP"]);
    let pids = agent.pids();
    kill_process(pids[0], Signal::KILL).expect("it runs");
    let (code, said) = agent.ended();
    gone(&pids);
    assert_eq!(code, Some(128 + 9), "{said}");
    assert!(said.contains("sh was killed by signal 9"), "{said}");
    stage.tells(&["UP", "DEREGISTERED"]);
}

#[test]
fn the_code_of_the_child_is_the_agents() {
    let stage = Stage::set();
    let code = |command: &[&str]| stage.agent("127.0.0.1:1", &["--probe", "none"], command).ended();
    assert_eq!(code(&["sh", "-c", "exit 0"]).0, Some(0));
    let (seven, said) = code(&["sh", "-c", "exit 7"]);
    assert_eq!(seven, Some(7), "{said}");
    assert!(said.contains("sh exited with code 7"), "{said}");
    let (missing, said) = code(&["/nowhere/pricing"]);
    assert_eq!(missing, Some(127), "{said}");
    assert!(said.contains("/nowhere/pricing cannot be started"), "{said}");
}

#[test]
fn a_child_that_never_gets_ready_is_never_registered_and_is_stopped() {
    let stage = Stage::set();
    // Nothing listens where something just did.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let agent = stage.agent(
        &nobody.to_string(),
        &["--ready-within", "500ms"],
        &["sh", "-c", SLEEPER],
    );
    let pids = agent.pids();
    let (code, said) = agent.ended();
    gone(&pids);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("did not get ready within 500ms") && said.contains("--ready-within"),
        "{said}"
    );
    stage.tells(&[]);
}

#[test]
fn a_child_that_hangs_on_sigterm_is_killed_after_the_grace() {
    let stage = Stage::set();
    let probed = Registry::start();
    let agent = stage.agent(&probed.address, &["--drain-grace", "300ms"], &["sh", "-c", DEAF]);
    stage.tells(&["UP"]);
    let pids = agent.pids();
    agent.signal(Signal::TERM);
    let (code, said) = agent.ended();
    gone(&pids);
    assert_eq!(code, Some(128 + 9), "{said}");
    assert!(said.contains("did not end within 300ms of SIGTERM"), "{said}");
    stage.tells(&["UP", "DRAINING", "DRAINED"]);
}

/// `kill -9` of the agent reaches nobody but the agent, and the kernel's own way of telling a child wants unsafe code.
#[test]
fn nothing_outlives_an_agent_that_is_killed() {
    for (script, grace) in [(SLEEPER, "2s"), (DEAF, "200ms")] {
        let stage = Stage::set();
        let agent = stage.agent(
            "127.0.0.1:1",
            &["--probe", "none", "--drain-grace", grace],
            &["sh", "-c", script],
        );
        let pids = agent.pids();
        agent.signal(Signal::KILL);
        gone(&pids);
    }
}

#[test]
fn what_stops_answering_is_down_until_it_answers_again() {
    let stage = Stage::set();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // Nobody accepts: the kernel does, as far as the backlog goes, and a probe's connection is closed by the probe.
    let listener = drained(listener);
    let agent = stage.agent(&address.to_string(), &["--probe", "tcp"], &[]);
    stage.tells(&["UP"]);
    listener.close();
    stage.tells(&["UP", "DOWN"]);
    let listener = wait_for(|| TcpListener::bind(address).ok());
    let listener = drained(listener);
    stage.tells(&["UP", "DOWN", "UP"]);
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().0, Some(0));
    stage.tells(&["UP", "DOWN", "UP", "DRAINING", "DRAINED"]);
    listener.close();
}

/// A listener that accepts, and can be closed.
struct Accepting {
    address: std::net::SocketAddr,
    thread: std::thread::JoinHandle<()>,
    stop: std::sync::mpsc::Sender<()>,
}

fn drained(listener: TcpListener) -> Accepting {
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        for _ in listener.incoming() {
            if stopped.try_recv().is_ok() {
                break;
            }
        }
    });
    Accepting { address, thread, stop }
}

impl Accepting {
    fn close(self) {
        self.stop.send(()).expect("it accepts");
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        self.thread.join().expect("it ends");
    }
}

/// Who is expected is whom a balancer would call there: the service, by its certificate.
#[test]
fn with_tls_the_program_has_to_be_the_service() {
    let stage = Stage::set();
    let certs = stage.folder.path().join("certs").display().to_string();
    run(&["certs", "--out", &certs, "--service", "pricing"]).code(0);
    let file = |name: &str| format!("{certs}/{name}");
    let serving = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        let flags = [
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
            "--tls-ca",
            &file("ca.crt"),
        ];
        Registry::with(&stage.folder.path().join(name), &flags)
    };
    let (ca, certificate, key) = (file("ca.crt"), file("operator.crt"), file("operator.key"));
    let secured = [
        "--protocol",
        "grpcs",
        "--tls-ca",
        &ca,
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
    ];
    let probed = serving("pricing");
    let agent = stage.agent(&probed.address, &secured, &[]);
    stage.tells(&["UP"]);
    probed.stop();
    stage.tells(&["UP", "DOWN"]);
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().0, Some(0));
    stage.tells(&["UP", "DOWN", "DRAINING", "DRAINED"]);

    let other = serving("ticket");
    let flags = [&secured[..], &["--ready-within", "1s"]].concat();
    let (code, said) = stage.agent(&other.address, &flags, &["sleep", "600"]).ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("did not get ready") && said.contains("/svc/ticket-svc"),
        "{said}"
    );
    stage.tells(&["UP", "DOWN", "DRAINING", "DRAINED"]);
}

#[test]
fn what_the_registry_refuses_is_stopped() {
    let stage = Stage::set();
    let probed = Registry::start();
    let agent = stage.agent(&probed.address, &["--metadata", "=x"], &[]);
    assert_eq!(agent.ended().0, Some(2), "a pair without a key");
    let agent = stage.agent(&probed.address, &["--metadata", "bad key!=x"], &["sh", "-c", SLEEPER]);
    let folder = agent.folder.clone();
    let (code, said) = agent.ended();
    // It may have been ended before it had come so far as to say who it is.
    gone(&pids_in(&folder).unwrap_or_default());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("does not take this instance") && said.contains("metadata"),
        "{said}"
    );
}

#[test]
fn flags_that_do_not_go_together_are_told() {
    let agent = |more: &[&str]| -> Ended { end(tessera(&[&["agent", "--service", "pricing"], more].concat())) };
    agent(&[]).code(2).says(&["--endpoint"]);
    agent(&["--endpoint", "nowhere"]).code(2).says(&["HOST:PORT"]);
    agent(&["--endpoint", "a:1", "--protocol", "http", "--probe", "grpc"])
        .code(2)
        .one_line(&["--probe grpc", "--probe tcp"]);
    agent(&["--endpoint", "a:1", "--protocol", "grpcs", "--probe", "grpc"])
        .code(2)
        .one_line(&["--tls-ca", "--probe tcp"]);
    agent(&["--endpoint", "a:1", "--probe", "tcp", "--probe-service", "a.B"])
        .code(2)
        .one_line(&["--probe-service"]);
    agent(&["--endpoint", "a:1", "--probe-misses", "0"])
        .code(2)
        .says(&["1..=100"]);
    agent(&["--endpoint", "a:1", "./pricing"]).code(2).says(&["--"]);
}
