//! The command as a process: its start, its end, and that nothing of it is left behind.
//!
//! The kernel would kill a child with its parent (PR_SET_PDEATHSIG), but only the one that was started, and only by way of
//! unsafe code between fork and exec. `up`'s children read the end of their stdin instead; a foreign program does not. So a
//! guard does, which is this binary again: it is started first and leads the process group that the command is born into, so
//! there is no moment in which the command runs unguarded, and the group's number is not given to others while we use it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};

use crate::failure::{Exit, Failure};

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    guard: Guard,
}

/// Leads the command's group. When `stdin` is closed, by our end or by a drop, it ends the group and with it itself.
#[derive(Debug)]
struct Guard {
    child: Child,
    group: Pid,
    _stdin: Option<ChildStdin>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    name: String,
    status: Option<ExitStatus>,
    killed_after: Option<Duration>,
}

impl Running {
    /// Starts `command`, which is not empty.
    pub(crate) fn start(command: &[OsString], drain_grace: Duration) -> Result<Self, Failure> {
        let guard = Guard::start(drain_grace)
            .map_err(|error| Failure::new("the guard of the command cannot be started").because(&error))?;
        let (program, arguments) = command
            .split_first()
            .map_or((OsStr::new(""), command), |(first, rest)| (first.as_os_str(), rest));
        let name = Path::new(program).file_name().unwrap_or(program).display().to_string();
        let mut prepared = Command::new(program);
        // What is meant for the agent is not meant for its child; the token for the registry is the worst of it.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("TESSERA_") {
                prepared.env_remove(variable);
            }
        }
        let child = prepared
            .args(arguments)
            // Of a terminal it could not read: it is not in the foreground group.
            .stdin(Stdio::null())
            .process_group(guard.group.as_raw_nonzero().get())
            .kill_on_drop(true)
            .spawn();
        match child {
            Ok(child) => Ok(Self { name, child, guard }),
            Err(error) => {
                // There is nothing to be guarded: left alone it would wait for the drain of nothing, with our stderr in its hands.
                let _ = kill_process_group(guard.group, Signal::KILL);
                Err(not_started(program, &error))
            }
        }
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Resolves when it has ended. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> Ended {
        let status = self.child.wait().await;
        if let Err(error) = &status {
            tracing::warn!(%error, "how the command ended cannot be told");
        }
        Ended {
            name: self.name.clone(),
            status: status.ok(),
            killed_after: None,
        }
    }

    /// SIGTERM to the command, SIGKILL when that was not enough; then nothing of it is left.
    pub(crate) async fn stop(mut self, grace: Duration) -> Ended {
        if let Some(pid) = self.pid().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // Not yet waited for, so the number is still this child's. That it has just ended is no error.
            let _ = kill_process(pid, Signal::TERM);
        }
        let in_time = tokio::time::timeout(grace, self.ended()).await;
        let ended = match in_time {
            Ok(ended) => ended,
            Err(_) => {
                let _ = self.child.kill().await;
                Ended {
                    killed_after: Some(grace),
                    ..self.ended().await
                }
            }
        };
        self.clear().await;
        ended
    }

    /// Ends whatever the command has started and left behind, as the end of a container does, and the guard.
    pub(crate) async fn clear(mut self) {
        // The guard leads the group and is not waited for before: the number is ours.
        if let Err(error) = kill_process_group(self.guard.group, Signal::KILL) {
            tracing::warn!(%error, "what the command left behind cannot be ended");
        }
        let _ = self.guard.child.wait().await;
    }
}

impl Guard {
    fn start(drain_grace: Duration) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("agent-guard")
            .arg(format!("{}ms", drain_grace.as_millis()))
            // It needs nothing of ours, secrets least of all.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            // Dropped, it is not killed: its stdin is closed, and it ends the group.
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self {
            group: group.ok_or_else(|| io::Error::other("it has ended at once"))?,
            _stdin: child.stdin.take(),
            child,
        })
    }
}

impl Ended {
    /// What the agent ends with, where nobody had asked the command to end.
    pub(crate) fn by_itself(&self) -> Result<(), Failure> {
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(0), _)) => Ok(()),
            _ => Err(self.failure()),
        }
    }

    /// What the agent ends with, where the command was asked to end by SIGTERM.
    pub(crate) fn as_asked(&self) -> Result<(), Failure> {
        let by_term = |status: ExitStatus| status.signal() == Some(Signal::TERM.as_raw());
        match self.status.is_some_and(by_term) {
            true => Ok(()),
            false => self.by_itself(),
        }
    }

    fn failure(&self) -> Failure {
        let name = &self.name;
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => {
                let exit = u8::try_from(code).unwrap_or(1);
                Failure::new(format!("{name} exited with code {code}")).exit(Exit::Command(exit))
            }
            Some((None, Some(signal))) => {
                let exit = u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX);
                let failure = match self.killed_after {
                    Some(grace) => {
                        Failure::new(format!("{name} did not end within {grace:?} of SIGTERM and was killed"))
                            .advice("look at its log, or pass a longer --drain-grace")
                    }
                    None => Failure::new(format!("{name} was killed by signal {signal}")),
                };
                failure.exit(Exit::Command(exit))
            }
            _ => Failure::new(format!("{name} has ended, and nobody can tell how")),
        }
    }
}

/// As shells have it: 127 where there is no such program, 126 where it cannot be run.
fn not_started(program: &OsStr, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => 127,
        _ => 126,
    };
    Failure::new(format!("{} cannot be started", program.display()))
        .because(error)
        .advice("give the path of a program, and its arguments after it")
        .exit(Exit::Command(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(raw: Option<i32>) -> Ended {
        Ended {
            name: "pricing".to_owned(),
            status: raw.map(ExitStatus::from_raw),
            killed_after: None,
        }
    }

    #[test]
    fn the_code_is_the_commands() {
        let check = |raw: i32, by_itself: &str, as_asked: &str| {
            let told = |outcome: Result<(), Failure>| outcome.err().map_or_else(|| "0".to_owned(), |it| it.to_string());
            let ended = ended(Some(raw));
            assert_eq!(told(ended.by_itself()), by_itself, "{raw:x}");
            assert_eq!(told(ended.as_asked()), as_asked, "{raw:x}");
        };
        check(0, "0", "0");
        check(7 << 8, "pricing exited with code 7", "pricing exited with code 7");
        check(15, "pricing was killed by signal 15", "0");
        check(9, "pricing was killed by signal 9", "pricing was killed by signal 9");
        assert!(ended(None).as_asked().is_err());
    }
}
