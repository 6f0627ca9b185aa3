//! What is asked of our registry, encoded ahead of time.

use std::{cell::Cell, rc::Rc};

use prost::Message as _;
use prost_types::{Duration, FieldMask};
use proto::registry::v1 as wire;

use crate::{
    Failed,
    closed_loop::{Step, Work},
    payload::{self, Template},
};

pub(crate) const REGISTER: &str = "/tessera.registry.v1.RegistryService/Register";
pub(crate) const KEEP_ALIVE: &str = "/tessera.registry.v1.RegistryService/KeepAlive";
pub(crate) const LIST_INSTANCES: &str = "/tessera.registry.v1.RegistryService/ListInstances";
pub(crate) const UPDATE_INSTANCE: &str = "/tessera.registry.v1.RegistryService/UpdateInstance";
pub(crate) const WATCH: &str = "/tessera.registry.v1.RegistryService/Watch";

/// Where the next instance's number comes from; connections share it.
pub(crate) type Counter = Rc<Cell<u64>>;

/// Takes so many numbers.
pub(crate) fn take(counter: &Counter, count: u64) -> u64 {
    let first = counter.get();
    counter.set(first + count);
    first
}

/// A lease that was granted.
#[derive(Clone)]
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// How long leases live.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) interval_millis: i64,
    pub(crate) misses: u32,
}

impl Terms {
    /// Longer than any figure takes.
    pub(crate) const LONG: Self = Self {
        interval_millis: 3_600_000,
        misses: 3,
    };
}

/// Registers instances, each call under a new lease, as `registry-client` does it.
#[derive(Clone)]
pub(crate) struct Register {
    template: Template,
    records: u64,
    service_of: fn(u64) -> u64,
    counter: Counter,
    keep: bool,
    /// What was granted, if it was asked for.
    pub(crate) leases: Vec<Lease>,
}

impl Register {
    /// `records` instances a call; `service_of` says which service an instance is of.
    pub(crate) fn new(records: u64, service_of: fn(u64) -> u64, terms: Terms, counter: Counter) -> Self {
        let body = wire::RegisterRequest {
            instances: (0..records).map(|_| payload::instance()).collect(),
            heartbeat_interval: Some(Duration {
                seconds: terms.interval_millis / 1_000,
                nanos: i32::try_from(terms.interval_millis % 1_000 * 1_000_000).unwrap_or(0),
            }),
            misses_allowed: terms.misses,
            ..wire::RegisterRequest::default()
        };
        let request_id = wire::RegisterRequest {
            // A UUID when the mark has become digits.
            request_id: format!("00000000-0000-4000-8000-00{}", payload::NUMBER),
            ..wire::RegisterRequest::default()
        };
        // Fields may come in any order; this one stands last so that the marks before it belong to instances.
        let bytes = [body.encode_to_vec(), request_id.encode_to_vec()].concat();
        Self {
            template: Template::new(bytes, usize::try_from(records).unwrap_or(1)),
            records,
            service_of,
            counter,
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
    fn begin(&mut self, _: usize, message: &mut Vec<u8>) -> &'static str {
        let first = take(&self.counter, self.records);
        let service_of = self.service_of;
        self.template
            .write(|nth| (service_of(first + nth), first + nth), message);
        REGISTER
    }

    fn answer(&mut self, _: usize, answer: &[u8], _: &mut Vec<u8>) -> Result<Step, Failed> {
        if self.keep {
            let answer = wire::RegisterResponse::decode(answer)?;
            self.leases.push(Lease {
                id: answer.lease_id,
                secret: answer.lease_secret,
            });
        }
        Ok(Step::Done(self.records))
    }
}

/// Lists the instances of one service after the other.
pub(crate) struct List {
    requests: Rc<Vec<Vec<u8>>>,
    next: usize,
    instances: usize,
}

impl List {
    /// `services` services of `instances` each.
    pub(crate) fn new(services: u64, instances: usize, first: usize) -> Self {
        let requests = (0..services).map(|service| list(service).encode_to_vec()).collect();
        Self {
            requests: Rc::new(requests),
            next: first,
            instances,
        }
    }
}

/// Asks for the instances of a service.
pub(crate) fn list(service: u64) -> wire::ListInstancesRequest {
    wire::ListInstancesRequest {
        service: payload::service(service),
        ..wire::ListInstancesRequest::default()
    }
}

impl Work for List {
    fn begin(&mut self, _: usize, message: &mut Vec<u8>) -> &'static str {
        message.extend_from_slice(&self.requests[self.next % self.requests.len()]);
        self.next += 1;
        LIST_INSTANCES
    }

    fn answer(&mut self, _: usize, answer: &[u8], _: &mut Vec<u8>) -> Result<Step, Failed> {
        enough(answer.len(), self.instances * payload::RECORD)?;
        Ok(Step::Done(1))
    }
}

