//! What operators lay over instances. It is kept apart from what an instance says of itself, under the instance's name: whoever
//! registers that name again has it again.
//!
//! A drain and a weight are two decisions, each with its own author and its own end: that a drain of ten minutes ends says nothing
//! about a weight that was set for good.

use std::{fmt, sync::Arc};

use super::{Detail, InstanceKey, Revision, ValueError, WallTime, Weight, name::bounded};
use crate::limits;

const WHO_RULE: &str = "1 to 128 characters of plain text without control characters";

/// Who did something: an operator as he is known, or as he names himself where nobody is asked; or the address that a request
/// came from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Who(Arc<str>);

/// A decision of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ruling {
    /// Whose.
    pub(crate) who: Who,
    /// For people.
    pub(crate) why: Detail,
    /// When it ends by itself; `None`: never.
    pub(crate) until: Option<WallTime>,
    /// When it was made, by the registry's wall clock.
    pub(crate) at: WallTime,
    /// The revision that it made.
    pub(crate) revision: Revision,
}

/// All that is laid over one instance. Never empty where it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Override {
    /// It takes no calls.
    pub(crate) drain: Option<Ruling>,
    /// Instead of its own weight.
    pub(crate) weight: Option<(Weight, Ruling)>,
}

/// An override with the name that it is kept under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverrideRecord {
    /// Whose.
    pub(crate) key: InstanceKey,
    /// What.
    pub(crate) laid: Arc<Override>,
}

/// What was done to an override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// An operator took the instance out.
    Drained,
    /// And in again.
    Undrained,
    /// An operator laid a weight over its own.
    WeightSet(Weight),
    /// And took it away.
    WeightCleared,
    /// The drain's time was over.
    DrainEnded,
    /// The weight's was.
    WeightEnded,
    /// There were too many of instances that are not registered: see [`limits::OVERRIDES_KEPT`].
    Forgotten,
}

