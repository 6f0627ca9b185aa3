//! An explanation as a few lines of text, for logs and messages. Tables are made by whoever has a terminal.

use std::fmt;

use super::{Explanation, Filter, InstanceView};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} of {} known can be called; {} ({}); {}",
            self.target, self.candidates, self.known, self.policy, self.criterion, self.discovery.text
        )?;
        for instance in &self.instances {
            writeln!(f, "  {instance}")?;
        }
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

impl fmt::Display for InstanceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: ", self.instance_id, self.address)?;
        match &self.removed {
            Some(removed) => write!(f, "{}, {}", removed.by, removed.why),
            None => {
                let weight = self.effective_weight.unwrap_or(self.weight);
                write!(f, "weight {weight}, {} in flight", self.in_flight)?;
                match self.expected_latency() {
                    Some(latency) => write!(f, ", {latency:.1?} expected"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Drain => "drained",
            Self::Status => "takes no calls",
            Self::Weight => "weight 0",
            Self::Protocol => "not spoken to",
            Self::Subset => "not in the subset",
            Self::Connection => "not connected",
            Self::Ejection => "ejected",
            Self::Health => "not healthy",
            Self::Route => "not on the route",
            Self::Room => "full",
            Self::Removal => "leaving",
            Self::Other => "removed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DiscoveryView, Removed};
    use super::*;

    fn explanation() -> Explanation {
        let chosen = InstanceView {
            instance_id: "a".to_owned(),
            address: "10.0.0.1:1".to_owned(),
            weight: 100,
            effective_weight: Some(50),
            in_flight: 2,
            expected_latency_us: Some(1_500),
            ..InstanceView::default()
        };
        let drained = InstanceView {
            instance_id: "b".to_owned(),
            address: "10.0.0.2:1".to_owned(),
            removed: Some(Removed::new(Filter::Drain, "by ann")),
            ..InstanceView::default()
        };
        Explanation {
            target: "s".to_owned(),
            policy: "peak_ewma".to_owned(),
            criterion: "the cheapest".to_owned(),
            discovery: DiscoveryView {
                text: "the registry answers, at revision 7".to_owned(),
                revision: Some(7),
                stale_for_ms: None,
            },
            route: "no tag".to_owned(),
            known: 2,
            candidates: 1,
            instances: vec![chosen, drained],
            more: 3,
        }
    }

    #[test]
    fn people_are_told_who_why_and_who_not() {
        let text = explanation().to_string();
        for expected in [
            "s: 1 of 2 known can be called; peak_ewma (the cheapest)",
            "a at 10.0.0.1:1: weight 50, 2 in flight, 1.5ms expected",
            "b at 10.0.0.2:1: drained, by ann",
            "and 3 more",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    /// Who reads the page may be older or younger than who writes it.
    #[test]
    fn what_is_written_is_read_again_and_what_is_new_is_passed_over() {
        let written = serde_json::to_value(explanation()).expect("JSON");
        assert_eq!(written["instances"][1]["removed"]["by"], "DRAIN");
        let read: Explanation = serde_json::from_value(written.clone()).expect("an explanation");
        assert_eq!(read, explanation());
        let mut later = written;
        later["invented"] = 1.into();
        later["instances"][1]["removed"]["by"] = "INVENTED".into();
        let read: Explanation = serde_json::from_value(later).expect("an explanation");
        assert_eq!(read.instances[1].removed.as_ref().map(|it| it.by), Some(Filter::Other));
    }
}
