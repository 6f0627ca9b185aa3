//! The part of etcd's API that a registry needs, by hand: eight messages of `rpc.proto`, and what is asked with them.

use std::rc::Rc;

use prost::{Message, Oneof};

use crate::{
    Failed,
    closed_loop::{Step, Work},
    payload::{self, Template},
    tessera::{Counter, Fields, Told, enough, take},
};

pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// Puts that one transaction takes, by etcd's default (`--max-txn-ops`).
pub(crate) const TXN_MAX: u64 = 128;
/// Longer than any figure takes, in seconds.
pub(crate) const TTL_LONG: i64 = 3_600;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(bool, tag = "7")]
    pub(crate) serializable: bool,
}

#[derive(Clone, PartialEq, Message)]
struct RequestOp {
    #[prost(message, optional, tag = "2")]
    put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

/// Answers LeaseGrant and LeaseKeepAlive alike.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseResponse {
    #[prost(int64, tag = "2")]
    pub(crate) id: i64,
    #[prost(int64, tag = "3")]
    pub(crate) ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(oneof = "WatchKind", tags = "1")]
    kind: Option<WatchKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum WatchKind {
    #[prost(message, tag = "1")]
    Create(RangeRequest),
}

/// The key of an instance; its service is a prefix.
fn key() -> Vec<u8> {
    format!("{}{}", prefix(payload::SERVICE), payload::NUMBER).into_bytes()
}

fn prefix(service: &str) -> String {
    format!("/registry/default/svc-{service}/")
}

/// All of a service. Keys end in digits and the prefix in '/', whose successor is '0'.
fn range(service: u64, serializable: bool) -> RangeRequest {
    let key = prefix(&format!("{service:07}")).into_bytes();
    let mut range_end = key.clone();
    if let Some(last) = range_end.last_mut() {
        *last += 1;
    }
    RangeRequest {
        key,
        range_end,
        serializable,
    }
}

/// A lease id as a varint of nine bytes, however small it is: the length of what surrounds it is then known beforehand.
fn write_lease(place: &mut [u8], id: i64) {
    let last = place.len() - 1;
    for (index, byte) in place.iter_mut().enumerate() {
        let bits = u8::try_from(id >> (7 * index) & 0x7f).unwrap_or(0);
        *byte = if index == last { bits } else { bits | 0x80 };
    }
}

/// Grants a lease, then puts instances under it: one with Put, more with Txn.
#[derive(Clone)]
pub(crate) struct Register {
    grant: Vec<u8>,
    template: Template,
    /// Where in the request the lease's id goes, once for each record.
    leases_at: Vec<usize>,
    records: u64,
    service_of: fn(u64) -> u64,
    counter: Counter,
    granted: Vec<bool>,
    keep: bool,
    /// What was granted, if it was asked for.
    pub(crate) leases: Vec<i64>,
}

impl Register {
    /// `records` instances a lease; `service_of` says which service an instance is of.
    pub(crate) fn new(records: u64, service_of: fn(u64) -> u64, ttl: i64, counter: Counter) -> Self {
        let put = || PutRequest {
            key: key(),
            value: payload::record(),
            // Nine bytes as a varint, all ones: found again below.
            lease: i64::MAX,
        };
        let bytes = if records == 1 {
            put().encode_to_vec()
        } else {
            let success = (0..records).map(|_| RequestOp { put: Some(put()) }).collect();
            TxnRequest { success }.encode_to_vec()
        };
        let mut mark = [0; 9];
        write_lease(&mut mark, i64::MAX);
        let leases_at = (0..bytes.len().saturating_sub(8)).filter(|&at| bytes[at..at + 9] == mark);
        Self {
            grant: LeaseGrantRequest { ttl }.encode_to_vec(),
            leases_at: leases_at.collect(),
            template: Template::new(bytes, usize::try_from(records).unwrap_or(1)),
            records,
            service_of,
            counter,
            granted: Vec::new(),
            keep: false,
            leases: Vec::new(),
        }
    }

    /// Keeps the leases.
    pub(crate) fn keeping(mut self) -> Self {
        self.keep = true;
        self
    }
}

