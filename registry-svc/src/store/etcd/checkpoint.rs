//! The elected replica's chore: to write the state anew as of a later revision, and to trim the log and the checkpoint before.
//!
//! It is made of what etcd has and not of what the replica has: the former checkpoint is read page by page, merged with what
//! the log has changed since, and written page by page. That costs a replica of a million instances a few megabytes instead
//! of a second copy of them, and asks nothing of the driver.
//!
//! One replica writes at a time: the key `checkpoint/building` is the fence of every write, and whoever takes it over stops the
//! one before. What that one leaves behind goes with the next checkpoint.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;
use tracing::info;

use super::{
    client::CALL,
    cluster::{Cluster, Reading, SharedCluster, Trouble, decode},
    keys::nth,
    load::lease_id,
    retry::Retry,
    value::{self, Checkpoint, Chunk, Head, Lease},
    wire::{Compare, Operation, RangeRequest, TxnRequest, end_of},
};
use crate::{
    catalog::{Batch, Change, LeaseChange},
    model::{Instance, InstanceKey, LeaseId, OverrideRecord, Revision},
    store::record::{self, Decoder},
};

/// How long a write that is not answered is repeated: longer than any election, for a checkpoint is in nobody's way.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the log has changed; `None`: it is gone.
#[derive(Debug, Default)]
struct Changes {
    instances: BTreeMap<InstanceKey, Option<Arc<Instance>>>,
    leases: BTreeMap<LeaseId, Option<Bytes>>,
    overrides: BTreeMap<InstanceKey, Option<Bytes>>,
}

/// Writes chunks as they fill, each only while nobody else has taken over.
struct Writer<'a> {
    cluster: &'a Cluster,
    /// etcd's revision that made us the writer.
    building: i64,
    prefix: String,
    chunk_bytes: usize,
    chunk: Chunk,
    filled: usize,
    written: Checkpoint,
}

/// Writes a checkpoint of now and trims what it makes needless.
pub(super) async fn write(cluster: SharedCluster, chunk_bytes: usize) -> Result<(), Trouble> {
    let begun = Instant::now();
    let keys = &cluster.keys;
    let nonce: u64 = rand::random();
    let begin = TxnRequest::of(vec![
        Operation::put(keys.building(), nonce.to_be_bytes().to_vec()),
        Operation::range(RangeRequest::one(keys.head())),
        Operation::range(RangeRequest::one(keys.current())),
    ]);
    let begin = cluster.client.txn(begin).await?;
    let at = begin.revision();
    let [head] = begin.found(1) else {
        return Err(cluster.unusable("it has no head").into());
    };
    let head: Head = decode(&cluster, "head", &head.value)?;
    let former: Checkpoint = match begin.found(2) {
        [kv] => decode(&cluster, "checkpoint/current", &kv.value)?,
        _ => Checkpoint::default(),
    };
    let changes = changes(&cluster, &former, at).await?;
    let mut writer = Writer {
        cluster: &cluster,
        building: at,
        prefix: keys.chunks_of(head.newest(), nonce),
        chunk_bytes,
        chunk: Chunk::default(),
        filled: 0,
        written: Checkpoint {
            revision: head.revision,
            nonce,
            written: head.written,
            ..Checkpoint::default()
        },
    };
    // What a writer before us has left unfinished, first: the quota need not hold both.
    writer.sweep(&former).await?;
    merge(&mut writer, &former, changes, at).await?;
    let written = writer.finish().await?;
    let last_kept = trim(&cluster, &written, Revision::new(head.compacted), at).await?;
    info!(
        revision = written.revision,
        instances = written.instances,
        leases = written.leases,
        bytes = written.bytes,
        log_from = last_kept.get(),
        seconds = begun.elapsed().as_secs_f64(),
        "checkpoint written"
    );
    Ok(())
}

/// What the log says after a checkpoint.
async fn changes(cluster: &Cluster, former: &Checkpoint, at: i64) -> Result<Changes, Trouble> {
    let mut changes = Changes::default();
    let former = Revision::new(former.revision);
    let mut log = cluster.log(Revision::ZERO, Reading::at_length(at));
    while let Some(entry) = log.next().await? {
        let later = entry.batches.iter().filter(|batch| batch.revision > former);
        later.for_each(|batch| changes.apply(batch));
    }
    Ok(changes)
}

