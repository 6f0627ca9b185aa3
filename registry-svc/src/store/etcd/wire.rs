//! The part of etcd's v3 API that this store speaks, as prost structs: the messages of `etcdserverpb` and `mvccpb` with the
//! field numbers of etcd's `rpc.proto` and `kv.proto`. Fields that we neither set nor read are left out; protobuf skips them.

use bytes::Bytes;
use prost::{Message, Oneof};

/// `etcdserverpb.KV/Txn`
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";
/// `etcdserverpb.KV/Range`
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
/// `etcdserverpb.Watch/Watch`
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// `etcdserverpb.Lease/LeaseGrant`
pub(super) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
/// `etcdserverpb.Lease/LeaseRevoke`
pub(super) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
/// `etcdserverpb.Lease/LeaseKeepAlive`
pub(super) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
/// `etcdserverpb.Auth/Authenticate`
pub(super) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// `etcdserverpb.KV/Compact`
#[cfg(test)]
pub(super) const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// Of every response.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    /// etcd's revision when the request was served.
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
}

/// `mvccpb.KeyValue`
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    /// etcd's revision that made the key.
    #[prost(int64, tag = "2")]
    pub(super) create_revision: i64,
    /// etcd's revision of its last change.
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
}

/// Keys from `key` to below `range_end`, or the one key.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) range_end: Bytes,
    /// 0: all.
    #[prost(int64, tag = "3")]
    pub(super) limit: i64,
    /// As of etcd's revision; 0: now, linearizable.
    #[prost(int64, tag = "4")]
    pub(super) revision: i64,
    /// 0 none, 1 ascending, 2 descending, by key.
    #[prost(int32, tag = "5")]
    pub(super) sort_order: i32,
    #[prost(bool, tag = "8")]
    pub(super) keys_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub(super) kvs: Vec<KeyValue>,
    /// There are more than the limit.
    #[prost(bool, tag = "3")]
    pub(super) more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
    /// The etcd lease that the key lives as long as; 0: none.
    #[prost(int64, tag = "3")]
    pub(super) lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) range_end: Bytes,
}

/// `etcdserverpb.RequestOp`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(oneof = "OperationKind", tags = "1, 2, 3")]
    pub(super) kind: Option<OperationKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum OperationKind {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRequest),
}

/// `etcdserverpb.ResponseOp`; what puts and deletes answer is not read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(super) range: Option<RangeResponse>,
}

/// `etcdserverpb.Compare`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Compare {
    /// 0 equal, 1 greater.
    #[prost(int32, tag = "1")]
    pub(super) result: i32,
    /// Of what of the key: 0 its version, 2 its mod_revision.
    #[prost(int32, tag = "2")]
    pub(super) target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) key: Bytes,
    #[prost(oneof = "CompareWith", tags = "4, 6")]
    pub(super) with: Option<CompareWith>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(super) enum CompareWith {
    /// 0: the key is not there.
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<Operation>,
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(super) answers: Vec<Answer>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) range_end: Bytes,
    #[prost(int64, tag = "3")]
    pub(super) start_revision: i64,
    /// 1: no deletes.
    #[prost(int32, repeated, tag = "5")]
    pub(super) filters: Vec<i32>,
    /// Splits what would be a large response.
    #[prost(bool, tag = "8")]
    pub(super) fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchResponse {
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    /// Above 0 when the watch was cancelled since etcd has compacted what it asked for.
    #[prost(int64, tag = "5")]
    pub(super) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(super) cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Event>,
}

/// `mvccpb.Event` of a put: deletes are filtered out.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(message, optional, tag = "2")]
    pub(super) kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseGrantRequest {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub(super) ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    pub(super) id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseRequest {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseRevokeResponse {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseKeepAliveResponse {
    /// Seconds; 0 when the lease has ended.
    #[prost(int64, tag = "3")]
    pub(super) ttl: i64,
}

/// No `Debug` that prints the password.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) password: String,
}

impl std::fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticateRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub(super) token: String,
}

impl std::fmt::Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthenticateResponse(..)")
    }
}

/// `etcdserverpb.CompactionRequest`
#[cfg(test)]
#[derive(Clone, PartialEq, Message)]
pub(super) struct CompactRequest {
    #[prost(int64, tag = "1")]
    pub(super) revision: i64,
}

/// `etcdserverpb.CompactionResponse`
#[cfg(test)]
#[derive(Clone, PartialEq, Message)]
pub(super) struct CompactResponse {}

impl Operation {
    /// Reads.
    pub(super) fn range(range: RangeRequest) -> Self {
        Self {
            kind: Some(OperationKind::Range(range)),
        }
    }

    /// Writes a key.
    pub(super) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::put_leased(key, value, 0)
    }

    /// Writes a key that lives no longer than a lease of etcd.
    pub(super) fn put_leased(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: i64) -> Self {
        let (key, value) = (key.into(), value.into());
        Self {
            kind: Some(OperationKind::Put(PutRequest { key, value, lease })),
        }
    }

    /// Deletes the keys from `key` to below `range_end`, or the one key when that is empty.
    pub(super) fn delete(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Self {
        let (key, range_end) = (key.into(), range_end.into());
        Self {
            kind: Some(OperationKind::Delete(DeleteRequest { key, range_end })),
        }
    }
}

impl RangeRequest {
    /// One key, now.
    pub(super) fn one(key: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
        }
    }

    /// The keys that begin so, now.
    pub(super) fn prefix(prefix: &str) -> Self {
        Self {
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            range_end: end_of(prefix),
            ..Self::default()
        }
    }
}

impl Compare {
    /// The key is not there.
    pub(super) fn absent(key: impl Into<Bytes>) -> Self {
        Self {
            result: 0,
            target: 0,
            key: key.into(),
            with: Some(CompareWith::Version(0)),
        }
    }

    /// The key is there.
    pub(super) fn present(key: impl Into<Bytes>) -> Self {
        Self {
            result: 1,
            ..Self::absent(key)
        }
    }

    /// The key was last changed then; 0: it is not there.
    pub(super) fn changed_at(key: impl Into<Bytes>, revision: i64) -> Self {
        Self {
            result: 0,
            target: 2,
            key: key.into(),
            with: Some(CompareWith::ModRevision(revision)),
        }
    }
}

impl TxnRequest {
    /// These operations, whatever is there.
    pub(super) fn of(success: Vec<Operation>) -> Self {
        Self {
            success,
            ..Self::default()
        }
    }

    /// Only if this holds too.
    pub(super) fn only_if(mut self, compare: Compare) -> Self {
        self.compare.push(compare);
        self
    }
}

impl TxnResponse {
    /// etcd's revision after it.
    pub(super) fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }

    /// What its n-th operation, a range, has found.
    pub(super) fn found(&self, n: usize) -> &[KeyValue] {
        let range = self.answers.get(n).and_then(|answer| answer.range.as_ref());
        range.map_or(&[], |range| &range.kvs)
    }
}

/// The key after all that begin so. Our prefixes end in '/', which has a successor.
pub(super) fn end_of(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end.into()
}
