//! What a drain comes to: whether those who call an instance have said that they call it no more.

use std::fmt;

/// How a drain went. In every case the instance may stop; what differs is what its callers know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// Every watcher has acknowledged it: no new call comes from any of them.
    Acknowledged,
    /// These have not, in the time that they were given. They will notice when the instance stops.
    Late(Late),
    /// The registry was not heard, or cannot tell: who knows is not known.
    Unheard,
}

/// Those who have not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Late {
    /// Watches that the registry has told and that have not answered, by their ids.
    pub watches: Vec<String>,
    /// Replicas of the registry of whose watches nothing is known.
    pub replicas: Vec<String>,
}

impl Late {
    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty() && self.replicas.is_empty()
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} watches have not acknowledged", self.watches.len())?;
        if let Some(first) = self.watches.first() {
            write!(f, " (the first is {first})")?;
        }
        match self.replicas.len() {
            0 => Ok(()),
            replicas => write!(f, "; {replicas} replicas of the registry have not told of theirs"),
        }
    }
}
