//! Whether what a backup holds is a state that a registry can start from: its records read back and are in order, each instance
//! has its lease, and the history has no gap.

use std::{collections::HashSet, io::Read};

use super::{ArchiveError, Contents, Head, Part, damaged, read};
use crate::{
    model::{InstanceKey, LeaseId, Revision},
    store::{
        record::{Decoder, RecordError},
        succession::{Broken, Succession},
    },
};

/// Goes along with a backup that is read.
#[derive(Debug, Default)]
pub(crate) struct Check {
    decoder: Decoder,
    head: Option<(Head, Succession)>,
    last: Option<Key>,
    /// Leases of instances, until they have come.
    wanted: HashSet<LeaseId>,
}

/// What a record is of, in the order that they come in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// An instance.
    Instance(InstanceKey),
    /// A lease.
    Lease(LeaseId),
    /// What is laid over an instance.
    Override(InstanceKey),
}

/// Reads a backup to its end, and every record in it.
pub(crate) fn verify(from: impl Read) -> Result<Contents, ArchiveError> {
    let mut check = Check::default();
    let contents = read(from, |part| check.part(part).map(drop))?;
    check.end()?;
    Ok(contents)
}

impl Check {
    /// The key of a record; `None` for what is none.
    pub(crate) fn part(&mut self, part: Part<'_>) -> Result<Option<&Key>, ArchiveError> {
        let damage = |error: RecordError| damaged::<ArchiveError>(&error.to_string());
        let key = match part {
            Part::Head(head) => {
                self.head = Some((head, Succession::after(head.compacted)));
                return Ok(None);
            }
            Part::Past(last, group) => {
                let (_, past) = self
                    .head
                    .as_mut()
                    .ok_or_else(|| damaged::<ArchiveError>("it has no head"))?;
                past.group(last, group).map_err(|broken| match broken {
                    Broken::Record(_, why) => damage(why),
                    Broken::Missing(revision) => missing(revision),
                })?;
                return Ok(None);
            }
            Part::Instance(record) => {
                let instance = self.decoder.instance(record).map_err(damage)?;
                self.wanted.insert(instance.lease);
                Key::Instance(instance.key)
            }
            Part::Lease(record) => {
                let lease = self.decoder.whole_lease(record).map_err(damage)?;
                self.wanted.remove(&lease.id);
                Key::Lease(lease.id)
            }
            Part::Override(record) => Key::Override(self.decoder.laid(record).map_err(damage)?.key),
        };
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(damaged("its records are not in order"));
        }
        Ok(Some(self.last.insert(key)))
    }

    /// All has come.
    pub(crate) fn end(&self) -> Result<(), ArchiveError> {
        if let Some(lease) = self.wanted.iter().next() {
            return Err(damaged(&format!("an instance's lease {lease} is missing")));
        }
        match &self.head {
            Some((head, past)) if past.expected() != head.revision.next() => Err(missing(past.expected())),
            _ => Ok(()),
        }
    }
}

fn missing(revision: Revision) -> ArchiveError {
    damaged(&format!("revision {revision} is missing"))
}
