//! The groups of a history: each begins where the one before it has ended.

use super::record::{Decoder, RecordError};
use crate::{catalog::Batch, model::Revision};

/// See the module.
#[derive(Debug)]
pub(super) struct Succession {
    decoder: Decoder,
    expected: Revision,
}

/// What is wrong with a history.
#[derive(Debug)]
pub(super) enum Broken {
    /// A group, by its last revision, does not read back.
    Record(Revision, RecordError),
    /// A revision is not there.
    Missing(Revision),
}

impl Succession {
    /// The first group has what comes after a revision; it may begin before.
    pub(super) fn after(revision: Revision) -> Self {
        Self {
            decoder: Decoder::default(),
            expected: revision.next(),
        }
    }

    /// The next that is expected.
    pub(super) fn expected(&self) -> Revision {
        self.expected
    }

    /// What is new in the next group, which ends with `last`.
    pub(super) fn group(&mut self, last: Revision, group: &[u8]) -> Result<Vec<Batch>, Broken> {
        let mut batches = self.decoder.group(group).map_err(|why| Broken::Record(last, why))?;
        batches.retain(|batch| batch.revision >= self.expected);
        for batch in &batches {
            if batch.revision != self.expected {
                return Err(Broken::Missing(self.expected));
            }
            self.expected = self.expected.next();
        }
        if self.expected != last.next() {
            return Err(Broken::Missing(self.expected));
        }
        Ok(batches)
    }
}
