//! The channels that are open in this process: what the admin port shows and the metrics are made of. It keeps none of them open.

use std::sync::{
    Arc, Mutex, Once, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;

use super::{Explanation, metrics};
use crate::call::Shared;

/// Channels that the page shows, and instances on all of them together: it is read by people, and must have an end.
const MOST_CHANNELS: usize = 64;
const MOST_INSTANCES: usize = 2_000;

static OPEN: Mutex<Vec<Open>> = Mutex::new(Vec::new());

struct Open {
    id: u64,
    shared: Weak<Shared>,
}

/// A channel was opened.
pub(crate) fn opened(shared: &Arc<Shared>) {
    static HOOKED: Once = Once::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    HOOKED.call_once(|| telemetry::metrics::before_encode(metrics::collect));
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|open| open.shared.strong_count() > 0);
    open.push(Open {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        shared: Arc::downgrade(shared),
    });
}

/// Those that are open now, each with a number of its own, the oldest first.
pub(crate) fn channels() -> Vec<(u64, Arc<Shared>)> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.iter()
        .filter_map(|open| Some((open.id, open.shared.upgrade()?)))
        .collect()
}

#[derive(Serialize)]
struct Page {
    channels: Vec<Explanation>,
    /// How many more channels there are.
    more: usize,
}

/// What every open [`Channel`](crate::Channel) of this process knows and would do, as JSON: `{"channels": […], "more": 0}`, each an
/// [`Explanation`]. For an admin port. It is bounded: 64 channels, and 2,000 instances on all of them together.
#[must_use]
pub fn live_page() -> String {
    let open = channels();
    let mut room = MOST_INSTANCES;
    let page = Page {
        more: open.len().saturating_sub(MOST_CHANNELS),
        channels: open
            .iter()
            .take(MOST_CHANNELS)
            .map(|(_, shared)| {
                let mut explanation = shared.explain(None);
                let listed = explanation.instances.len().min(room);
                explanation.more += explanation.instances.len() - listed;
                explanation.instances.truncate(listed);
                room -= listed;
                explanation
            })
            .collect(),
    };
    // Its keys are strings and its numbers finite: it cannot fail.
    serde_json::to_string(&page).unwrap_or_default()
}
