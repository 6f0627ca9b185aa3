//! Statistics in memory: every call that this process makes or answers, counted by service, method and peer, by code and by
//! latency. What `/metrics` shows is for a scrape; this is for whoever takes it once an interval and sends it on.
//!
//! Nothing is counted until somebody takes ([`install`]). Then a call costs a hash and three additions at each end: series are
//! found without a lock, counters are sharded, and a series that is known needs no memory. The number of series is bounded; what
//! comes after shares one, called `_OTHER`.
//!
//! Read in this order: [`buckets`] (pure), `series` (one), `table` (all). Not here: sending ([`Taker`] is who does), time.

pub mod buckets;
mod series;
mod table;

use std::{
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderValue, header::HeaderName};

use self::{series::Series, table::Table};
pub use self::{
    series::{Delta, Key, Side},
    table::{MAX_CALLERS, MAX_SERIES},
};
use crate::rpc;

/// Request header in which a caller says which service it is, so that providers count by caller. It is what the
/// caller says: for statistics, never for a decision.
pub const CALLER_HEADER: HeaderName = HeaderName::from_static("tessera-caller");

/// Longest name of a service, as the registry has it.
const MAX_NAME: usize = 63;

static TAKEN: AtomicBool = AtomicBool::new(false);
static TABLE: LazyLock<Table> = LazyLock::new(Table::new);
static CALLER: ArcSwapOption<HeaderValue> = ArcSwapOption::const_empty();
/// What the process is called while nobody takes.
static PROCESS: OnceLock<Arc<HeaderValue>> = OnceLock::new();

/// From here on calls are counted, for the one who holds the answer. `service` is what this process is called when it calls
/// others. `None` if somebody takes already: what was counted can be taken once only.
#[must_use]
pub fn install(service: &str) -> Option<Taker> {
    if TAKEN.swap(true, Ordering::AcqRel) {
        return None;
    }
    CALLER.store(header(service));
    Some(Taker(()))
}

/// What this process says of itself when it calls others, also where nobody takes what it counts: a command has a name in the graph
/// of who calls whom although it is over before any report. Fixed once; later calls are ignored.
pub(crate) fn call_as(service: &str) {
    if let Some(name) = header(service)
        && PROCESS.set(Arc::clone(&name)).is_ok()
        && CALLER.load().is_none()
    {
        CALLER.store(Some(name));
    }
}

fn header(service: &str) -> Option<Arc<HeaderValue>> {
    let name = is_name(service).then(|| HeaderValue::from_str(service).ok()).flatten();
    name.map(Arc::new)
}

/// Takes what is counted. Dropped, counting ends.
#[derive(Debug)]
pub struct Taker(());

impl Taker {
    /// What was counted since the last time, in the order of the keys. A key may be there twice, when its series went for being
    /// idle and came again; both are to be added.
    #[must_use]
    pub fn take(&self) -> Vec<Delta> {
        TABLE.take()
    }

    /// How many series there are.
    #[must_use]
    pub fn series(&self) -> usize {
        TABLE.len()
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        CALLER.store(PROCESS.get().cloned());
        TAKEN.store(false, Ordering::Release);
    }
}

/// Where one call is counted when it ends; nowhere while nobody takes.
#[derive(Debug, Default)]
pub(crate) struct Handle(Option<Arc<Series>>);

impl Handle {
    /// A call to a service; health checks and reflection are not counted, as on the other end.
    pub(crate) fn caller(service: &str, method: &str) -> Self {
        Self::of(Side::Caller, service, method, "")
    }

    /// An attempt of that call at an instance.
    pub(crate) fn attempt(&self, instance: &str) -> Self {
        let Some(call) = &self.0 else { return Self(None) };
        Self::of(Side::Attempt, &call.key.service, &call.key.method, instance)
    }

    /// A call that is answered.
    pub(crate) fn provider(method: &str, headers: &HeaderMap) -> Self {
        Self::of(Side::Provider, "", method, caller_in(headers))
    }

    fn of(side: Side, service: &str, method: &str, peer: &str) -> Self {
        if !TAKEN.load(Ordering::Relaxed) || rpc::is_infrastructure(method) {
            return Self(None);
        }
        Self(Some(TABLE.of(side, service, method, peer)))
    }

    pub(crate) fn record(&self, code: i32, took: Duration) {
        if let Some(series) = &self.0 {
            series.record(code, took);
        }
    }
}

/// Says in the headers who calls: what [`install`] was told, or the name that [`crate::init`] was given. Nothing without either.
pub fn say_caller(headers: &mut HeaderMap) {
    if let Some(name) = &*CALLER.load() {
        headers.insert(CALLER_HEADER, HeaderValue::clone(name));
    }
}

/// Who calls, by its own word; empty if it says nothing that is a service's name.
fn caller_in(headers: &HeaderMap) -> &str {
    let name = headers.get(CALLER_HEADER).and_then(|name| name.to_str().ok());
    name.filter(|name| is_name(name)).unwrap_or_default()
}

fn is_name(text: &str) -> bool {
    let letter = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(letter)
}

/// For the bench of this crate: one call as the ends count it, from the look-up to the counters.
#[doc(hidden)]
pub fn count_one(service: &str, method: &str, code: i32, took: Duration) {
    Handle::caller(service, method).record(code, took);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_taken_for_callers() {
        let said = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(CALLER_HEADER, HeaderValue::from_bytes(value).expect("a value"));
            caller_in(&headers).to_owned()
        };
        assert_eq!(said(b"user-svc"), "user-svc");
        assert_eq!(said(b"user svc"), "");
        assert_eq!(said("b\u{fc}ro".as_bytes()), "");
        assert_eq!(said(&[b'a'; 64]), "");
        assert_eq!(caller_in(&HeaderMap::new()), "");
    }
}
