//! The log: every group that was committed, in order, until it is both in a run and too old for the history.

use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::Fault;
use crate::{
    catalog::Batch,
    model::Revision,
    store::{
        record,
        succession::{Broken, Succession},
    },
};

/// last revision of a group, or of a part of one → what was compacted then, the batches. It is never empty after the first commit: its last key is
/// the store's revision.
pub(super) const LOG: TableDefinition<'_, u64, (u64, &[u8])> = TableDefinition::new("log");

/// Its last entry.
pub(super) fn newest(table: &impl ReadableTable<u64, (u64, &'static [u8])>) -> Result<(Revision, Revision), Fault> {
    Ok(match table.last()? {
        Some((revision, value)) => (Revision::new(revision.value()), Revision::new(value.value().0)),
        None => (Revision::ZERO, Revision::ZERO),
    })
}

/// What becomes one entry, unless a single batch is more. Each takes a page of the next power of two, and is trimmed, read and
/// saved as a whole; a mass expiry is a group of any size.
const ENTRY_BYTES: usize = 4 * 1024 * 1024;

/// What a group is appended as: entries, each with its last revision. They belong in one transaction.
pub(super) fn entries(batches: &[Arc<Batch>]) -> Vec<(Revision, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut rest = batches;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|batch| {
            bytes += batch.bytes() + batch.lease_bytes();
            bytes <= ENTRY_BYTES
        });
        let (entry, after) = rest.split_at(fits.count().max(1));
        if let Some(last) = entry.last() {
            entries.push((last.revision, record::encode_group(entry)));
        }
        rest = after;
    }
    entries
}

/// Makes the table.
pub(super) fn make(write: &WriteTransaction) -> Result<(), Fault> {
    write.open_table(LOG)?;
    Ok(())
}

/// Adds an entry.
pub(super) fn append(
    write: &WriteTransaction,
    newest: Revision,
    compacted: Revision,
    group: &[u8],
) -> Result<(), Fault> {
    write.open_table(LOG)?.insert(newest.get(), (compacted.get(), group))?;
    Ok(())
}

/// Gives the batches after `after`, in order, and says how many bytes their groups have.
pub(super) fn replay(
    table: &impl ReadableTable<u64, (u64, &'static [u8])>,
    after: Revision,
    mut each: impl FnMut(Batch, usize),
) -> Result<(), Fault> {
    let mut succession = Succession::after(after);
    for entry in table.range(after.next().get()..)? {
        let (last, value) = entry?;
        let (_, group) = value.value();
        // Its bytes count once, with the first of its batches.
        let mut bytes = group.len();
        for batch in succession.group(Revision::new(last.value()), group)? {
            each(batch, std::mem::take(&mut bytes));
        }
    }
    Ok(())
}

/// Forgets the groups that end at or before a revision; the newest one stays.
pub(super) fn trim(write: &WriteTransaction, upto: Revision) -> Result<(), Fault> {
    let mut table = write.open_table(LOG)?;
    let (newest, _) = newest(&table)?;
    loop {
        let oldest = table.first()?.map(|(last, _)| last.value());
        match oldest {
            Some(oldest) if oldest <= upto.get() && oldest < newest.get() => table.pop_first()?,
            _ => return Ok(()),
        };
    }
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Record(last, why) => Self::Record(format!("revision {last}"), why),
            Broken::Missing(revision) => Self::damaged(format!("revision {revision}"), "it is missing"),
        }
    }
}
