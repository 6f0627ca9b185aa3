//! Faults of the disk, injected into a running process: strace holds its system calls or answers them in the kernel's place.
//!
//! Attached rather than put before the process, so that a fault begins when the test says so, and so that the process stays a
//! child of the test.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::wait;

/// A running injection. It ends when this is dropped; the process goes on without it.
#[derive(Debug)]
pub struct Strace {
    child: Child,
}

impl Strace {
    /// Attaches to all threads of a process and injects, for example `fsync,fdatasync:error=EIO:when=3`. `None`, with a printed
    /// reason, where the kernel does not let us.
    ///
    /// # Panics
    /// When strace cannot be started or says nothing.
    pub async fn inject(pid: Pid, faults: &[&str]) -> Option<Self> {
        let mut command = Command::new("strace");
        let calls: Vec<&str> = faults
            .iter()
            .filter_map(|fault| Some(fault.split_once(':')?.0))
            .collect();
        command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={}", calls.join(","))]);
        for fault in faults {
            command.arg("-e").arg(format!("inject={fault}"));
        }
        command.arg("-p").arg(pid.as_raw_nonzero().to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("strace starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let said = tokio::time::timeout(wait::PATIENCE, lines.next_line()).await;
        let said = said
            .expect("strace says something")
            .expect("readable")
            .unwrap_or_default();
        if !said.contains("attached") {
            eprintln!("skipped: strace cannot attach: {said}");
            return None;
        }
        // It goes on telling of new threads; nobody may block on that pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { child })
    }

    /// Ends it in order: held calls go on.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(mut self) {
        if let Some(id) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // It may have ended with the process that it traced.
            let _ = kill_process(id, Signal::TERM);
        }
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        ended.expect("strace ends").expect("its status");
    }
}
