//! Counters, gauges and histograms of one process-global registry, as text for Prometheus.
//!
//! A thin face over `prometheus-client`, so that no other crate names it. Asking twice for the same name gives the same
//! family: a library may ask wherever it needs one. Label values come from code or from a bounded set, never from input;
//! as a safety net a family holds at most [`MAX_SERIES`] series, and what comes after lands in one labelled `_OTHER`.
//!
//! Not here: an HTTP endpoint (service-host's), export over OTLP (a scrape is enough for now).

mod labels;
mod process;
pub(crate) mod rpc;
pub(crate) mod runtime;
mod text;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use opentelemetry::{Context, trace::TraceContextExt as _};
use prometheus_client::{
    encoding::EncodeMetric,
    metrics::{TypedMetric, counter, exemplar::HistogramWithExemplars, family, family::MetricConstructor, gauge},
    registry,
};

use self::labels::{ExemplarLabels, LabelSet};
use crate::span;

/// Most series of one family; the number is far above what our labels can make and far below what hurts a scrape.
pub const MAX_SERIES: usize = 2_000;

/// Has `collect` called before each [`encode`], for what is counted elsewhere and only has to be read. It may use this module,
/// and is kept for the life of the process.
pub fn before_encode(collect: impl Fn() + Send + Sync + 'static) {
    lock(&COLLECTORS).push(Arc::new(collect));
}

type Collect = Arc<dyn Fn() + Send + Sync>;
static COLLECTORS: Mutex<Vec<Collect>> = Mutex::new(Vec::new());

/// Everything measured so far in the format that suits that `Accept` header, and its `content-type`: OpenMetrics with exemplars
/// where it is named and preferred, as Prometheus does, else the plain format 0.0.4, which has none.
pub fn encode_for(accept: Option<&str>) -> (&'static str, String) {
    text::encode_for(accept)
}

/// Everything measured so far, as OpenMetrics text with exemplars, ending in `# EOF`.
pub fn encode() -> String {
    // None of our locks is held meanwhile: they ask for families.
    let collectors = lock(&COLLECTORS).clone();
    collectors.iter().for_each(|collect| collect());
    let mut text = String::new();
    // Writing into a String cannot fail; a metric that fails to encode itself leaves what was written before it.
    if prometheus_client::encoding::text::encode(&mut text, &global().registry).is_err() {
        tracing::warn!("metrics could not be encoded completely");
    }
    text
}

/// A counter family. `name` is without `_total`, which the text format appends; `labels` are its label names.
pub fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> CounterFamily {
    CounterFamily(global().family(name, help, labels, |kinds| &mut kinds.counters, family::Family::default))
}

/// A gauge family.
pub fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> GaugeFamily {
    GaugeFamily(global().family(name, help, labels, |kinds| &mut kinds.gauges, family::Family::default))
}

/// A histogram family with those upper bounds (`+Inf` is implied). The bounds of the first call for a name hold.
pub fn histogram(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
) -> HistogramFamily {
    HistogramFamily(global().family(
        name,
        help,
        labels,
        |kinds| &mut kinds.histograms,
        || family::Family::new_with_constructor(Buckets(buckets)),
    ))
}

/// Counters that differ in their labels.
#[derive(Debug, Clone)]
pub struct CounterFamily(Family<RawCounter>);

impl CounterFamily {
    /// The series with those label values, in the order of the family's label names. Keep it where it is used often.
    pub fn with(&self, values: &[&str]) -> Counter {
        Counter(self.0.series(values))
    }

