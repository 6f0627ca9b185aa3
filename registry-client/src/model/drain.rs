//! What a drain comes to: whether those who call an instance have said that they call it no more.

use std::{collections::BTreeSet, fmt};

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

/// What one replica knows: its own watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeardOf {
    /// Which; empty for a registry that is alone.
    pub(crate) replica: String,
    /// Of its watches; and the other replicas.
    pub(crate) late: Late,
}

impl Late {
    /// What several replicas know together: whoever has answered is heard of.
    pub(crate) fn of_all(answers: Vec<HeardOf>) -> Self {
        let heard: BTreeSet<String> = answers.iter().map(|answer| answer.replica.clone()).collect();
        let (mut watches, mut replicas) = (BTreeSet::new(), BTreeSet::new());
        for HeardOf { late, .. } in answers {
            watches.extend(late.watches);
            replicas.extend(late.replicas);
        }
        Self {
            watches: watches.into_iter().collect(),
            replicas: replicas.difference(&heard).cloned().collect(),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(replica: &str, watches: &[&str], replicas: &[&str]) -> HeardOf {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        HeardOf {
            replica: replica.to_owned(),
            late: Late {
                watches: owned(watches),
                replicas: owned(replicas),
            },
        }
    }

    #[test]
    fn replicas_that_answer_are_heard_of_and_the_others_named() {
        let check = |answers: &[HeardOf], watches: &[&str], replicas: &[&str]| {
            let late = Late::of_all(answers.to_vec());
            assert_eq!((late.watches, late.replicas), {
                let HeardOf { late, .. } = told("", watches, replicas);
                (late.watches, late.replicas)
            });
        };
        check(&[told("", &[], &[])], &[], &[]);
        check(
            &[told("a", &[], &["b", "c"]), told("b", &["w"], &["a", "c"])],
            &["w"],
            &["c"],
        );
        check(&[told("a", &[], &["b"]), told("b", &[], &["a"])], &[], &[]);
        // Two addresses of one and the same.
        check(&[told("a", &["w"], &["b"]), told("a", &["w"], &["b"])], &["w"], &["b"]);
    }
}
