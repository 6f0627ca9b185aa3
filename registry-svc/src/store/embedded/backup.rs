//! A backup of the embedded store, taken while others commit, and a store made from one.
//!
//! redb's readers see one revision for as long as they live, and hold nobody up. The pages that they see are not used again
//! meanwhile, so a backup must not take for ever.

use std::{
    fs::File,
    io::{self, BufReader},
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, Weak},
};

use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use super::{
    FILE, FORMAT, Fault, LOG, META, META_FLUSHED, META_FORMAT, META_HISTORY, RUNS, Recent, Runs, Strides,
    load::{self, Found},
    log, names, recent,
};
use crate::{
    model::{HistoryId, Revision, WallTime},
    store::{
        Backup, BackupError,
        archive::{self, Archive, ArchiveError, Contents, Head, Part},
        record::{self, Decoder},
    },
};

/// The database as it is opened now: after a full disk it is another one.
#[derive(Debug, Clone, Default)]
pub(super) struct Source(Arc<Mutex<Weak<Database>>>);

impl Source {
    /// From now on it is this one.
    pub(super) fn is(&self, database: &Arc<Database>) {
        if let Ok(mut current) = self.0.lock() {
            *current = Arc::downgrade(database);
        }
    }

    /// From now on there is none, and nobody holds the one that was. Readers that have begun fail when it is dropped.
    pub(super) fn is_closed(&self) {
        if let Ok(mut current) = self.0.lock() {
            *current = Weak::new();
        }
    }

    fn begin(&self) -> Result<ReadTransaction, Fault> {
        // Under the lock: a database that somebody still holds cannot be opened again.
        let current = self.0.lock().map_err(|_| redb::Error::PreviousIo)?;
        let database = current.upgrade().ok_or(redb::Error::PreviousIo)?;
        Ok(database.begin_read()?)
    }
}

