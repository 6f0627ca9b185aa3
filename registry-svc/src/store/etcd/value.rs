//! How values look in etcd: small prost messages around the records of [`super::super::record`].
//!
//! The same rules of change as there; what breaks them raises [`FORMAT`].

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::{catalog::Batch, model::Revision};

/// What this code writes. A higher one is refused, not guessed at.
pub(super) const FORMAT: u64 = 1;

/// At `meta`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Meta {
    #[prost(uint64, tag = "1")]
    pub(super) format: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) history_id: u64,
}

/// At `head`, and in every group: where the log is after it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Head {
    /// The last that is committed.
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
    /// The last that the history no longer has; the log may still have it.
    #[prost(uint64, tag = "2")]
    pub(super) compacted: u64,
    /// What the log has cost since it was made: tells with the checkpoint's how much there is to replay.
    #[prost(uint64, tag = "3")]
    pub(super) written: u64,
    /// Of the last commit. It tells this log from another one that came to the same revision: after a restore of an older
    /// snapshot, say. 0 after a commit of a version that wrote none.
    #[prost(fixed64, tag = "4")]
    pub(super) nonce: u64,
}

/// At `log/<first revision>`: batches that were committed together.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Group {
    /// Of the commit: tells a retry of it from another's.
    #[prost(fixed64, tag = "1")]
    pub(super) nonce: u64,
    /// After it.
    #[prost(message, optional, tag = "2")]
    pub(super) head: Option<Head>,
    /// `record::encode_group`, here or in parts.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) batches: Bytes,
    /// How many parts; 0: the batches are here.
    #[prost(uint32, tag = "4")]
    pub(super) parts: u32,
    /// [`Head::nonce`] of the commit that this one follows.
    #[prost(fixed64, tag = "5")]
    pub(super) after: u64,
    /// Whose doing batches were, where that is being traced: the watchers of other replicas go on with it. Gone with the group.
    #[prost(message, repeated, tag = "6")]
    pub(super) traces: Vec<Trace>,
}

/// The span of the call that asked for a batch.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Trace {
    /// The batch's place in its group, from 0.
    #[prost(uint32, tag = "1")]
    pub(super) batch: u32,
    /// A `traceparent` of W3C Trace Context, version 00.
    #[prost(string, tag = "2")]
    pub(super) parent: String,
}

/// Traces in a group: 4 KiB beside batches that may be megabytes. A flood of changes has that many more without one.
const MAX_TRACES: usize = 64;

/// What a group says of the traces of its batches.
pub(super) fn traces(batches: &[Arc<Batch>]) -> Vec<Trace> {
    let traced = (0..).zip(batches).filter_map(|(batch, of)| {
        let parent = of.trace?.to_string();
        Some(Trace { batch, parent })
    });
    traced.take(MAX_TRACES).collect()
}

/// Puts them where they were. One that cannot be read is left out: nothing but a line in a picture is lost.
pub(super) fn trace(batches: &mut [Batch], traces: Vec<Trace>) {
    for Trace { batch, parent } in traces.into_iter().take(MAX_TRACES) {
        if let Some(of) = usize::try_from(batch).ok().and_then(|at| batches.get_mut(at)) {
            of.trace = parent.parse().ok();
        }
    }
}

/// At `checkpoint/current`: everything as it was at a revision.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Checkpoint {
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) nonce: u64,
    #[prost(uint32, tag = "3")]
    pub(super) chunks: u32,
    /// Of all chunks.
    #[prost(uint64, tag = "4")]
    pub(super) bytes: u64,
    /// [`Head::written`] at the revision.
    #[prost(uint64, tag = "5")]
    pub(super) written: u64,
    #[prost(uint64, tag = "6")]
    pub(super) instances: u64,
    #[prost(uint64, tag = "7")]
    pub(super) leases: u64,
    #[prost(uint64, tag = "8")]
    pub(super) overrides: u64,
}

/// At `checkpoint/at/<checkpoint>/<n>`: ordered instances, after the last of them ordered leases, after those what is laid over
/// instances.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Chunk {
    /// `record::encode_instance`
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) instances: Vec<Bytes>,
    #[prost(message, repeated, tag = "2")]
    pub(super) leases: Vec<Lease>,
    /// `record::encode_override`
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) overrides: Vec<Bytes>,
}

/// One lease of a chunk.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Lease {
    /// 16 bytes, big endian.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) id: Bytes,
    /// `record::encode_lease`
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) record: Bytes,
}

impl Head {
    /// The last that is committed.
    pub(super) fn newest(&self) -> Revision {
        Revision::new(self.revision)
    }

    /// Whether its last commit may be the one with that nonce.
    pub(super) fn may_be(&self, nonce: u64) -> bool {
        self.nonce == nonce || self.nonce == 0 || nonce == 0
    }
}

/// To put it into etcd.
pub(super) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
