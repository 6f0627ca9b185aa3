//! Runs the binary to its end, bounded.

use std::{
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Far more than any of these commands needs, so that a slow machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, expected, "{self:#?}");
        self
    }

    /// Fails the test unless stderr is one line that begins with the program's name and has all of these in it.
    #[track_caller]
    pub(crate) fn one_line(self, parts: &[&str]) -> Self {
        assert_eq!(self.stderr.lines().count(), 1, "{self:#?}");
        assert!(self.stderr.starts_with("tessera: "), "{self:#?}");
        self.says(parts)
    }

    /// Fails the test unless stderr has all of these in it.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing: {self:#?}");
        }
        self
    }
}

/// The binary with these arguments, without what the test's own surroundings would tell it.
pub(crate) fn tessera(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("TESSERA_") || text.starts_with("OTEL_") || text == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    end(tessera(args))
}

/// Runs a prepared command to its end; one that does not end fails the test.
pub(crate) fn end(mut command: Command) -> Ended {
    let child = command.spawn().expect("the binary starts");
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process id");
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        // The receiver is gone only when the test has failed.
        let _ = sender.send(child.wait_with_output());
    });
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("{command:?} did not end within {PATIENCE:?}");
    };
    waiter.join().expect("the waiter ends");
    let Output { status, stdout, stderr } = output.expect("its output");
    Ended {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8(stdout).expect("text"),
        stderr: String::from_utf8(stderr).expect("text"),
    }
}

/// Asks until there is an answer, bounded.
pub(crate) fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "no answer within {PATIENCE:?}");
        // The pause between two questions, not a wait for anything.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