impl Backup for Source {
    fn write(&self, taken: WallTime, to: &mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> Result<(), BackupError> {
        write(&self.begin()?, taken, to)
    }
}

/// Writes what a transaction sees.
fn write(
    read: &ReadTransaction,
    taken: WallTime,
    to: &mut dyn FnMut(Vec<u8>) -> io::Result<()>,
) -> Result<(), BackupError> {
    let number = |key| -> Result<u64, Fault> {
        let found = read.open_table(META)?.get(key)?;
        Ok(found.map_or(0, |number| number.value()))
    };
    let flushed = Revision::new(number(META_FLUSHED)?);
    let log = read.open_table(LOG).map_err(Fault::from)?;
    let (revision, compacted) = log::newest(&log)?;
    // What this costs in memory is bounded as the log is that is in no run.
    let mut recent = Recent::default();
    log::replay(&log, flushed, |batch, _| recent.apply(&batch))?;

    let head = Head {
        history_id: HistoryId::from_random(number(META_HISTORY)?),
        revision,
        compacted,
        taken,
    };
    let mut archive = Archive::begin(to, head)?;
    let table = read.open_table(RUNS).map_err(Fault::from)?;
    let mut failed = None;
    load::for_each_living(&Runs::read(read)?, &table, &recent, |key, found| {
        let encoded;
        let record = match found {
            Found::Stored(record) => record,
            Found::Known(entry) => {
                encoded = entry.encode().unwrap_or_default();
                &encoded
            }
        };
        let written = match recent::lease_of(key) {
            Some(id) => archive.lease(id, record),
            None => archive.instance(record),
        };
        Ok(match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    for entry in log.range(compacted.next().get()..).map_err(Fault::from)? {
        let (last, group) = entry.map_err(Fault::from)?;
        archive.past(Revision::new(last.value()), group.value().1)?;
    }
    Ok(archive.end()?)
}

/// Makes a store of a backup, in a directory without anything in it. The store has a new name: what its revisions count from
/// here on is not what those of the old one counted, and a client that has seen more of that than the backup must notice.
pub(crate) fn restore(file: &Path, directory: &Path) -> Result<Contents, BackupError> {
    // The whole of it first: what is damaged makes no directory.
    verify(file)?;
    let made = names::make(directory)?;
    if std::fs::read_dir(directory)?.next().is_some() {
        return Err(BackupError::NotEmpty);
    }
    // Under another name until it is all there.
    let (unfinished, finished) = (directory.join("registry.restoring"), directory.join(FILE));
    let contents = fill(file, &unfinished).inspect_err(|_| {
        // What is left of it would only be in the way of the next try, which says so.
        let _ = std::fs::remove_file(&unfinished);
    })?;
    std::fs::rename(&unfinished, &finished)?;
    names::sync(directory, made)?;
    Ok(contents)
}

/// Reads a backup to its end, and every record of it.
pub(crate) fn verify(file: &Path) -> Result<Contents, BackupError> {
    let mut decoder = Decoder::default();
    archive::read(BufReader::new(File::open(file)?), |part| -> Result<(), BackupError> {
        check(&mut decoder, part)?;
        Ok(())
    })
}

/// The key of a record that reads back.
fn check(decoder: &mut Decoder, part: Part<'_>) -> Result<Box<[u8]>, ArchiveError> {
    let damaged = |error: record::RecordError| ArchiveError::Damaged(error.to_string());
    Ok(match part {
        Part::Instance(record) => recent::instance_key(&decoder.instance(record).map_err(damaged)?.key),
        Part::Lease(record) => recent::lease_key(decoder.whole_lease(record).map_err(damaged)?.id),
        Part::Past(_, group) => {
            decoder.group(group).map_err(damaged)?;
            Box::default()
        }
        Part::Head(_) => Box::default(),
    })
}

fn fill(file: &Path, to: &Path) -> Result<Contents, BackupError> {
    let database = Database::builder()
        .set_cache_size(super::CACHE_BYTES)
        .create(to)
        .map_err(|error| Fault::Engine(error.into()))?;
    let write = database.begin_write().map_err(Fault::from)?;
    let contents = copy(file, &write)?;
    write.commit().map_err(Fault::from)?;
    Ok(contents)
}

fn copy(file: &Path, write: &WriteTransaction) -> Result<Contents, BackupError> {
    let file = BufReader::new(File::open(file)?);
    let mut decoder = Decoder::default();
    let mut contents = None;
    let mut failed = None;
    Runs::open(write)?.add(Strides::default(), write, |put| {
        let mut head = None;
        let mut newest = Revision::ZERO;
        let read = archive::read(file, |part| -> Result<(), BackupError> {
            let key = check(&mut decoder, part)?;
            match part {
                Part::Head(found) => head = Some(found),
                Part::Instance(record) | Part::Lease(record) => put(&key, Some(record))?,
                Part::Past(last, group) => {
                    newest = last;
                    let compacted = head.map_or(Revision::ZERO, |head| head.compacted);
                    log::append(write, last, compacted, group)?;
                }
            }
            Ok(())
        });
        match read {
            Ok(read) => {
                // Its revision is the log's last, also where the history has nothing of it.
                let Head {
                    revision, compacted, ..
                } = read.head;
                if newest < revision {
                    log::append(write, revision, compacted, &[])?;
                }
                contents = Some(read);
            }
            Err(error) => failed = Some(error),
        }
        Ok(())
    })?;
    match (contents, failed) {
        (Some(contents), None) => {
            write.open_table(LOG).map_err(Fault::from)?;
            let mut meta = write.open_table(META).map_err(Fault::from)?;
            let numbers = [
                (META_FORMAT, FORMAT),
                (META_HISTORY, rand::random()),
                (META_FLUSHED, contents.head.revision.get()),
            ];
            for (key, number) in numbers {
                meta.insert(key, number).map_err(Fault::from)?;
            }
            Ok(contents)
        }
        (_, Some(error)) => Err(error),
        (None, None) => Err(ArchiveError::Damaged("it has no end".to_owned()).into()),
    }
}

impl From<Fault> for BackupError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Engine(redb::Error::Io(error)) => Self::Io(error),
            other => Self::Store(other.to_string()),
        }
    }
}