    /// Forgets a series whose subject is gone. A [`Counter`] of it that is still held counts unseen.
    pub fn remove(&self, values: &[&str]) {
        self.0.remove(values);
    }
}

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter(RawCounter);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn inc_by(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Gauges that differ in their labels.
#[derive(Debug, Clone)]
pub struct GaugeFamily(Family<RawGauge>);

impl GaugeFamily {
    /// The series with those label values, in the order of the family's label names.
    pub fn with(&self, values: &[&str]) -> Gauge {
        Gauge(self.0.series(values))
    }

    /// Forgets a series whose subject is gone.
    pub fn remove(&self, values: &[&str]) {
        self.0.remove(values);
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(RawGauge);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds to the number; a negative `amount` takes away.
    pub fn add(&self, amount: f64) {
        self.0.inc_by(amount);
    }

    /// The number now.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// Histograms that differ in their labels.
#[derive(Debug, Clone)]
pub struct HistogramFamily(Family<RawHistogram, Buckets>);

impl HistogramFamily {
    /// The series with those label values, in the order of the family's label names.
    pub fn with(&self, values: &[&str]) -> Histogram {
        Histogram(self.0.series(values))
    }
}

/// A distribution of values.
#[derive(Debug, Clone)]
pub struct Histogram(RawHistogram);

impl Histogram {
    /// Adds one value.
    pub fn observe(&self, value: f64) {
        self.0.observe(value, None, None);
    }

    /// Adds one value and, if the context's trace is sampled, makes it the exemplar of its bucket. A process that exports no
    /// spans gives no exemplars: they would point to traces that nobody has.
    pub fn observe_in(&self, value: f64, cx: &Context) {
        let span = cx.span();
        let span_context = span.span_context();
        let is_exemplary = span_context.is_valid() && span_context.is_sampled() && span::is_recorded();
        let exemplar = is_exemplary.then(|| ExemplarLabels {
            trace_id: span_context.trace_id(),
        });
        self.0.observe(value, exemplar, None);
    }
}

type RawCounter = counter::Counter;
type RawGauge = gauge::Gauge<f64, AtomicU64>;
type RawHistogram = HistogramWithExemplars<ExemplarLabels>;
type RawFamily<M, C = fn() -> M> = family::Family<LabelSet, M, C>;

/// How a histogram family makes its members.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<RawHistogram> for Buckets {
    fn new_metric(&self) -> RawHistogram {
        HistogramWithExemplars::new(self.0.iter().copied())
    }
}

#[derive(Debug, Clone)]
struct Family<M, C = fn() -> M> {
    labels: &'static [&'static str],
    raw: RawFamily<M, C>,
    /// The series made so far; guards [`MAX_SERIES`].
    count: std::sync::Arc<Mutex<usize>>,
}

impl<M: Clone, C: MetricConstructor<M>> Family<M, C> {
    fn series(&self, values: &[&str]) -> M {
        let labels = LabelSet::new(self.labels, values);
        if let Some(found) = self.raw.get(&labels) {
            return found.clone();
        }
        let mut count = lock(&self.count);
        if *count >= MAX_SERIES {
            return self.raw.get_or_create_owned(&LabelSet::other(self.labels));
        }
        *count += 1;
        self.raw.get_or_create_owned(&labels)
    }

    fn remove(&self, values: &[&str]) {
        let mut count = lock(&self.count);
        if self.raw.remove(&LabelSet::new(self.labels, values)) {
            *count = count.saturating_sub(1);
        }
    }
}

struct Global {
    registry: registry::Registry,
    kinds: Kinds,
}

impl Default for Global {
    fn default() -> Self {
        let mut registry = registry::Registry::default();
        registry.register_collector(Box::new(process::Figures));
        Self {
            registry,
            kinds: Kinds::default(),
        }
    }
}

#[derive(Default)]
struct Kinds {
    counters: HashMap<&'static str, Family<RawCounter>>,
    gauges: HashMap<&'static str, Family<RawGauge>>,
    histograms: HashMap<&'static str, Family<RawHistogram, Buckets>>,
}

impl Global {
    fn family<M, C>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        of_kind: impl Fn(&mut Kinds) -> &mut HashMap<&'static str, Family<M, C>>,
        make: impl FnOnce() -> RawFamily<M, C>,
    ) -> Family<M, C>
    where
        M: EncodeMetric + TypedMetric + Clone + std::fmt::Debug + Send + Sync + 'static,
        C: MetricConstructor<M> + Clone + Send + Sync + 'static,
    {
        if let Some(found) = of_kind(&mut self.kinds).get(name) {
            debug_assert_eq!(found.labels, labels, "{name} is asked for with two sets of labels");
            return found.clone();
        }
        let family = Family {
            labels,
            raw: make(),
            count: std::sync::Arc::default(),
        };
        // The registry ends the sentence itself.
        self.registry
            .register(name, help.trim_end_matches('.'), family.raw.clone());
        of_kind(&mut self.kinds).insert(name, family.clone());
        family
    }
}

fn global() -> MutexGuard<'static, Global> {
    static GLOBAL: LazyLock<Mutex<Global>> = LazyLock::new(Mutex::default);
    lock(&GLOBAL)
}

/// A panic while holding the lock leaves counts that are at worst off by one; measuring goes on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_twice_gives_the_same_family() {
        counter("test_asked_twice", "Counts.", &["kind"]).with(&["a"]).inc();
        counter("test_asked_twice", "Counts.", &["kind"]).with(&["a"]).inc_by(2);
        let text = encode();
        assert!(text.contains("test_asked_twice_total{kind=\"a\"} 3\n"), "{text}");
        assert_eq!(text.matches("# TYPE test_asked_twice ").count(), 1, "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn gauges_move_both_ways_and_can_be_forgotten() {
        let family = gauge("test_gauge", "Level.", &["of"]);
        let level = family.with(&["tank"]);
        level.set(5.0);
        level.add(-1.5);
        assert!(encode().contains("test_gauge{of=\"tank\"} 3.5\n"));
        family.remove(&["tank"]);
        assert!(!encode().contains("test_gauge{"));
    }

    #[test]
    fn what_is_counted_elsewhere_is_read_before_each_scrape() {
        before_encode(|| counter("test_collected", "Scrapes.", &[]).with(&[]).inc());
        encode();
        let before = counter("test_collected", "Scrapes.", &[]).with(&[]).get();
        assert!(encode().contains("test_collected_total{} "));
        assert!(counter("test_collected", "Scrapes.", &[]).with(&[]).get() > before);
    }

    #[test]
    fn a_family_does_not_grow_without_bound() {
        let family = counter("test_bounded", "Counts.", &["id"]);
        for id in 0..MAX_SERIES + 50 {
            family.with(&[&id.to_string()]).inc();
        }
        assert!(encode().contains("test_bounded_total{id=\"_OTHER\"} 50\n"));
    }

    /// With export off every trace carries the sampled flag, so that others may record it, and every observation kept the id
    /// of a trace that could not be found anywhere. This binary never installs an exporter.
    #[test]
    fn without_an_exporter_there_are_no_exemplars() {
        let cx = crate::propagation::ensure_trace(&Context::new());
        let seconds = histogram("test_seconds", "Durations.", &[], &[0.1, 1.0]).with(&[]);
        seconds.observe(0.05);
        seconds.observe_in(0.5, &cx);
        let text = encode();
        assert!(text.contains("test_seconds_bucket{le=\"0.1\"} 1\n"), "{text}");
        assert!(text.contains("test_seconds_bucket{le=\"1.0\"} 2\n"), "{text}");
    }

    #[test]
    fn label_values_are_escaped() {
        counter("test_escaped", "Counts.", &["v"]).with(&["a\"b\\c\nd"]).inc();
        assert!(
            encode().contains(r#"test_escaped_total{v="a\"b\\c\nd"} 1"#),
            "{}",
            encode()
        );
    }
}
