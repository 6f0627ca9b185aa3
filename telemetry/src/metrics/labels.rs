//! Label sets: names that code fixes, values that a series owns.

use std::fmt;

use opentelemetry::trace::TraceId;
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

use crate::semconv::OTHER;

/// The labels of one series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LabelSet {
    names: &'static [&'static str],
    values: Box<[Box<str>]>,
}

impl LabelSet {
    /// A missing value reads as empty and a surplus one is dropped: metrics never fail their caller.
    pub(super) fn new(names: &'static [&'static str], values: &[&str]) -> Self {
        debug_assert_eq!(names.len(), values.len(), "one value for each of {names:?}");
        let value = |index| values.get(index).copied().unwrap_or_default();
        Self {
            names,
            values: (0..names.len()).map(|index| value(index).into()).collect(),
        }
    }

    /// The series that stands for all that are too many.
    pub(super) fn other(names: &'static [&'static str]) -> Self {
        Self {
            names,
            values: names.iter().map(|_| OTHER.into()).collect(),
        }
    }
}

impl EncodeLabelSet for LabelSet {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.names.iter().zip(&self.values) {
            (*name, &**value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// What an exemplar points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ExemplarLabels {
    pub(super) trace_id: TraceId,
}

impl EncodeLabelSet for ExemplarLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("trace_id", self.trace_id.to_string()).encode(encoder.encode_label())
    }
}
