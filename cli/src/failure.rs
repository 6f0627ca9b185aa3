//! How a command fails: one line that says what failed, why, and what to do next, and the exit code that goes with it.
//! What exactly went wrong below is kept in the layers' own errors; this is only what a person is told.

use std::{fmt, io, process::ExitCode};

use crate::output::plain;

/// Why the process ends with another code than 0. Much of it is what others said, and they are not trusted with the
/// terminal: every part is made plain as it comes in.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    why: Option<String>,
    advice: Option<String>,
    details: Vec<String>,
    exit: Exit,
}

/// The exit codes, as documented for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nobody reads the output any more: nothing is wrong and nothing is said.
    ReaderGone,
    /// 1: what was asked for did not succeed.
    Failed,
    /// 2: it was asked for in a way that makes no sense.
    Usage,
    /// 64 + code: the called method answered with this gRPC code.
    Grpc(tonic::Code),
    /// The command that an agent ran ended with this, as shells count: 127 where there is none, 126 where it cannot be
    /// run, 128 + the signal's number where one killed it.
    Command(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            // Codes are 0 to 16 (gRPC's status codes), so the sum fits.
            Self::Grpc(code) => u8::try_from(64 + i32::from(code)).unwrap_or(u8::MAX),
            Self::Command(code) => code,
        }
    }
}

impl Failure {
    /// `what` failed.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: plain(&what.into()),
            why: None,
            advice: None,
            details: Vec::new(),
            exit: Exit::Failed,
        }
    }

    /// Something was asked for in a way that makes no sense.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(what).exit(Exit::Usage)
    }

    /// The cause, as told by whoever reported it.
    pub(crate) fn why(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(one_line(&why.to_string()));
        self
    }

    /// The cause with everything below it.
    pub(crate) fn because(self, error: &(dyn std::error::Error + 'static)) -> Self {
        self.why(chain(error))
    }

    /// What to do next.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(plain(&advice.into()));
        self
    }

    /// A further line below the first one.
    pub(crate) fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(plain(&line.into()));
        self
    }

    /// Another exit code than 1.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Whether it is only that nobody reads the output any more.
    pub(crate) fn is_reader_gone(&self) -> bool {
        self.exit == Exit::ReaderGone
    }

    /// Prints it, and says how to exit.
    pub(crate) fn report(&self) -> ExitCode {
        if self.exit != Exit::ReaderGone {
            let bold = anstyle::AnsiColor::Red.on_default().bold();
            crate::output::note(&format!("{bold}tessera:{bold:#} {self}"));
            for line in &self.details {
                crate::output::note(&format!("  {line}"));
            }
        }
        ExitCode::from(self.exit.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(why) = &self.why {
            write!(f, " ({why})")?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

/// For output: the reader of a pipe may leave when it has seen enough (`tessera services | head -1`).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new("the output is no longer read").exit(Exit::ReaderGone),
            _ => Self::new("the output cannot be written").because(&error),
        }
    }
}

/// An error and its sources, outermost first. A source that the error above already quotes is not repeated.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !said.is_empty() && !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text
}

fn one_line(text: &str) -> String {
    // After the line is one: `plain` leaves out what separates lines.
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_why_and_what_to_do() {
        let failure = Failure::new("port 7000 is in use")
            .why("another\nprocess")
            .advice("pass --registry-port");
        assert_eq!(
            failure.to_string(),
            "port 7000 is in use (another process); pass --registry-port"
        );
        assert_eq!(Failure::new("nothing works").to_string(), "nothing works");
    }

    /// A foreign server's message could rename the window, clear the screen or write over what was said before.
    #[test]
    fn what_others_say_does_not_steer_the_terminal() {
        let evil = "\u{1b}]0;owned\u{7}a\u{1b}[2Jb\rc\u{9b}31md\u{202e}e";
        let failure = Failure::new(evil).why(evil).advice(evil).detail(evil);
        let told = format!("{failure}\n{}", failure.details.join("\n"));
        assert!(
            told.chars().all(|letter| letter == '\n' || !letter.is_control()),
            "{told:?}"
        );
        assert!(!told.contains("owned") && !told.contains('\u{202e}'), "{told:?}");
        assert_eq!(
            Failure::new("a").why("one\ttwo\nthree").to_string(),
            "a (one two three)"
        );
    }

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        assert_eq!(Exit::Failed.code(), 1);
        assert_eq!(Exit::Usage.code(), 2);
        assert_eq!(Exit::Grpc(tonic::Code::NotFound).code(), 69);
        assert_eq!(Exit::Grpc(tonic::Code::Unauthenticated).code(), 80);
    }

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit.code(), 0);
        assert!(failure.is_reader_gone());
        assert!(!Failure::new("a seat was sold twice").is_reader_gone());
    }

    #[test]
    fn sources_are_told_once() {
        let io = io::Error::other("disk is full");
        assert_eq!(chain(&io), "disk is full");
    }
}