impl Changes {
    fn apply(&mut self, batch: &Batch) {
        for change in &batch.changes {
            let now = match change {
                Change::Put { instance, .. } => Some(Arc::clone(instance)),
                Change::Removed(_) => None,
            };
            self.instances.insert(change.key().clone(), now);
        }
        for change in &batch.leases {
            let (id, now) = match change {
                LeaseChange::Kept(lease) | LeaseChange::Lost(lease) => {
                    (lease.id, Some(record::encode_lease(lease).into()))
                }
                LeaseChange::Ended(id) => (*id, None),
            };
            self.leases.insert(id, now);
        }
        for change in &batch.overrides {
            let now = change.now.as_ref().map(|laid| {
                let (key, laid) = (change.key.clone(), Arc::clone(laid));
                record::encode_override(&OverrideRecord { key, laid }).into()
            });
            self.overrides.insert(change.key.clone(), now);
        }
    }
}

/// The former checkpoint and the changes, both ordered, as one.
async fn merge(writer: &mut Writer<'_>, former: &Checkpoint, changes: Changes, at: i64) -> Result<(), Trouble> {
    let cluster = writer.cluster;
    let mut instances = changes.instances.into_iter().peekable();
    let mut leases = changes.leases.into_iter().peekable();
    // Few instances have any: those of the former checkpoint are held until the rest is written.
    let mut overrides: BTreeMap<InstanceKey, Option<Bytes>> = BTreeMap::new();
    if former.revision > 0 {
        let prefix = cluster.keys.chunks_of(Revision::new(former.revision), former.nonce);
        let damaged = |why: &dyn std::fmt::Display| cluster.damaged(&prefix, why);
        let mut decoder = Decoder::default();
        let mut chunks = cluster.numbered(prefix.clone(), former.chunks, Reading::at_length(at));
        while let Some(chunk) = chunks.next().await? {
            let chunk: Chunk = decode(cluster, &prefix, &chunk)?;
            for old in chunk.instances {
                let key = decoder.instance(&old).map_err(|why| damaged(&why))?.key;
                while let Some((_, now)) = instances.next_if(|(changed, _)| *changed < key) {
                    writer.instance_of(now).await?;
                }
                match instances.next_if(|(changed, _)| *changed == key) {
                    Some((_, now)) => writer.instance_of(now).await?,
                    None => writer.instance(old).await?,
                }
            }
            for old in chunk.leases {
                // Instances come first: none is left in the former checkpoint.
                for (_, now) in instances.by_ref() {
                    writer.instance_of(now).await?;
                }
                let id = lease_id(&old.id).ok_or_else(|| damaged(&"a lease has no id"))?;
                while let Some((changed, now)) = leases.next_if(|(changed, _)| *changed < id) {
                    writer.lease_of(changed, now).await?;
                }
                match leases.next_if(|(changed, _)| *changed == id) {
                    Some((_, now)) => writer.lease_of(id, now).await?,
                    None => writer.lease(old).await?,
                }
            }
            for old in chunk.overrides {
                let key = decoder.laid(&old).map_err(|why| damaged(&why))?.key;
                overrides.insert(key, Some(old));
            }
        }
    }
    for (_, now) in instances {
        writer.instance_of(now).await?;
    }
    for (id, now) in leases {
        writer.lease_of(id, now).await?;
    }
    overrides.extend(changes.overrides);
    for record in overrides.into_values().flatten() {
        writer.laid(record).await?;
    }
    Ok(())
}

