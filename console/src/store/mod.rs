//! The time series on disk: one redb file. A batch of changes is one transaction, durable when `write` returns; a crash leaves the
//! last batch that was. Knows tables, not what the changes mean.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};

use crate::monitor::{Change, Key, Level, Packed, ReporterId, Seen, Side};

/// By level, slot and series: what is forgotten together lies together.
const POINTS: TableDefinition<'_, (u8, u32, u32), &[u8]> = TableDefinition::new("points");
/// Side, caller, callee, method and instance of each series.
const SERIES: TableDefinition<'_, u32, (u8, &str, &str, &str, &str)> = TableDefinition::new("series");
/// How far each reporter was heard, and when.
const REPORTERS: TableDefinition<'_, u128, (u64, u64)> = TableDefinition::new("reporters");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
/// Raised when an older program could no longer read the file.
const THIS_FORMAT: u64 = 1;
/// redb's own default is 1 GiB, for a file that is read once.
const CACHE_BYTES: usize = 8 << 20;

/// The file.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another monitor writes it.
    #[error("another process has it open; stop it, or pass another --store")]
    Taken,
    /// It was written by a newer program.
    #[error("it has format {0}, and this program knows {THIS_FORMAT} at the most; use the program that wrote it")]
    Newer(u64),
    /// What is in it makes no sense.
    #[error("it holds a {0} that cannot be read; move it away to begin anew")]
    Corrupt(&'static str),
    /// The disk, or the file's own structure.
    #[error(transparent)]
    Engine(Box<redb::Error>),
}

impl Store {
    /// Opens the file, or makes it. A file that was not closed in order is brought to its last transaction.
    pub(crate) fn open(file: &Path) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        let database = builder
            .set_cache_size(CACHE_BYTES)
            .create(file)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::Taken,
                error => engine(error),
            })?;
        let write = database.begin_write().map_err(engine)?;
        {
            let mut meta = write.open_table(META).map_err(engine)?;
            let format = meta.get(FORMAT).map_err(engine)?.map(|format| format.value());
            match format {
                Some(format) if format > THIS_FORMAT => return Err(StoreError::Newer(format)),
                Some(_) => {}
                None => drop(meta.insert(FORMAT, THIS_FORMAT).map_err(engine)?),
            }
            // So that a reader finds them.
            write.open_table(POINTS).map_err(engine)?;
            write.open_table(SERIES).map_err(engine)?;
            write.open_table(REPORTERS).map_err(engine)?;
        }
        write.commit().map_err(engine)?;
        Ok(Self { database })
    }

    /// Everything that was written, series before their points.
    pub(crate) fn load(&self, mut each: impl FnMut(Change)) -> Result<(), StoreError> {
        let read = self.database.begin_read().map_err(engine)?;
        for row in read.open_table(SERIES).map_err(engine)?.iter().map_err(engine)? {
            let (id, key) = row.map_err(engine)?;
            let (side, caller, callee, method, instance) = key.value();
            let key = Key {
                side: Side::of_number(side).ok_or(StoreError::Corrupt("series"))?,
                caller: caller.into(),
                callee: callee.into(),
                method: method.into(),
                instance: instance.into(),
            };
            each(Change::Series(id.value(), key));
        }
        for row in read.open_table(POINTS).map_err(engine)?.iter().map_err(engine)? {
            let (at, bytes) = row.map_err(engine)?;
            let (level, slot, id) = at.value();
            let level = Level::of_number(level).ok_or(StoreError::Corrupt("resolution"))?;
            let packed = Packed::read(bytes.value()).map_err(|_| StoreError::Corrupt("point"))?;
            each(Change::Point(level, slot, id, packed));
        }
        for row in read.open_table(REPORTERS).map_err(engine)?.iter().map_err(engine)? {
            let (id, seen) = row.map_err(engine)?;
            let (last, at) = seen.value();
            each(Change::Reporter(ReporterId(id.value()), Seen { last, at }));
        }
        Ok(())
    }

    /// Writes all changes or none of them; durable when it returns.
    pub(crate) fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(engine)?;
        {
            let mut points = write.open_table(POINTS).map_err(engine)?;
            let mut series = write.open_table(SERIES).map_err(engine)?;
            let mut reporters = write.open_table(REPORTERS).map_err(engine)?;
            for change in changes {
                apply(change, &mut points, &mut series, &mut reporters).map_err(engine)?;
            }
        }
        write.commit().map_err(engine)
    }
}

type Points<'t> = redb::Table<'t, (u8, u32, u32), &'static [u8]>;
type SeriesNames<'t> = redb::Table<'t, u32, (u8, &'static str, &'static str, &'static str, &'static str)>;
type Reporters<'t> = redb::Table<'t, u128, (u64, u64)>;

fn apply(
    change: &Change,
    points: &mut Points<'_>,
    series: &mut SeriesNames<'_>,
    reporters: &mut Reporters<'_>,
) -> Result<(), StorageError> {
    match change {
        Change::Series(id, key) => {
            let Key {
                side,
                caller,
                callee,
                method,
                instance,
            } = key;
            series.insert(id, (side.number(), &**caller, &**callee, &**method, &**instance))?;
        }
        Change::SeriesGone(id) => {
            series.remove(id)?;
        }
        Change::Point(level, slot, id, packed) => {
            points.insert((level.number(), *slot, *id), packed.bytes())?;
        }
        Change::Forget(level, before) => {
            let level = level.number();
            points.retain_in((level, 0, 0)..(level, *before, 0), |_, _| false)?;
        }
        Change::Reporter(ReporterId(id), Seen { last, at }) => {
            reporters.insert(id, (*last, *at))?;
        }
        Change::ReporterGone(ReporterId(id)) => {
            reporters.remove(id)?;
        }
    }
    Ok(())
}

fn engine(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Engine(Box::new(error.into()))
}

#[cfg(test)]
mod tests;
