//! Stores of format 1: a table of instances, one of leases and one of history, changed with each commit. They become a run
//! and a log in one transaction, so a crash or a full disk in the middle leaves the old store.

use std::{fs, io, path::Path, sync::Arc};

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};

use super::{
    FILE, Fault, META,
    build::build,
    load, log,
    log::LOG,
    recent::{Recent, key_of_names, lease_key},
    runs::{RUNS, Runs},
};
use crate::{
    model::{LeaseId, Revision},
    store::record::{self, Decoder},
};

/// namespace, service, id → instance.
const INSTANCES: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("instances");
/// lease id → terms and the secret's hash.
const LEASES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("leases");
/// revision → what changed.
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
const META_REVISION: &str = "revision";
const META_COMPACTED: &str = "compacted";

/// Makes it one of the present format, all but its number. `free` is what the disk has room for, where that can be told.
pub(super) fn convert(write: &WriteTransaction, directory: &Path, free: Option<u64>) -> Result<(), Fault> {
    check_room(directory, free)?;
    let mut meta = write.open_table(META)?;
    let mut take = |key| -> Result<Revision, Fault> {
        let found = meta.remove(key)?.map_or(0, |found| found.value());
        Ok(Revision::new(found))
    };
    let (revision, compacted) = (take(META_REVISION)?, take(META_COMPACTED)?);
    drop(meta);
    build(write, revision, compacted, |to| -> Result<(), Fault> {
        for entry in write.open_table(INSTANCES)?.iter()? {
            let (key, value) = entry?;
            let (namespace, service, id) = key.value();
            to.put(&key_of_names([namespace, service, id]), value.value())?;
        }
        for entry in write.open_table(LEASES)?.iter()? {
            let (id, value) = entry?;
            to.put(&lease_key(LeaseId::from_random(id.value())), value.value())?;
        }
        let mut decoder = Decoder::default();
        for entry in write.open_table(HISTORY)?.range(compacted.next().get()..)? {
            let (revision, value) = entry?;
            let revision = Revision::new(revision.value());
            let batch = decoder
                .batch(revision, value.value())
                .map_err(|why| Fault::Record(format!("revision {revision}"), why))?;
            to.past(revision, &record::encode_group(&[Arc::new(batch)]))?;
        }
        Ok(())
    })?;
    // Once this is committed there is no way back: what a start reads has to read back before.
    log::replay(&write.open_table(LOG)?, compacted.min(revision), |_, _| {})?;
    load::read_all(&Runs::open(write)?, &write.open_table(RUNS)?, &Recent::default())?;
    write.delete_table(INSTANCES)?;
    write.delete_table(LEASES)?;
    write.delete_table(HISTORY)?;
    Ok(())
}

/// The old tables and the new ones are there at once. Without room for both nothing is begun: it would fill the disk to the
/// last byte, also for the version that the store is of.
fn check_room(directory: &Path, free: Option<u64>) -> Result<(), Fault> {
    let (Ok(file), Some(free)) = (fs::metadata(directory.join(FILE)), free) else {
        return Ok(());
    };
    let needed = file.len();
    if free >= needed {
        return Ok(());
    }
    let why = format!("to convert the store takes {needed} bytes, and its disk has {free}: make room there");
    Err(redb::Error::Io(io::Error::new(io::ErrorKind::StorageFull, why)).into())
}