impl Writer<'_> {
    async fn instance_of(&mut self, instance: Option<Arc<Instance>>) -> Result<(), Trouble> {
        match instance {
            Some(instance) => self.instance(record::encode_instance(&instance).into()).await,
            None => Ok(()),
        }
    }

    async fn instance(&mut self, record: Bytes) -> Result<(), Trouble> {
        self.written.instances += 1;
        let bytes = record.len();
        // A copy: what was read is a slice of a whole page.
        self.chunk.instances.push(Bytes::copy_from_slice(&record));
        self.added(bytes).await
    }

    async fn lease_of(&mut self, id: LeaseId, record: Option<Bytes>) -> Result<(), Trouble> {
        let id = id.bits().to_be_bytes().to_vec().into();
        match record {
            Some(record) => self.lease(Lease { id, record }).await,
            None => Ok(()),
        }
    }

    async fn lease(&mut self, lease: Lease) -> Result<(), Trouble> {
        self.written.leases += 1;
        let bytes = lease.encoded_len();
        self.chunk.leases.push(Lease {
            id: Bytes::copy_from_slice(&lease.id),
            record: Bytes::copy_from_slice(&lease.record),
        });
        self.added(bytes).await
    }

    async fn laid(&mut self, record: Bytes) -> Result<(), Trouble> {
        self.written.overrides += 1;
        let bytes = record.len();
        self.chunk.overrides.push(Bytes::copy_from_slice(&record));
        self.added(bytes).await
    }

    async fn added(&mut self, bytes: usize) -> Result<(), Trouble> {
        self.filled += bytes;
        if self.filled < self.chunk_bytes {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        let chunk = value::encode(&std::mem::take(&mut self.chunk));
        self.filled = 0;
        let key = nth(&self.prefix, self.written.chunks);
        self.written.chunks += 1;
        self.written.bytes += chunk.len() as u64;
        self.perform(vec![Operation::put(key, chunk)]).await
    }

    /// Deletes what belongs to no checkpoint that counts.
    async fn sweep(&self, former: &Checkpoint) -> Result<(), Trouble> {
        let kept = (former.revision > 0).then_some(former);
        let deletes = others(self.cluster, kept);
        self.perform(deletes).await
    }

    /// What is left, and from here on this checkpoint is the one that counts.
    async fn finish(mut self) -> Result<Checkpoint, Trouble> {
        if self.filled > 0 {
            self.flush().await?;
        }
        let mut operations = vec![Operation::put(
            self.cluster.keys.current(),
            value::encode(&self.written),
        )];
        operations.extend(others(self.cluster, Some(&self.written)));
        self.perform(operations).await?;
        Ok(self.written)
    }

    async fn perform(&self, success: Vec<Operation>) -> Result<(), Trouble> {
        perform(self.cluster, self.building, success).await
    }
}

/// Unless somebody else writes by now. What is not answered is repeated: none of it does more when it is done twice, and to
/// begin again would cost etcd all that was written so far once more.
async fn perform(cluster: &Cluster, building: i64, success: Vec<Operation>) -> Result<(), Trouble> {
    let request = TxnRequest::of(success).only_if(Compare::changed_at(cluster.keys.building(), building));
    let mut retry = Retry::within(PATIENCE);
    loop {
        match cluster.client.txn(request.clone()).await {
            Ok(answer) if answer.succeeded => return Ok(()),
            Ok(_) => return Err(cluster.unusable("another replica writes the checkpoint").into()),
            Err(failure) => retry.after(failure).await?,
        }
    }
}

/// Deletes of the chunks of all checkpoints but one.
fn others(cluster: &Cluster, kept: Option<&Checkpoint>) -> Vec<Operation> {
    let all = cluster.keys.chunks();
    match kept {
        None => vec![Operation::delete(all.clone(), end_of(&all))],
        Some(kept) => {
            let own = cluster.keys.chunks_of(Revision::new(kept.revision), kept.nonce);
            vec![
                Operation::delete(all.clone(), own.clone()),
                Operation::delete(end_of(&own), end_of(&all)),
            ]
        }
    }
}

/// Deletes the groups that neither a load nor the history needs, with their parts and those of commits that were overtaken.
/// Returns the first that is left.
async fn trim(
    cluster: &Cluster,
    written: &Checkpoint,
    compacted: Revision,
    building: i64,
) -> Result<Revision, Trouble> {
    let keys = &cluster.keys;
    let needless = Revision::new(written.revision).min(compacted);
    // The last group that begins within what is needless may end beyond it: it stays.
    let request = RangeRequest {
        key: keys.log().into(),
        range_end: keys.group(needless.next()).into(),
        limit: 1,
        sort_order: 2,
        keys_only: true,
        ..RangeRequest::default()
    };
    let found = cluster.client.range(request, CALL).await?;
    let Some(first) = found.kvs.first().and_then(|kv| keys.first_of(&kv.key)) else {
        return Ok(needless.next());
    };
    let deletes = vec![
        Operation::delete(keys.log(), keys.group(first)),
        Operation::delete(keys.parts(), keys.parts_from(first)),
    ];
    perform(cluster, building, deletes).await?;
    Ok(first)
}
