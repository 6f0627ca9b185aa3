//! What the file says when it is opened, and how a file gets its tables.

use std::path::Path;

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};

use super::{
    fault::Fault,
    format_1,
    log::{self, LOG},
    runs::Runs,
};
use crate::model::{HistoryId, Revision};

/// The newest that this code reads and writes. A higher one is refused, not guessed at.
pub(super) const FORMAT: u64 = 3;
/// What a store begins with; a lower one is converted. It is of [`FORMAT`] from its first override on, which a version that knows
/// none would lose: who never lays any over an instance can go back to that version.
pub(super) const PLAIN: u64 = 2;

/// Numbers, by the keys below.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// See [`FORMAT`].
pub(super) const META_FORMAT: &str = "format";
/// The history's name.
pub(super) const META_HISTORY: &str = "history";
/// Up to and with this revision everything is in the runs.
pub(super) const META_FLUSHED: &str = "flushed";

/// See the module.
#[derive(Debug)]
pub(super) struct Tables {
    /// The history's name.
    pub(super) history_id: HistoryId,
    /// The log's last.
    pub(super) revision: Revision,
    /// The last that the history no longer has.
    pub(super) compacted: Revision,
    /// Up to and with this one everything is in the runs.
    pub(super) flushed: Revision,
    /// Those.
    pub(super) runs: Runs,
}

impl Tables {
    /// What is there; `None` if something has to be made first. A store on a full disk can be opened, and read.
    pub(super) fn read(read: &ReadTransaction) -> Result<Option<Self>, Fault> {
        let meta = match read.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            meta => meta?,
        };
        let number = |key| -> Result<Option<u64>, Fault> { Ok(meta.get(key)?.map(|number| number.value())) };
        let (Some(PLAIN | FORMAT), Some(history_id)) = (number(META_FORMAT)?, number(META_HISTORY)?) else {
            return Ok(None);
        };
        let (revision, compacted) = log::newest(&read.open_table(LOG)?)?;
        Ok(Some(Self {
            history_id: HistoryId::from_random(history_id),
            revision,
            compacted,
            flushed: Revision::new(number(META_FLUSHED)?.unwrap_or(0)),
            runs: Runs::read(read)?,
        }))
    }

    /// Checks the format, names the history and makes the tables. The directory and the room that it has are for a conversion.
    pub(super) fn prepare(write: &WriteTransaction, directory: &Path, free: Option<u64>) -> Result<Self, Fault> {
        let found = write.open_table(META)?.get(META_FORMAT)?.map(|format| format.value());
        match found {
            // Its tables may be of other types: touch none of them.
            Some(found) if found > FORMAT => return Err(Fault::NewerFormat(found)),
            Some(PLAIN | FORMAT) | None => {}
            Some(_) => format_1::convert(write, directory, free)?,
        }
        let (revision, compacted) = log::newest(&write.open_table(LOG)?)?;
        let runs = Runs::open(write)?;
        let mut meta = write.open_table(META)?;
        if found.is_none_or(|found| found < PLAIN) {
            meta.insert(META_FORMAT, PLAIN)?;
        }
        // A store of a version that gave it no name is named now: from here on its revisions are told from others.
        let named = meta.get(META_HISTORY)?.map(|id| id.value());
        let history_id = match named {
            Some(id) => id,
            None => {
                let id = rand::random::<u64>();
                meta.insert(META_HISTORY, id)?;
                id
            }
        };
        let flushed = meta.get(META_FLUSHED)?.map_or(0, |flushed| flushed.value());
        Ok(Self {
            history_id: HistoryId::from_random(history_id),
            revision,
            compacted,
            flushed: Revision::new(flushed),
            runs,
        })
    }
}
