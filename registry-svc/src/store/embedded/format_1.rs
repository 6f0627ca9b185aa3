//! Stores of format 1: a table of instances, one of leases and one of history, changed with each commit. They become a run
//! and a log in one transaction, so a crash or a full disk in the middle leaves the old store.

use std::sync::Arc;

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};

use super::{
    Fault, META, META_FLUSHED, log,
    recent::{key_of_names, lease_key},
    runs::{Runs, Strides},
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

/// Makes it one of the present format, all but its number.
pub(super) fn convert(write: &WriteTransaction) -> Result<(), Fault> {
    let mut meta = write.open_table(META)?;
    let mut take = |key| -> Result<Revision, Fault> {
        let found = meta.remove(key)?.map_or(0, |found| found.value());
        Ok(Revision::new(found))
    };
    let (revision, compacted) = (take(META_REVISION)?, take(META_COMPACTED)?);
    meta.insert(META_FLUSHED, revision.get())?;
    Runs::open(write)?.add(Strides::default(), write, |put| {
        for entry in write.open_table(INSTANCES)?.iter()? {
            let (key, value) = entry?;
            let (namespace, service, id) = key.value();
            put(&key_of_names([namespace, service, id]), Some(value.value()))?;
        }
        for entry in write.open_table(LEASES)?.iter()? {
            let (id, value) = entry?;
            put(&lease_key(LeaseId::from_random(id.value())), Some(value.value()))?;
        }
        Ok(())
    })?;
    let mut decoder = Decoder::default();
    for entry in write.open_table(HISTORY)?.range(compacted.next().get()..)? {
        let (revision, value) = entry?;
        let revision = Revision::new(revision.value());
        let batch = decoder
            .batch(revision, value.value())
            .map_err(|why| Fault::Record(format!("revision {revision}"), why))?;
        log::append(write, revision, compacted, &record::encode_group(&[Arc::new(batch)]))?;
    }
    // Its revision is the log's last, also where the history has nothing of it.
    if compacted == revision && revision > Revision::ZERO {
        log::append(write, revision, compacted, &[])?;
    }
    write.delete_table(INSTANCES)?;
    write.delete_table(LEASES)?;
    write.delete_table(HISTORY)?;
    Ok(())
}