impl Work for Register {
    fn begin(&mut self, slot: usize, message: &mut Vec<u8>) -> &'static str {
        self.granted.resize(self.granted.len().max(slot + 1), false);
        self.granted[slot] = false;
        message.extend_from_slice(&self.grant);
        LEASE_GRANT
    }

    fn answer(&mut self, slot: usize, answer: &[u8], message: &mut Vec<u8>) -> Result<Step, Failed> {
        if self.granted[slot] {
            return Ok(Step::Done(self.records));
        }
        self.granted[slot] = true;
        let lease = LeaseResponse::decode(answer)?.id;
        if self.keep {
            self.leases.push(lease);
        }
        let first = take(&self.counter, self.records);
        let service_of = self.service_of;
        self.template
            .write(|nth| (service_of(first + nth), first + nth), message);
        for &at in &self.leases_at {
            write_lease(&mut message[at..at + 9], lease);
        }
        Ok(Step::Call(if self.records == 1 { PUT } else { TXN }))
    }
}

/// Grants leases without keys.
pub(crate) struct Grant {
    grant: Vec<u8>,
    /// What was granted.
    pub(crate) leases: Vec<i64>,
}

impl Grant {
    /// Leases that live so many seconds.
    pub(crate) fn new(ttl: i64) -> Self {
        Self {
            grant: LeaseGrantRequest { ttl }.encode_to_vec(),
            leases: Vec::new(),
        }
    }
}

impl Work for Grant {
    fn begin(&mut self, _: usize, message: &mut Vec<u8>) -> &'static str {
        message.extend_from_slice(&self.grant);
        LEASE_GRANT
    }

    fn answer(&mut self, _: usize, answer: &[u8], _: &mut Vec<u8>) -> Result<Step, Failed> {
        self.leases.push(LeaseResponse::decode(answer)?.id);
        Ok(Step::Done(1))
    }
}

/// Reads the instances of one service after the other, from the one member without asking a quorum.
pub(crate) struct Read {
    requests: Rc<Vec<Vec<u8>>>,
    next: usize,
    instances: usize,
}

impl Read {
    /// `services` services of `instances` each.
    pub(crate) fn new(services: u64, instances: usize, first: usize) -> Self {
        let requests = (0..services).map(|service| range(service, true).encode_to_vec());
        Self {
            requests: Rc::new(requests.collect()),
            next: first,
            instances,
        }
    }
}

impl Work for Read {
    fn begin(&mut self, _: usize, message: &mut Vec<u8>) -> &'static str {
        message.extend_from_slice(&self.requests[self.next % self.requests.len()]);
        self.next += 1;
        RANGE
    }

    fn answer(&mut self, _: usize, answer: &[u8], _: &mut Vec<u8>) -> Result<Step, Failed> {
        enough(answer.len(), self.instances * payload::RECORD)?;
        Ok(Step::Done(1))
    }
}

/// A linearizable read: answered once the member serves.
pub(crate) fn probe(service: u64) -> Vec<u8> {
    range(service, false).encode_to_vec()
}

/// A put of instance `number` of `service` with another value each time, without a lease.
pub(crate) fn change(service: u64, number: u64, change: u64) -> Result<Vec<u8>, Failed> {
    let mut instance = payload::instance_of(service, number)?;
    instance.metadata.insert("commit".to_owned(), format!("{change:012x}"));
    let request = PutRequest {
        key: format!("{}{number:010}", prefix(&format!("{service:07}"))).into_bytes(),
        value: instance.encode_to_vec(),
        lease: 0,
    };
    Ok(request.encode_to_vec())
}

/// Heartbeats, one a message: etcd has no other.
pub(crate) fn heartbeats(leases: &[i64]) -> Vec<Vec<u8>> {
    let request = |&id: &i64| LeaseKeepAliveRequest { id }.encode_to_vec();
    leases.iter().map(request).collect()
}

/// 1 if the answer to a heartbeat says that its lease is alive.
pub(crate) fn renewed(answer: &[u8]) -> Result<u64, Failed> {
    Ok(u64::from(LeaseResponse::decode(answer)?.ttl > 0))
}

/// Watches a service.
pub(crate) fn watch(service: u64) -> Vec<u8> {
    let kind = Some(WatchKind::Create(range(service, false)));
    WatchRequest { kind }.encode_to_vec()
}

/// What a watch was told: that it is there, or a change (the whole message; its events are field 11).
pub(crate) fn told(message: &[u8]) -> Told<'_> {
    if Fields(message).any(|(number, _)| number == EVENTS) {
        Told::Change(message)
    } else {
        Told::State
    }
}

const EVENTS: u32 = 11;

/// Keys that a watch's message says are gone.
pub(crate) fn removals(message: &[u8]) -> usize {
    // `Event.type`, field 1: 1 is DELETE, and PUT, being 0, is not sent.
    let is_delete = |event: &[u8]| event.starts_with(&[8, 1]);
    Fields(message)
        .filter(|(number, event)| *number == EVENTS && is_delete(event))
        .count()
}
