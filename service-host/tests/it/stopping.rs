//! Signals, sent to a process of its own: the first asks, the second insists.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use service_host::signal::Shutdown;

use crate::support::PATIENCE;

/// The process under test: says when it can be stopped and that it was asked to, and then takes for ever.
#[test]
#[ignore = "started by the other tests of this file"]
fn child() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let shutdown = Shutdown::install().expect("installed");
        println!("\nready");
        shutdown.wait().await;
        println!("\nasked");
        if std::env::var_os("TEST_STOPS").is_none() {
            std::future::pending::<()>().await;
        }
    });
}

struct Running {
    child: Child,
    output: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(stops: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "stopping::child", "--ignored", "--nocapture"]);
        if stops {
            command.env("TEST_STOPS", "1");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut running = Self { child, output };
        running.says("ready");
        running
    }

    fn says(&mut self, expected: &str) {
        let said = self.output.by_ref().map_while(Result::ok).any(|line| line == expected);
        assert!(said, "ended without saying {expected}");
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("sent");
    }

    fn exit_code(mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code().expect("ended by itself, not by the signal");
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_signal_asks() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start(true);
        running.send(signal);
        running.says("asked");
        assert_eq!(running.exit_code(), 0, "{signal:?}");
    }
}

#[test]
fn the_second_signal_insists() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut running = Running::start(false);
        running.send(signal);
        running.says("asked");
        running.send(signal);
        assert_eq!(running.exit_code(), code, "{signal:?}");
    }
}