impl Who {
    /// As somebody names himself. Control characters are refused, as in a [`Detail`].
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Missing { rule: WHO_RULE });
        }
        bounded(text, limits::WHO_CHARS)?;
        if text.chars().any(char::is_control) {
            return Err(ValueError::Malformed { rule: WHO_RULE });
        }
        Ok(Self(text.into()))
    }

    /// As we know him; cut to the limit.
    pub(crate) fn of(text: &str) -> Self {
        let plain = text.chars().filter(|c| !c.is_control());
        Self(plain.take(limits::WHO_CHARS).collect::<String>().into())
    }

    /// As we know him, and as what he has come; cut to the limit. What we know comes first, and what he says is quoted: nobody can
    /// name himself so that it reads as somebody else.
    pub(crate) fn known(as_whom: &str, said: &Self) -> Self {
        Self::of(&format!("{}, as {said:?}", shortened(as_whom, limits::WHO_CHARS)))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Its beginning and its end: names that belong together differ in the middle least of all.
fn shortened(text: &str, limit: usize) -> String {
    let length = text.chars().count();
    if length <= limit {
        return text.to_owned();
    }
    let tail = limit / 2;
    let head = text.chars().take(limit - tail - 1);
    head.chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Ruling {
    /// Whether somebody decides the same once more.
    pub(crate) fn says(&self, who: &Who, why: &Detail, until: Option<WallTime>) -> bool {
        self.who == *who && self.why == *why && self.until == until
    }

    fn has_ended(&self, wall: WallTime) -> bool {
        self.until.is_some_and(|until| until <= wall)
    }

    fn bytes(&self) -> usize {
        64 + self.who.0.len() + self.why.as_str().len()
    }
}

impl Override {
    /// `None` for one that lays nothing over anything.
    pub(crate) fn kept(self) -> Option<Arc<Self>> {
        (!self.is_empty()).then(|| Arc::new(self))
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.drain.is_none() && self.weight.is_none()
    }

    /// Whether the instance is taken out.
    pub(crate) fn is_drained(&self) -> bool {
        self.drain.is_some()
    }

    /// The weight that counts instead of the instance's own.
    pub(crate) fn weight(&self) -> Option<Weight> {
        self.weight.as_ref().map(|(weight, _)| *weight)
    }

    /// The decision that was made last.
    pub(crate) fn latest(&self) -> Option<&Ruling> {
        self.rulings().max_by_key(|ruling| ruling.revision)
    }

    /// The revision of the decision that was made last.
    pub(crate) fn revision(&self) -> Revision {
        self.latest().map_or(Revision::ZERO, |ruling| ruling.revision)
    }

    /// When some of it ends by itself for the first time.
    pub(crate) fn next_end(&self) -> Option<WallTime> {
        self.rulings().filter_map(|ruling| ruling.until).min()
    }

    /// Takes away what ends by now, and tells what that was.
    pub(crate) fn end(&mut self, wall: WallTime) -> Vec<(Act, Ruling)> {
        let drain = self.drain.take_if(|ruling| ruling.has_ended(wall));
        let weight = self.weight.take_if(|(_, ruling)| ruling.has_ended(wall));
        let drain = drain.map(|ruling| (Act::DrainEnded, ruling));
        let weight = weight.map(|(_, ruling)| (Act::WeightEnded, ruling));
        drain.into_iter().chain(weight).collect()
    }

    /// Roughly what it costs in memory and on the wire.
    pub(crate) fn bytes(&self) -> usize {
        self.rulings().map(Ruling::bytes).sum()
    }

    fn rulings(&self) -> impl Iterator<Item = &Ruling> {
        let weight = self.weight.as_ref().map(|(_, ruling)| ruling);
        self.drain.iter().chain(weight)
    }
}

impl Act {
    /// For logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Undrained => "undrained",
            Self::WeightSet(_) => "weight set",
            Self::WeightCleared => "weight taken back",
            Self::DrainEnded => "drain ended",
            Self::WeightEnded => "weight ended",
            Self::Forgotten => "forgotten",
        }
    }

    /// Whether it must be possible on a full disk: what takes traffic away is for emergencies, and what ends does so by itself.
    pub(crate) fn makes_room(self) -> bool {
        matches!(
            self,
            Self::Drained | Self::DrainEnded | Self::WeightEnded | Self::Forgotten
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruling(revision: u64, until: Option<i64>) -> Ruling {
        let at = |seconds| WallTime { seconds, nanos: 0 };
        Ruling {
            who: Who::try_new("ann").expect("a name"),
            why: Detail::of("it burns"),
            until: until.map(at),
            at: at(0),
            revision: Revision::new(revision),
        }
    }

    #[test]
    fn who_is_a_short_plain_text() {
        for good in [
            "a",
            "ann@example.org",
            "spiffe://example/operator/ann",
            &"é".repeat(128),
        ] {
            assert_eq!(Who::try_new(good).expect(good).as_str(), good);
        }
        for bad in ["", "a\nb", "\u{1b}[31m", &"é".repeat(129)] {
            assert!(Who::try_new(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(Who::of("a\u{1b}b").as_str(), "ab");
        let said = Who::of(r#"x", the token "root"#);
        let known = Who::known(r#"the token "ada" (abc)"#, &said);
        assert_eq!(known.as_str(), r#"the token "ada" (abc), as "x\", the token \"root""#);
        // However long: two operators of one trust domain are told apart.
        let domain = "d".repeat(255);
        let [ann, bob] = ["ann", "bob"].map(|name| Who::known(&format!("spiffe://{domain}/operator/{name}"), &said));
        assert!(
            ann.as_str().starts_with("spiffe://d") && ann.as_str().ends_with("d/operator/ann"),
            "{ann}"
        );
        assert!(ann != bob && ann.as_str().chars().count() == limits::WHO_CHARS, "{bob}");
        assert_eq!(Who::of(&"é".repeat(300)).as_str().chars().count(), 128);
    }

    #[test]
    fn each_decision_ends_by_itself() {
        let mut both = Override {
            drain: Some(ruling(3, Some(10))),
            weight: Some((Weight::try_new(7).expect("a weight"), ruling(2, None))),
        };
        let at = |seconds| WallTime { seconds, nanos: 0 };
        assert_eq!((both.next_end(), both.revision().get()), (Some(at(10)), 3));
        assert!(both.end(at(9)).is_empty());
        let ended = both.end(at(10));
        assert_eq!(ended, [(Act::DrainEnded, ruling(3, Some(10)))]);
        assert!(!both.is_drained() && both.weight().is_some() && both.next_end().is_none());
        assert!(Override::default().kept().is_none());
    }
}
