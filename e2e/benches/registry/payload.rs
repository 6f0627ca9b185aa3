//! What is registered: one instance of exactly 256 bytes, the same ones for every opponent.
//!
//! Requests are encoded once, with marks where an instance's numbers go, and copied from then on: the load generator shares
//! two cores with the server, and should spend them on nothing but load.

use prost::Message as _;
use proto::registry::v1 as wire;

use crate::Failed;

/// The size of a record: an encoded `tessera.registry.v1.Instance`, etcd's value, and ZooKeeper's data.
pub(crate) const RECORD: usize = 256;
/// Stands for an instance's number, in ten digits.
pub(crate) const NUMBER: &str = "##########";
/// Stands for the number of its service, in seven digits.
pub(crate) const SERVICE: &str = "$$$$$$$";

/// An instance as its owner describes it: 256 bytes with marks. What is particular to an instance (id, host, pod, and a note that
/// fills the record up) differs from instance to instance; the rest is what the copies of a service have in common.
pub(crate) fn instance() -> wire::Instance {
    let mut instance = wire::Instance {
        service: format!("svc-{SERVICE}"),
        id: format!("svc-{NUMBER}"),
        endpoints: vec![wire::Endpoint {
            protocol: wire::Protocol::Grpc.into(),
            host: format!("h-{NUMBER}.local"),
            port: 50_051,
        }],
        version: "1.4.2".to_owned(),
        zone: "eu-central-1a".to_owned(),
        weight: Some(100),
        status: wire::InstanceStatus::Up.into(),
        grpc_services: vec!["tessera.ticket.v1.TicketService".to_owned()],
        ..wire::Instance::default()
    };
    let pairs = [("commit", "0a1b2c3d4e5f".to_owned()), ("pod", format!("pod-{NUMBER}"))];
    instance.metadata = pairs.map(|(key, value)| (key.to_owned(), value)).into();
    instance.metadata.insert("note".to_owned(), NUMBER.to_owned());
    let short = RECORD.saturating_sub(instance.encoded_len());
    let note = format!("{NUMBER}{}", "n".repeat(short));
    instance.metadata.insert("note".to_owned(), note);
    instance
}

/// The record's bytes, with marks.
pub(crate) fn record() -> Vec<u8> {
    let bytes = instance().encode_to_vec();
    assert_eq!(bytes.len(), RECORD, "the record's size is what the figures say");
    bytes
}

/// One instance without marks.
pub(crate) fn instance_of(service: u64, number: u64) -> Result<wire::Instance, Failed> {
    let mut bytes = Vec::new();
    Template::new(record(), 1).write(|_| (service, number), &mut bytes);
    Ok(wire::Instance::decode(bytes.as_slice())?)
}

/// The name of a service.
pub(crate) fn service(number: u64) -> String {
    format!("svc-{number:07}")
}

/// An encoded request with marks of one or more instances.
#[derive(Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    services: Vec<usize>,
    records: usize,
}

impl Template {
    /// Of `records` instances with equally many marks each.
    pub(crate) fn new(bytes: Vec<u8>, records: usize) -> Self {
        let find = |mark: &str| -> Vec<usize> {
            let mut found = Vec::new();
            let mut at = 0;
            while at + mark.len() <= bytes.len() {
                if &bytes[at..at + mark.len()] == mark.as_bytes() {
                    found.push(at);
                    at += mark.len();
                } else {
                    at += 1;
                }
            }
            found
        };
        let (numbers, services) = (find(NUMBER), find(SERVICE));
        Self {
            bytes,
            numbers,
            services,
            records,
        }
    }

    /// Appends the request; `of` says the numbers (service, instance) of its n-th instance.
    pub(crate) fn write(&self, of: impl Fn(u64) -> (u64, u64), out: &mut Vec<u8>) {
        let base = out.len();
        out.extend_from_slice(&self.bytes);
        for (marks, width, wanted) in [(&self.numbers, NUMBER.len(), 1), (&self.services, SERVICE.len(), 0)] {
            let each = (marks.len() / self.records).max(1);
            for (index, at) in marks.iter().enumerate() {
                let (service, number) = of((index / each) as u64);
                let value = if wanted == 1 { number } else { service };
                digits(&mut out[base + at..base + at + width], value);
            }
        }
    }
}

fn digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}
