//! Why a call went where it went: the event on its span. Made only while the span is recorded, and bounded.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Instant,
};

use telemetry::{KeyValue, budget::Budget, semconv};

use super::{Filter, described};
use crate::{Policy, endpoint::Endpoint, pick::Price};

/// The event's name.
pub(crate) const PICK: &str = "lb.pick";
/// Candidates that it lists: what a person compares at a glance, and what a span can bear.
pub(crate) const MOST_CANDIDATES: usize = 16;
/// Instances that it names of each filter.
const MOST_NAMED: usize = 4;

/// So many first attempts a second are noted in a process. A note looks at the whole fleet and is some hundred bytes of text: where
/// thousands of calls a second are recorded that would be a tenth of their cost, for notes that say the same.
const NOTED_PER_SECOND: f64 = 100.0;

/// Whether one more first attempt is noted now.
pub(crate) fn is_due() -> bool {
    static NOTED: LazyLock<(Mutex<Budget>, Instant)> =
        LazyLock::new(|| (Mutex::new(Budget::new(NOTED_PER_SECOND)), Instant::now()));
    let (budget, began) = &*NOTED;
    let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
    budget.take(began.elapsed())
}

/// What there was to choose from, and what was chosen.
#[derive(Debug)]
pub(crate) struct PickNote {
    policy: (&'static str, &'static str),
    chosen: Arc<str>,
    /// How many there were, listed or not.
    pub(crate) candidates: usize,
    listed: Vec<String>,
    compared: Vec<String>,
    removed: BTreeMap<Filter, (usize, Vec<Arc<str>>)>,
}

impl PickNote {
    pub(crate) fn new(policy: &Policy, chosen: &Endpoint) -> Self {
        Self {
            policy: described(policy),
            chosen: Arc::clone(&chosen.instance_id),
            candidates: 0,
            listed: Vec::new(),
            compared: Vec::new(),
            removed: BTreeMap::new(),
        }
    }

    /// One that could have been chosen, with its calls in flight and the microseconds that it was expected to take.
    pub(crate) fn considers(&mut self, endpoint: &Endpoint, weight: u32, in_flight: u32, latency: Option<f32>) {
        if self.listed.len() == MOST_CANDIDATES {
            return;
        }
        let mut text = format!("{} weight {weight}, {in_flight} in flight", endpoint.instance_id);
        if let Some(micros) = latency {
            // Writing to a String does not fail.
            let _ = write!(text, ", {:.1} ms expected", micros / 1000.0);
        }
        self.listed.push(text);
    }

    /// One that the policy looked at, and what the call would have cost there.
    pub(crate) fn compares(&mut self, endpoint: &Endpoint, price: Price) {
        if self.compared.len() == MOST_CANDIDATES {
            return;
        }
        let id = &endpoint.instance_id;
        self.compared.push(match price {
            Price::Micros(micros) => format!("{id} {:.1} ms", micros / 1000.0),
            Price::Calls(calls) => format!("{id} {calls:.1} calls"),
        });
    }

    /// One that could not.
    pub(crate) fn removes(&mut self, by: Filter, instance_id: &Arc<str>) {
        let (count, named) = self.removed.entry(by).or_default();
        *count += 1;
        if named.len() < MOST_NAMED {
            named.push(Arc::clone(instance_id));
        }
    }

    /// As the event's attributes.
    pub(crate) fn attributes(&self, attempt: u32) -> Vec<KeyValue> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        vec![
            KeyValue::new(semconv::ATTEMPT, i64::from(attempt)),
            KeyValue::new(semconv::LB_CHOSEN, self.chosen.to_string()),
            KeyValue::new(semconv::LB_POLICY, self.policy.0),
            KeyValue::new(semconv::LB_CRITERION, self.policy.1),
            KeyValue::new(semconv::LB_CANDIDATES, count(self.candidates)),
            KeyValue::new(semconv::LB_CONSIDERED, self.listed.join("; ")),
            KeyValue::new(semconv::LB_COMPARED, self.compared.join("; ")),
            KeyValue::new(semconv::LB_REMOVED, self.removed()),
        ]
    }

    fn removed(&self) -> String {
        let each = self.removed.iter().map(|(by, (count, named))| {
            let dots = if *count > named.len() { ", …" } else { "" };
            format!("{count} {by} ({}{dots})", named.join(", "))
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use http::uri::Authority;

    use super::*;

    #[test]
    fn a_note_is_bounded_however_large_the_fleet_is() {
        let endpoint = |id: &str| Endpoint::new(id.into(), "h:1".into(), Authority::from_static("h:1"));
        let mut note = PickNote::new(&Policy::default(), &endpoint("chosen"));
        for n in 0..1000 {
            note.candidates += 1;
            note.considers(&endpoint(&format!("i{n}")), 100, 0, Some(2_500.0));
            note.removes(Filter::Connection, &format!("gone-{n}").into());
        }
        note.removes(Filter::Drain, &"d".into());
        assert_eq!(note.listed.len(), MOST_CANDIDATES);
        assert_eq!(note.listed[0], "i0 weight 100, 0 in flight, 2.5 ms expected");
        assert_eq!(
            note.removed(),
            "1 drained (d); 1000 not connected (gone-0, gone-1, gone-2, gone-3, …)"
        );
    }
}
