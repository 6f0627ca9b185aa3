//! What a drain comes to: whether those who call an instance have said that they call it no more.

use std::{collections::BTreeSet, fmt};

/// How a drain went. In every case the instance may stop; what differs is what its callers know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// Every watcher has acknowledged it: no new call comes from any of them.
    Acknowledged,
    /// These have not, in the time that they were given. They will notice when the instance stops.
    Late(Late),
    /// The registry was not heard, or cannot tell, because it began a moment ago for example: who knows is not known.
    Unheard,
}

/// Those who have not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Late {
    /// Watches that the registry has told and that have not answered, by their ids.
    pub watches: Vec<String>,
    /// Replicas of the registry of whose watches nothing is known: by the name that the others have for them, by the address where
    /// they were asked, or by both.
    pub replicas: Vec<String>,
}

impl Late {
    /// What several replicas know together, each by its name (empty for a registry that is alone): each tells of its own watches and
    /// names the others, and whoever has answered is heard of.
    #[must_use]
    pub fn of_all(answers: impl IntoIterator<Item = (String, Self)>) -> Self {
        let (mut heard, mut watches, mut replicas) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (replica, late) in answers {
            heard.insert(replica);
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
            _ => write!(
                f,
                "; of the registry's replicas these have not told of theirs: {}",
                self.replicas.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(watches: &[&str], replicas: &[&str]) -> Late {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Late {
            watches: owned(watches),
            replicas: owned(replicas),
        }
    }

    #[test]
    fn replicas_that_answer_are_heard_of_and_the_others_named() {
        let check = |answers: &[(&str, Late)], expected: Late| {
            let answers = answers
                .iter()
                .map(|(replica, late)| ((*replica).to_owned(), late.clone()));
            assert_eq!(Late::of_all(answers), expected);
        };
        check(&[("", late(&[], &[]))], late(&[], &[]));
        check(&[("a", late(&[], &["b"])), ("b", late(&[], &["a"]))], late(&[], &[]));
        check(
            &[("a", late(&[], &["b", "c"])), ("b", late(&["w"], &["a", "c"]))],
            late(&["w"], &["c"]),
        );
        // Two addresses of one and the same.
        check(
            &[("a", late(&["w"], &["b"])), ("a", late(&["w"], &["b"]))],
            late(&["w"], &["b"]),
        );
    }
}
