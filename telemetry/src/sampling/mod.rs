//! Which traces are recorded. The root decides, by a share or by a number a second, and everybody behind it follows; a call that
//! goes wrong or takes long in a trace that is not recorded may still be told, late and by itself ([`Late`]).
//!
//! [`Settings`] is what the environment says; nothing else is read from it here. The decision comes before a span is described: what
//! is not recorded costs no attributes, and no span.

mod adaptive;
mod late;
pub(crate) mod sdk;
mod settings;

use std::time::Duration;

use opentelemetry::trace::{SpanContext, TraceId};

use self::adaptive::Adaptive;
pub(crate) use self::{late::Late, settings::Settings};

/// How a trace without a parent is decided on.
#[derive(Debug)]
enum Rule {
    All,
    None,
    /// OpenTelemetry's `TraceIdRatioBased`: traces whose id is below this bound, so that all who have the same share agree.
    Ratio(u64),
    /// So many a second.
    PerSecond(Adaptive),
}

/// What is recorded, and if that was a matter of a changing chance, of which one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) probability: Option<f32>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Sampling {
    rule: Rule,
    /// Whether a parent's decision counts (`parentbased_...`).
    follows: bool,
}

impl Sampling {
    pub(crate) fn new(settings: &Settings) -> Self {
        use settings::Root;
        Self {
            rule: match settings.root {
                Root::All => Rule::All,
                Root::None => Rule::None,
                // 1.0 would be 2^63, which no id reaches: all.
                Root::Ratio(share) => Rule::Ratio((share.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64),
                Root::PerSecond(target) => Rule::PerSecond(Adaptive::new(target)),
            },
            follows: settings.follows,
        }
    }

    /// Whether a span of that trace under that parent is recorded, at a time since any fixed moment.
    pub(crate) fn decides(
        &self,
        parent: &SpanContext,
        trace: TraceId,
        now: impl FnOnce() -> Duration,
    ) -> Option<Recorded> {
        let always = Some(Recorded { probability: None });
        if self.follows && parent.is_valid() {
            return always.filter(|_| parent.is_sampled());
        }
        match &self.rule {
            Rule::All => always,
            Rule::None => None,
            Rule::Ratio(bound) => always.filter(|_| draw(trace) < *bound),
            Rule::PerSecond(_) if parent.is_valid() => always.filter(|_| parent.is_sampled()),
            Rule::PerSecond(adaptive) => {
                let draw = draw(trace) as f32 / (1_u64 << 63) as f32;
                let probability = adaptive.takes(draw, now())?;
                Some(Recorded {
                    probability: Some(probability),
                })
            }
        }
    }
}

/// The random part of a trace id that SDKs draw by: 63 bits of its last eight bytes.
fn draw(trace: TraceId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = trace.to_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Sampling {
        let get = |name: &str| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let mut warnings = Vec::new();
        let sampling = Sampling::new(&Settings::read(&get, &mut warnings));
        assert!(warnings.is_empty(), "{warnings:?}");
        sampling
    }

    fn parent(flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(7), SpanId::from(7), flags, true, TraceState::NONE)
    }

    fn takes(sampling: &Sampling, parent: &SpanContext) -> bool {
        let trace = if parent.is_valid() {
            parent.trace_id()
        } else {
            TraceId::from(1 << 62)
        };
        sampling.decides(parent, trace, || Duration::ZERO).is_some()
    }

    #[test]
    fn parents_are_followed_where_that_is_asked_for() {
        let (sampled, not, none) = (
            parent(TraceFlags::SAMPLED),
            parent(TraceFlags::NOT_SAMPLED),
            SpanContext::NONE,
        );
        for (sampler, expected) in [
            ("", [true, false, true]),
            ("parentbased_always_on", [true, false, true]),
            ("parentbased_always_off", [true, false, false]),
            ("parentbased_traceidratio", [true, false, true]),
            ("always_on", [true, true, true]),
            ("always_off", [false, false, false]),
            ("traceidratio", [true, true, true]),
        ] {
            let sampling = of(&[("OTEL_TRACES_SAMPLER", sampler)]);
            let found = [&sampled, &not, &none].map(|parent| takes(&sampling, parent));
            assert_eq!(found, expected, "{sampler:?}");
        }
        let by_target = of(&[("TESSERA_TRACES_PER_SECOND", "5")]);
        assert_eq!(
            [&sampled, &not, &none].map(|parent| takes(&by_target, parent)),
            [true, false, true]
        );
    }

    /// A trace crosses services with other SDKs: the same share of the same ids has to be theirs, too.
    #[test]
    fn a_share_is_the_very_share_that_the_sdk_takes() {
        let sampling = of(&[
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let sdk = Sampler::TraceIdRatioBased(0.25);
        let mut taken = 0;
        for n in 0..4_000_u128 {
            let trace = TraceId::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
            let ours = sampling.decides(&SpanContext::NONE, trace, || Duration::ZERO).is_some();
            let kind = opentelemetry::trace::SpanKind::Server;
            let theirs = sdk.should_sample(None, trace, "", &kind, &[], &[]).decision;
            assert_eq!(ours, theirs == SamplingDecision::RecordAndSample, "{trace}");
            taken += u32::from(ours);
        }
        assert!((900..1_100).contains(&taken), "{taken}");
    }
}
