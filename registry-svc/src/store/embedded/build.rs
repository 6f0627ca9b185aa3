//! A store's tables, made of what something else holds: one run, and a log.

use redb::WriteTransaction;

use super::{
    Fault, META, META_FLUSHED, log,
    runs::{Put, Runs, Strides},
};
use crate::model::Revision;

/// Takes in what a store is to hold.
pub(super) struct Builder<'a, 'p> {
    write: &'a WriteTransaction,
    put: &'a mut Put<'p>,
    compacted: Revision,
    newest: Revision,
}

impl Builder<'_, '_> {
    /// The next record by key.
    pub(super) fn put(&mut self, key: &[u8], record: &[u8]) -> Result<(), Fault> {
        (self.put)(key, Some(record))
    }

    /// The next group of the history.
    pub(super) fn past(&mut self, last: Revision, group: &[u8]) -> Result<(), Fault> {
        self.newest = last;
        log::append(self.write, last, self.compacted, group)
    }
}

/// Makes the tables, all but the format and the history's name.
pub(super) fn build<E: From<Fault>>(
    write: &WriteTransaction,
    revision: Revision,
    compacted: Revision,
    fill: impl FnOnce(&mut Builder<'_, '_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut newest = Revision::ZERO;
    Runs::open(write)?.add(Strides::default(), write, |put| {
        let mut builder = Builder {
            write,
            put,
            compacted,
            newest,
        };
        fill(&mut builder)?;
        newest = builder.newest;
        Ok::<_, E>(())
    })?;
    log::make(write)?;
    // Its revision is the log's last, also where the history has nothing of it.
    if newest < revision {
        log::append(write, revision, compacted, &[])?;
    }
    let mut meta = write.open_table(META).map_err(Fault::from)?;
    meta.insert(META_FLUSHED, revision.get()).map_err(Fault::from)?;
    Ok(())
}