/// An answer has at least the records that were asked for.
pub(crate) fn enough(found: usize, least: usize) -> Result<(), Failed> {
    if found < least {
        return Err(format!("an answer of {found} bytes where {least} are asked for").into());
    }
    Ok(())
}

/// Heartbeats in messages of at most `each`, ready to be sent.
pub(crate) fn heartbeats(leases: &[Lease], each: usize) -> Vec<Vec<u8>> {
    let request = |leases: &[Lease]| wire::KeepAliveRequest {
        renewals: leases
            .iter()
            .map(|lease| wire::RenewRequest {
                lease_id: lease.id.clone(),
                lease_secret: lease.secret.clone(),
            })
            .collect(),
    };
    leases
        .chunks(each)
        .map(|leases| request(leases).encode_to_vec())
        .collect()
}

/// Leases that an answer to heartbeats says are alive.
pub(crate) fn renewed(answer: &[u8]) -> Result<u64, Failed> {
    use wire::keep_alive_result::Outcome;
    let results = wire::KeepAliveResponse::decode(answer)?.results;
    let alive = results
        .iter()
        .filter(|result| matches!(result.outcome, Some(Outcome::Ttl(_))));
    Ok(alive.count() as u64)
}

/// Watches a service.
pub(crate) fn watch(service: u64) -> Vec<u8> {
    let request = wire::WatchRequest {
        service: payload::service(service),
        ..wire::WatchRequest::default()
    };
    request.encode_to_vec()
}

/// What a watch was told, without decoding all of it: most of a fan-out's messages are the same.
pub(crate) fn told(message: &[u8]) -> Told<'_> {
    const SNAPSHOT: u32 = 3;
    const DELTA: u32 = 4;
    let mut told = Told::Nothing;
    for (number, value) in Fields(message) {
        match number {
            SNAPSHOT => told = Told::State,
            DELTA => told = Told::Change(value),
            _ => {}
        }
    }
    told
}

/// See [`told`].
pub(crate) enum Told<'a> {
    /// Progress.
    Nothing,
    /// All there is.
    State,
    /// A change, encoded.
    Change(&'a [u8]),
}

/// Instances that a delta removes.
pub(crate) fn removals(delta: &[u8]) -> usize {
    const EVENTS: u32 = 1;
    const REMOVED: u32 = 2;
    let removes = |event| Fields(event).any(|(number, _)| number == REMOVED);
    Fields(delta)
        .filter(|(number, event)| *number == EVENTS && removes(event))
        .count()
}

/// One instance that is changed again and again: all that its owner must know.
pub(crate) struct Changed {
    lease: Lease,
    instance: wire::Instance,
    epoch: i64,
    change: u64,
}

impl Changed {
    /// The request that registers instance `number` of `service`.
    pub(crate) fn registration(service: u64, number: u64) -> Result<wire::RegisterRequest, Failed> {
        Ok(wire::RegisterRequest {
            instances: vec![payload::instance_of(service, number)?],
            heartbeat_interval: Some(Duration {
                seconds: 3_600,
                nanos: 0,
            }),
            ..wire::RegisterRequest::default()
        })
    }

    /// From its answer.
    pub(crate) fn registered(request: wire::RegisterRequest, answer: &[u8]) -> Result<Self, Failed> {
        let answer = wire::RegisterResponse::decode(answer)?;
        let instance = request.instances.into_iter().next().ok_or("no instance")?;
        Ok(Self {
            lease: Lease {
                id: answer.lease_id,
                secret: answer.lease_secret,
            },
            instance,
            epoch: answer.epoch,
            change: 0,
        })
    }

    /// The next change: other metadata of the same size.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.change += 1;
        let commit = format!("{:012x}", self.change);
        self.instance.metadata.insert("commit".to_owned(), commit);
        let request = wire::UpdateInstanceRequest {
            lease_id: self.lease.id.clone(),
            lease_secret: self.lease.secret.clone(),
            instance: Some(self.instance.clone()),
            update_mask: Some(FieldMask {
                paths: vec!["metadata".to_owned()],
            }),
            epoch: self.epoch,
        };
        request.encode_to_vec()
    }
}

/// The length-delimited fields of a message; ends at what it cannot read.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = prost::encoding::decode_varint(&mut self.0).ok()?;
            match key & 7 {
                0 => {
                    prost::encoding::decode_varint(&mut self.0).ok()?;
                }
                2 => {
                    let length = usize::try_from(prost::encoding::decode_varint(&mut self.0).ok()?).ok()?;
                    let (value, rest) = self.0.split_at_checked(length)?;
                    self.0 = rest;
                    return Some((u32::try_from(key >> 3).ok()?, value));
                }
                _ => return None,
            }
        }
    }
}
