//! The spans of changes that a watch brings: each begins when the change is heard and ends when the owner goes by it, in the
//! trace of the call that asked for it.

use std::collections::VecDeque;

use telemetry::{
    KeyValue, TraceParent, semconv,
    work::{Kind, Work},
};

/// Spans that may be open. An owner applies a set within milliseconds or never says so; of more changes than this at once the
/// first ends as it is.
const OPEN: usize = 16;

/// See the module. Of one watcher.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// With the publication that the owner has to apply, oldest first.
    open: VecDeque<(u64, Work)>,
    /// The last that was applied and is to be acknowledged.
    acknowledged: Option<Work>,
}

impl Changes {
    /// A change was heard; `publication` is the set that has it.
    pub(crate) fn heard(
        &mut self,
        cause: TraceParent,
        service: &str,
        revision: i64,
        takes_out: bool,
        publication: u64,
    ) {
        let span = Work::begin(Kind::Consumer, format!("apply {service}"), &cause.context(), || {
            vec![
                KeyValue::new(semconv::MESSAGING_SYSTEM, semconv::MESSAGING_SYSTEM_REGISTRY),
                KeyValue::new(semconv::MESSAGING_OPERATION_TYPE, "process"),
                KeyValue::new(semconv::MESSAGING_DESTINATION_NAME, service.to_owned()),
                KeyValue::new(semconv::REVISION, revision),
                KeyValue::new(semconv::WATCH_TAKES_OUT, takes_out),
            ]
        });
        if !span.is_recorded() {
            return;
        }
        if self.open.len() == OPEN {
            self.open.pop_front();
        }
        self.open.push_back((publication, span));
    }

    /// The owner goes by all publications up to this one.
    pub(crate) fn applied(&mut self, publication: u64) {
        while self.open.front().is_some_and(|(number, _)| *number <= publication)
            && let Some((_, span)) = self.open.pop_front()
        {
            span.event("applied", Vec::new);
            // The last one's acknowledgement stands for all before it. Its span ends when that is answered.
            self.acknowledged = Some(span);
        }
    }

    /// What an acknowledgement belongs to that begins now.
    pub(crate) fn take_acknowledged(&mut self) -> Work {
        self.acknowledged.take().unwrap_or(Work::NONE)
    }

    /// Nothing is to be acknowledged: what was applied is over.
    pub(crate) fn settle(&mut self) {
        self.acknowledged = None;
    }
}
