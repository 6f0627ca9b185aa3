//! What a watch sends, in bytes: a small head of its own and a body that all watchers of its selection share.
//!
//! The generated types encode a response as a whole, once for each watcher: a change that is told to five thousand of them
//! would be cloned and encoded five thousand times. Protobuf lets the fields of a message come in any order, so what is a
//! watch's own goes first and the encoded rest is appended. Clients see the same `WatchResponse`.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use proto::registry::v1 as wire;

use super::super::{instance, told};
use crate::{
    catalog::Removal,
    hub::{Cause, Content, Event, Step, Told},
    model::{Confidence, Revision, WallTime},
    protobuf::Writer,
};

/// The fields of `WatchResponse` and below that are written here and not by generated code.
mod field {
    pub(super) const SNAPSHOT: u32 = 3;
    pub(super) const DELTA: u32 = 4;
    pub(super) const BOOKMARK: u32 = 5;
    /// Of `Snapshot`.
    pub(super) const SNAPSHOT_INSTANCES: u64 = 1;
    /// Of `Delta`.
    pub(super) const DELTA_EVENTS: u64 = 1;
    pub(super) const DELTA_TRACEPARENT: u64 = 2;
    /// Of `InstanceEvent`.
    pub(super) const EVENT_PUT: u64 = 1;
    pub(super) const EVENT_REMOVED: u64 = 2;
}

/// A gRPC message is preceded by a flag (not compressed) and its length.
const PREFIX_BYTES: usize = 1 + 4;
/// Shared bytes up to here are copied behind the head: HTTP/2 sends one frame then, and what the copy costs is far less than
/// a second frame does. Larger ones are sent as they are, which costs a stalled watcher's connection a reference.
const COPIED_BYTES: usize = 4 * 1_024;

/// A message on its way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// To be sent first.
    pub(super) head: Bytes,
    /// Shared with others; to be sent right after it.
    pub(super) rest: Option<Bytes>,
}

/// What names a watch and its history in every response, encoded.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Together in one piece of memory, which the watch keeps.
    encoded: Box<[u8]>,
}

impl Names {
    pub(super) fn new(watch_id: String, history_id: String) -> Self {
        let names = wire::WatchResponse {
            watch_id,
            history_id,
            ..Default::default()
        };
        Self {
            encoded: names.encode_to_vec().into(),
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.encoded.len()
    }
}

/// Encodes what all watchers of a selection are told alike: the instances of a snapshot, or all of a delta.
pub(super) fn shared(content: &Content<'_>) -> Bytes {
    let mut to = Writer::default();
    match content {
        Content::Instances(instances) => {
            // Why it is told, and whether there is more, is each watch's own.
            for instance in *instances {
                told::put(&mut to, field::SNAPSHOT_INSTANCES, instance);
            }
        }
        Content::Events { at, trace, events } => {
            for event in events {
                to.message(field::DELTA_EVENTS, |to| put(to, event, *at));
            }
            // One change has one cause, so that this is as much everybody's as the rest.
            if let Some(trace) = trace {
                to.text(field::DELTA_TRACEPARENT, &trace.to_string());
            }
        }
    }
    to.finish().into()
}

/// A step as a message, with what is [`shared`] of it.
pub(super) fn message(step: &Step, names: &Names, shared: Option<Bytes>) -> Outgoing {
    let head = head(step.revision, step.confidence);
    let (field, own) = match &step.told {
        Told::Part(part) => {
            let own = wire::Snapshot {
                cause: cause(part.cause).into(),
                more: part.has_more(),
                ..Default::default()
            };
            (field::SNAPSHOT, own)
        }
        Told::Delta(_) => (field::DELTA, wire::Snapshot::default()),
        Told::Bookmark => (field::BOOKMARK, wire::Snapshot::default()),
    };
    let shared = shared.unwrap_or_default();
    let change_bytes = own.encoded_len() + shared.len();
    let head_bytes = head.encoded_len()
        + names.encoded.len()
        + key_len(field)
        + encoded_len_varint(change_bytes as u64)
        + own.encoded_len();
    let copied = shared.len() <= COPIED_BYTES;

    // Exactly as large as needed: then freezing it does not allocate.
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + head_bytes + if copied { shared.len() } else { 0 });
    out.put_u8(0);
    out.put_u32(u32::try_from(head_bytes + shared.len()).unwrap_or(u32::MAX));
    // Neither of them fails: a BytesMut has room for everything.
    let _ = head.encode(&mut out);
    out.put_slice(&names.encoded);
    encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(change_bytes as u64, &mut out);
    let _ = own.encode(&mut out);
    if copied {
        out.put_slice(&shared);
    }
    Outgoing {
        head: out.freeze(),
        rest: (!copied).then_some(shared),
    }
}

fn head(revision: Revision, confidence: Confidence) -> wire::WatchResponse {
    wire::WatchResponse {
        revision: instance::number(revision),
        confidence: Some(instance::confidence(confidence)),
        ..Default::default()
    }
}

fn cause(cause: Cause) -> wire::snapshot::Cause {
    match cause {
        Cause::Initial => wire::snapshot::Cause::Initial,
        Cause::Compacted => wire::snapshot::Cause::Compacted,
        Cause::Coalesced => wire::snapshot::Cause::Coalesced,
        Cause::HistoryChanged => wire::snapshot::Cause::HistoryChanged,
    }
}

fn put(to: &mut Writer, event: &Event, at: WallTime) {
    match event {
        Event::Put(instance) => told::put(to, field::EVENT_PUT, instance),
        Event::Removed(removal) => told::generated(to, field::EVENT_REMOVED, &removed(removal, at)),
    }
}

fn removed(removal: &Removal, at: WallTime) -> wire::Removal {
    let Removal {
        key, reason, detail, ..
    } = removal;
    wire::Removal {
        service: key.service.to_string(),
        id: key.id.to_string(),
        reason: instance::reason(*reason).into(),
        detail: detail.to_string(),
        removed_at: Some(instance::timestamp(at)),
    }
}

#[cfg(test)]
mod tests;
