//! How values look on disk: protobuf messages of our own, apart from the wire's, so that either can change without the other.
//!
//! Rules of change: a field number is never reused or given another type; a new field's default must mean what its absence
//! meant. Only what breaks that raises the format number of the store. The messages, by their field numbers:
//!
//! ```text
//! Key      1 namespace  2 service  3 id
//! Time     1 seconds  2 nanos
//! Endpoint 1 protocol (0 grpc, 1 grpcs, 2 http)  2 host  3 port
//! Labels   1 version  2 group  3 zone  4 tag
//! Instance 1 Key  2 Endpoint*  3 Labels  4 weight  5 status (0 up, 1 starting, 2 draining, 3 down)  6 grpc_service*
//!          7 map of metadata  8 Time started  9 epoch  10 revision  11 lease (16 bytes, big endian)
//!          12 Override, a copy of what is kept under its name  13 Probe  14 health (0 unprobed, 1 passing, 2 failing)
//! Probe    1 interval in ns  2 timeout in ns  3 misses  4 the service that is asked about  5 where the registration came from
//! Ruling   1 who  2 why  3 Time until  4 Time at  5 revision
//! Override 1 Ruling of the drain  2 Ruling of the weight  3 weight  4 Key, in a record of its own alone
//! Lease    1 SHA-256 of the secret, never the secret  2 interval in ms  3 misses  4 Key* replaced
//!          5 what is below a millisecond of the interval, in ns  6 emptied  7 owner (fixed64)  8 id, in a LeaseChange alone
//!          9 in whose quota it counts (fixed64), absent: nobody's
//! Removal  1 Key  2 Labels  3 reason (0 deregistered, 1 drained, 2 expired, 3 replaced)  4 detail
//! Change   one of: 1 Put { 1 Instance  2 Labels left }  2 Removal
//! LeaseChange  one of: 1 Lease kept  2 Lease lost  3 id of the lease that ended
//! OverrideChange  1 Key  2 Override from now on, absent: none  4 who  5 why  and what was done, one of:
//!                 3 (0 drained, 1 undrained, 2 weight taken back, 3 drain ended, 4 weight ended, 5 forgotten)  6 weight set, and 1
//! Batch    1 Time  2 Change*  3 LeaseChange*  4 revision (3 and 4 are absent in a history of format 1)
//!          5 OverrideChange*  6 by
//! Group    1 Batch*
//! ```

mod decode;
mod encode;
#[cfg(test)]
pub(super) mod oracle;
#[cfg(test)]
mod tests;
pub(super) mod wire;

use std::sync::Arc;

pub(super) use decode::Decoder;
use wire::{WireError, Writer};

use crate::{
    catalog::{Batch, LeaseRecord},
    model::{Instance, OverrideRecord, ValueError},
};

/// Why a record does not read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Not protobuf.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Protobuf, but not a value that we could have written.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A part that is always written is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// More of them, or a larger one, than there may be.
    #[error("its {0} is beyond what it may be")]
    Beyond(&'static str),
    /// Written by a version that knows more.
    #[error("its {0} is of a kind that this version does not know")]
    Unknown(&'static str),
}

/// See [`Decoder::instance`].
pub(super) fn encode_instance(instance: &Instance) -> Vec<u8> {
    // Its own estimate is roughly what it takes; one allocation as a rule.
    let mut to = Writer::with_capacity(instance.bytes());
    encode::instance(&mut to, instance);
    to.finish()
}

/// All but its id; see [`Decoder::lease`].
pub(super) fn encode_lease(lease: &LeaseRecord) -> Vec<u8> {
    let mut to = Writer::with_capacity(64);
    encode::lease(&mut to, lease, None);
    to.finish()
}

/// With its key; see [`Decoder::laid`].
pub(super) fn encode_override(record: &OverrideRecord) -> Vec<u8> {
    let mut to = Writer::with_capacity(record.laid.bytes());
    encode::override_record(&mut to, record);
    to.finish()
}

/// Batches that become durable together, with the changes of their leases.
pub(super) fn encode_group(batches: &[Arc<Batch>]) -> Vec<u8> {
    let bytes = batches.iter().map(|batch| batch.bytes() + batch.lease_bytes()).sum();
    let mut to = Writer::with_capacity(bytes);
    for batch in batches {
        to.message(1, |to| encode::batch(to, batch));
    }
    to.finish()
}

/// Of [`encode_group`].
pub(super) fn decode_group(bytes: &[u8]) -> Result<Vec<Batch>, RecordError> {
    Decoder::default().group(bytes)
}
