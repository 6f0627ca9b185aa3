//! Reading everything: the checkpoint, and the log after it, as of one revision of etcd.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    cluster::{Cluster, Reading, Trouble, decode},
    failure::Failure,
    shared::Fence,
    value::{self, Checkpoint, Chunk, FORMAT, Head, Meta},
    wire::{Compare, Operation, RangeRequest, TxnRequest},
};
use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord},
    model::{HistoryId, Instance, InstanceKey, LeaseId, Override, OverrideRecord, Revision},
    store::{Loaded, record::Decoder},
};

/// How often a load begins again because etcd compacted its own history meanwhile.
const ATTEMPTS: usize = 3;

/// What a load brings.
#[derive(Debug)]
pub(super) struct State {
    pub(super) loaded: Loaded,
    /// The batches after what is compacted.
    pub(super) past: Vec<Batch>,
    pub(super) fence: Fence,
    /// etcd's revision of all this.
    pub(super) at: i64,
}

/// Reads all; makes the store where there is none.
pub(super) async fn load(cluster: &Cluster) -> Result<State, Trouble> {
    let mut attempt = 1;
    loop {
        match attempt_load(cluster).await {
            Ok(Some(state)) => return Ok(state),
            // It was made just now, by us or by another replica.
            Ok(None) => {}
            Err(Trouble::Etcd(Failure::Compacted)) if attempt < ATTEMPTS => attempt += 1,
            Err(trouble) => return Err(trouble),
        }
    }
}

async fn attempt_load(cluster: &Cluster) -> Result<Option<State>, Trouble> {
    let keys = &cluster.keys;
    let read = |key: String| Operation::range(RangeRequest::one(key));
    let begin = TxnRequest::of(vec![read(keys.meta()), read(keys.head()), read(keys.current())]);
    let begin = cluster.client.txn(begin).await?;
    let at = begin.revision();
    let ([meta], [head]) = (begin.found(0), begin.found(1)) else {
        if begin.found(0).is_empty() && begin.found(1).is_empty() {
            make(cluster).await?;
            return Ok(None);
        }
        return Err(cluster
            .unusable("only one of meta and head is there; something else has changed them")
            .into());
    };
    let Meta { format, history_id } = decode(cluster, "meta", &meta.value)?;
    if format > FORMAT {
        return Err(cluster
            .unusable(format!(
                "it has format {format}; this registry reads format {FORMAT}: use the version that wrote it or a newer one"
            ))
            .into());
    }
    let fence = Fence {
        head: decode(cluster, "head", &head.value)?,
        etcd: head.mod_revision,
    };
    let checkpoint: Checkpoint = match begin.found(2) {
        [current] => decode(cluster, "checkpoint/current", &current.value)?,
        _ => Checkpoint::default(),
    };
    let (sorted, leases, overrides) = read_checkpoint(cluster, &checkpoint, at).await?;

    let mut replay = Replay {
        leases,
        overrides,
        ..Replay::default()
    };
    let mut past = Vec::new();
    let mut newest: Option<Revision> = None;
    let compacted = Revision::new(fence.head.compacted);
    let begin = Revision::new(checkpoint.revision);
    let mut log = cluster.log(Revision::ZERO, Reading::at_length(at));
    while let Some(entry) = log.next().await? {
        // The first one that is needed may begin before what is needed of it.
        let follows = newest.map_or(entry.first <= begin.next(), |newest| entry.first == newest.next());
        if !follows {
            let expected = newest.unwrap_or(begin).next();
            return Err(cluster.damaged(&format!("revision {expected}"), "it is missing").into());
        }
        newest = Some(entry.head.newest());
        for mut batch in entry.batches {
            if batch.revision > begin {
                replay.apply(&batch);
            }
            if batch.revision > compacted {
                batch.leases = Vec::new();
                past.push(batch);
            }
        }
    }
    if newest.unwrap_or(begin).max(begin) != fence.head.newest() {
        return Err(cluster.damaged("the log", "its end is missing").into());
    }
    if past.first().map_or(fence.head.newest() > compacted, |oldest| {
        oldest.revision != compacted.next()
    }) {
        return Err(cluster
            .damaged(&format!("revision {}", compacted.next()), "it is missing")
            .into());
    }
    let leases = replay.leases;
    let overrides = replay.overrides.into_iter();
    let overrides = overrides.map(|(key, laid)| OverrideRecord { key, laid }).collect();
    let instances = merged(sorted, replay.instances);
    // An instance without its lease would never expire.
    if let Some(orphan) = instances.iter().find(|instance| !leases.contains_key(&instance.lease)) {
        return Err(cluster
            .damaged(&format!("instance {}", orphan.key), "its lease is missing")
            .into());
    }
    Ok(Some(State {
        loaded: Loaded {
            history_id: HistoryId::from_random(history_id),
            revision: fence.head.newest(),
            compacted,
            instances,
            leases: leases.into_values().collect(),
            overrides,
        },
        past,
        fence,
        at,
    }))
}

