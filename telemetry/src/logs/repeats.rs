//! The same warning over and over: the first of a window are written, the rest are counted, and the count is said when the
//! window is over.
//!
//! A disk that fills with one line said a million times loses all the others. What counts as the same is the place in the code,
//! since texts carry addresses and times. Information and below is not held back: whoever turns that on wants all of it.
//! [`Repeats`] is a pure core, whose time is an argument; [`RepeatsLayer`] asks it for each warning, and the keeper says what
//! it owes. Not here: formatting.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::metrics::{Counter, CounterFamily, counter};

/// Lines of one place that are written in a [`WINDOW`]: enough to see that different callers, instances or files are meant.
const FIRST: u32 = 10;
/// How long a place is counted. Not longer, so that it is known soon how often it was.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Where the counts are said; those lines are never held back.
const SAID_BY: &str = "telemetry::repeats";
/// Characters kept of a line that was left out: enough to recognise it.
const MOST_TEXT: usize = 120;

/// What is known of each place that has warned lately. Places are lines of code, so there is no need for another bound.
#[derive(Debug)]
pub(super) struct Repeats<K> {
    places: HashMap<K, Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    left_out: u64,
    /// Left out in windows before this one, and not said yet.
    owed: u64,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { places: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone> Repeats<K> {
    /// Whether a line of this place is to be written at `now`.
    pub(super) fn admit(&mut self, place: K, now: Instant) -> bool {
        let window = self.places.entry(place).or_insert(Window {
            began: now,
            written: 0,
            left_out: 0,
            owed: 0,
        });
        if now.saturating_duration_since(window.began) >= WINDOW {
            *window = Window {
                began: now,
                written: 0,
                left_out: 0,
                owed: window.owed + window.left_out,
            };
        }
        if window.written < FIRST {
            window.written += 1;
            return true;
        }
        window.left_out += 1;
        false
    }

    /// The places whose windows were over by `now` and how many lines each left out, once; `all` those that go on as well.
    pub(super) fn owed(&mut self, now: Instant, all: bool) -> Vec<(K, u64)> {
        let mut owed = Vec::new();
        self.places.retain(|place, window| {
            let is_over = all || now.saturating_duration_since(window.began) >= WINDOW;
            let mut count = std::mem::take(&mut window.owed);
            if is_over {
                count += window.left_out;
            }
            if count > 0 {
                owed.push((place.clone(), count));
            }
            !is_over
        });
        owed
    }
}

/// A place in the code, and the start of a line of it that was left out.
#[derive(Debug, Default)]
struct Seen {
    repeats: Repeats<Identifier>,
    places: HashMap<Identifier, Place>,
}

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    text: String,
}

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

struct Counts {
    written: CounterFamily,
    left_out: CounterFamily,
}

static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    written: counter(
        "tessera_log_events",
        "Warnings and errors that were logged, those left out included",
        &["level"],
    ),
    left_out: counter(
        "tessera_log_events_left_out",
        "Warnings and errors that were counted and not written because they repeat",
        &["level"],
    ),
});

/// Has the counts there before anything is counted, so that a rate of them is one from the beginning.
pub(super) fn count_from_zero() {
    for level in [Level::ERROR, Level::WARN] {
        of_level(&COUNTS.written, level);
        of_level(&COUNTS.left_out, level);
    }
}

fn of_level(family: &CounterFamily, level: Level) -> Counter {
    family.with(&[if level == Level::ERROR { "error" } else { "warn" }])
}

/// Holds back warnings and errors that repeat.
#[derive(Debug, Clone, Copy)]
pub(super) struct RepeatsLayer;

impl<S: Subscriber> Layer<S> for RepeatsLayer {
    // Asked after the filter, so that what is not logged is not counted.
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // The more severe, the smaller.
        if *metadata.level() > Level::WARN || metadata.target() == SAID_BY {
            return true;
        }
        of_level(&COUNTS.written, *metadata.level()).inc();
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_written = seen.repeats.admit(metadata.callsite(), Instant::now());
        if !is_written {
            of_level(&COUNTS.left_out, *metadata.level()).inc();
            seen.places.entry(metadata.callsite()).or_insert_with(|| {
                let mut text = Text(String::new());
                event.record(&mut text);
                Place {
                    metadata,
                    text: text.0.chars().take(MOST_TEXT).collect(),
                }
            });
        }
        is_written
    }
}

/// Says what was left out in windows that are over, or in `all`.
pub(super) fn say(now: Instant, all: bool) {
    let owed: Vec<(Place, u64)> = {
        let seen = &mut *SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = seen.repeats.owed(now, all);
        owed.into_iter()
            .filter_map(|(id, count)| Some((seen.places.remove(&id)?, count)))
            .collect()
    };
    // Without the lock: these are lines too.
    for (Place { metadata, text }, left_out) in owed {
        let (of, window_seconds) = (metadata.target(), WINDOW.as_secs());
        if *metadata.level() == Level::ERROR {
            tracing::error!(target: SAID_BY, left_out, of, window_seconds, "more of the same: {text}");
        } else {
            tracing::warn!(target: SAID_BY, left_out, of, window_seconds, "more of the same: {text}");
        }
    }
}

/// An event's message.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_first_of_a_window_are_written_and_the_rest_counted() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        for n in 0..FIRST + 5 {
            assert_eq!(repeats.admit("a", start), n < FIRST, "line {n}");
        }
        assert!(repeats.admit("b", start), "another place has a window of its own");
        assert!(repeats.owed(start + WINDOW / 2, false).is_empty(), "not over yet");
        assert_eq!(repeats.owed(start + WINDOW, false), [("a", 5)]);
        assert!(repeats.owed(start + WINDOW, false).is_empty(), "said once");
        assert!(repeats.places.is_empty(), "nothing is kept of those who are quiet");
    }

    #[test]
    fn a_window_that_begins_before_the_last_was_said_owes_both() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        for _ in 0..FIRST + 2 {
            repeats.admit("a", start);
        }
        let later = start + WINDOW;
        for n in 0..FIRST + 3 {
            assert_eq!(repeats.admit("a", later), n < FIRST, "a new window");
        }
        assert_eq!(repeats.owed(later, false), [("a", 2)], "of the one that is over");
        assert_eq!(repeats.owed(later, true), [("a", 3)], "at the end all is said");
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<(String, String)>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut text = Text(String::new());
            event.record(&mut text);
            let line = (event.metadata().level().to_string(), text.0);
            self.0.lock().expect("not poisoned").push(line);
        }
    }

    /// The one test that uses the process's own state: its places are its own lines.
    #[test]
    fn warnings_are_held_back_and_said_and_information_is_not() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::registry().with(RepeatsLayer).with(lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..FIRST + 7 {
                tracing::error!("failed for the {n}. time");
                tracing::info!("informed");
            }
            say(Instant::now(), true);
        });
        let lines = lines.0.lock().expect("not poisoned").clone();
        let starts = |level: &str, text: &str| {
            let of = |line: &&(String, String)| line.0 == level && line.1.starts_with(text);
            lines.iter().filter(of).count()
        };
        assert_eq!(starts("ERROR", "failed for the"), 10);
        assert_eq!(starts("INFO", "informed"), 17);
        assert_eq!(starts("ERROR", "more of the same: failed for the 10. time"), 1);
        let text = crate::metrics::encode();
        assert!(
            text.contains("tessera_log_events_left_out_total{level=\"error\"} 7\n"),
            "{text}"
        );
    }
}
