//! One instance as the bench holds it: how it is to behave, and the handle of its process. What that process does is in
//! `answers`.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::Failed;

/// In the command line of an instance; its [`Nature`] follows.
pub(crate) const FLAG: &str = "--instance";

/// How an instance behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nature {
    /// What it takes for a call, evenly spread over 80 to 120 % of this.
    pub(crate) takes: Duration,
    /// How many calls it works on at a time; the others wait in it.
    pub(crate) at_once: usize,
    /// How many may wait; it refuses the others with UNAVAILABLE, at once.
    pub(crate) queue: usize,
    /// Answers UNAVAILABLE, at once.
    pub(crate) fails: bool,
    /// Half of what it can do is taken from it, every other one of these times. Zero: never.
    pub(crate) squeezed: Duration,
}

impl Nature {
    pub(crate) const fn takes(millis: u64) -> Self {
        Self {
            takes: Duration::from_millis(millis),
            at_once: 100_000,
            queue: 100_000,
            fails: false,
            squeezed: Duration::ZERO,
        }
    }

    pub(crate) const fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }

    pub(crate) const fn queue(self, queue: usize) -> Self {
        Self { queue, ..self }
    }

    pub(crate) const fn squeezed(self, turns: Duration) -> Self {
        Self {
            squeezed: turns,
            ..self
        }
    }

    pub(crate) const fn failing() -> Self {
        Self {
            fails: true,
            ..Self::takes(0)
        }
    }

    /// As the arguments of a process.
    fn to_args(self) -> [String; 5] {
        [
            self.takes.as_micros().to_string(),
            self.at_once.to_string(),
            self.queue.to_string(),
            self.fails.to_string(),
            self.squeezed.as_micros().to_string(),
        ]
    }

    /// And back.
    pub(crate) fn from_args(args: &[String]) -> Result<Self, Failed> {
        let [takes, at_once, queue, fails, squeezed] = args else {
            return Err("a nature has five arguments".into());
        };
        Ok(Self {
            takes: Duration::from_micros(takes.parse()?),
            at_once: at_once.parse()?,
            queue: queue.parse()?,
            fails: fails.parse()?,
            squeezed: Duration::from_micros(squeezed.parse()?),
        })
    }
}

/// A running instance; killed with this value.
pub(crate) struct Instance {
    child: Child,
    number: usize,
    nature: Nature,
    pub(crate) address: SocketAddr,
}

impl Instance {
    /// Starts instance `number` on a free port.
    pub(crate) fn start(number: usize, nature: Nature) -> Result<Self, Failed> {
        Self::at(number, nature, 0)
    }

    fn at(number: usize, nature: Nature, port: u16) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .args([number.to_string(), port.to_string()])
            .args(nature.to_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Self {
            address: line
                .trim()
                .parse()
                .map_err(|_| format!("instance {number} says {line:?}"))?,
            child,
            number,
            nature,
        })
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as a service ends: GOAWAY, calls under way finish, and then it is gone.
    pub(crate) fn stop(&mut self) -> Result<(), Failed> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again where it was.
    pub(crate) fn again(&mut self) -> Result<(), Failed> {
        *self = Self::at(self.number, self.nature, self.address.port())?;
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It has ended, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fleet, numbered in order.
pub(crate) fn fleet(natures: &[Nature]) -> Result<Vec<Instance>, Failed> {
    natures
        .iter()
        .enumerate()
        .map(|(number, nature)| Instance::start(number, *nature))
        .collect()
}

pub(crate) fn addresses(fleet: &[Instance]) -> Vec<String> {
    fleet.iter().map(|instance| instance.address.to_string()).collect()
}