/// Makes the store, unless another replica was faster.
async fn make(cluster: &Cluster) -> Result<(), Trouble> {
    let meta = Meta {
        format: FORMAT,
        history_id: rand::random(),
    };
    let make = TxnRequest::of(vec![
        Operation::put(cluster.keys.meta(), value::encode(&meta)),
        Operation::put(cluster.keys.head(), value::encode(&Head::default())),
    ])
    .only_if(Compare::absent(cluster.keys.meta()))
    .only_if(Compare::absent(cluster.keys.head()));
    cluster.client.txn(make).await?;
    Ok(())
}

/// Ordered instances, leases, and what is laid over instances.
type Held = (
    Vec<Arc<Instance>>,
    HashMap<LeaseId, LeaseRecord>,
    HashMap<InstanceKey, Arc<Override>>,
);

async fn read_checkpoint(cluster: &Cluster, checkpoint: &Checkpoint, at: i64) -> Result<Held, Trouble> {
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let mut instances = Vec::new();
    let (mut leases, mut overrides) = (HashMap::new(), HashMap::new());
    if checkpoint.revision == 0 {
        return Ok((instances, leases, overrides));
    }
    let prefix = cluster
        .keys
        .chunks_of(Revision::new(checkpoint.revision), checkpoint.nonce);
    let mut decoder = Decoder::default();
    let mut chunks = cluster.numbered(prefix.clone(), checkpoint.chunks, Reading::at_length(at));
    while let Some(chunk) = chunks.next().await? {
        let chunk: Chunk = decode(cluster, &prefix, &chunk)?;
        for bytes in &chunk.instances {
            let instance = decoder.instance(bytes).map_err(|why| cluster.damaged(&prefix, why))?;
            instances.push(Arc::new(instance));
        }
        for lease in &chunk.leases {
            let id = lease_id(&lease.id).ok_or_else(|| cluster.damaged(&prefix, "a lease has no id"))?;
            let record = decoder
                .lease(id, &lease.record)
                .map_err(|why| cluster.damaged(&prefix, why))?;
            leases.insert(id, record);
        }
        for laid in &chunk.overrides {
            let record = decoder.laid(laid).map_err(|why| cluster.damaged(&prefix, why))?;
            overrides.insert(record.key, record.laid);
        }
    }
    let found = (instances.len(), leases.len(), overrides.len());
    if found
        != (
            count(checkpoint.instances),
            count(checkpoint.leases),
            count(checkpoint.overrides),
        )
    {
        return Err(cluster.damaged(&prefix, "it is not complete").into());
    }
    Ok((instances, leases, overrides))
}

/// As it is in a chunk.
pub(super) fn lease_id(bytes: &[u8]) -> Option<LeaseId> {
    let bits: [u8; 16] = bytes.try_into().ok()?;
    Some(LeaseId::from_random(u128::from_be_bytes(bits)))
}

/// What the log changes of a checkpoint.
#[derive(Debug, Default)]
struct Replay {
    /// `None`: it left.
    instances: BTreeMap<InstanceKey, Option<Arc<Instance>>>,
    leases: HashMap<LeaseId, LeaseRecord>,
    overrides: HashMap<InstanceKey, Arc<Override>>,
}

impl Replay {
    fn apply(&mut self, batch: &Batch) {
        for change in &batch.changes {
            let now = match change {
                Change::Put { instance, .. } => Some(Arc::clone(instance)),
                Change::Removed(_) => None,
            };
            self.instances.insert(change.key().clone(), now);
        }
        for change in &batch.leases {
            match change {
                LeaseChange::Kept(record) | LeaseChange::Lost(record) => {
                    self.leases.insert(record.id, record.clone());
                }
                LeaseChange::Ended(id) => {
                    self.leases.remove(id);
                }
            }
        }
        for change in &batch.overrides {
            match &change.now {
                Some(laid) => drop(self.overrides.insert(change.key.clone(), Arc::clone(laid))),
                None => drop(self.overrides.remove(&change.key)),
            }
        }
    }
}

/// Ordered instances with what has changed of them since.
fn merged(sorted: Vec<Arc<Instance>>, changes: BTreeMap<InstanceKey, Option<Arc<Instance>>>) -> Vec<Arc<Instance>> {
    if changes.is_empty() {
        return sorted;
    }
    let mut merged = Vec::with_capacity(sorted.len() + changes.len());
    let mut changes = changes.into_iter().peekable();
    for old in sorted {
        while let Some((_, now)) = changes.next_if(|(key, _)| *key < old.key) {
            merged.extend(now);
        }
        match changes.next_if(|(key, _)| *key == old.key) {
            Some((_, now)) => merged.extend(now),
            None => merged.push(old),
        }
    }
    merged.extend(changes.filter_map(|(_, now)| now));
    merged
}
