//! The encoding against prost's, and what becomes of records that nobody has written.

use proptest::prelude::*;
use prost::Message as _;

use super::{
    Decoder, RecordError, decode_group, encode_group, encode_instance, encode_lease, encode_override,
    oracle::{BatchRecord, GroupRecord, InstanceRecord, LaidRecord, LeaseTermsRecord},
    wire::{Fields, WireError, Writer},
};
use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord, OverrideChange, Removal},
    fixtures::{draft, heartbeat, key},
    model::{
        Act, Detail, Endpoint, Endpoints, GrpcService, Health, Host, Instance, Label, LeaseId, LeaseSecret, Metadata,
        Override, OverrideRecord, Port, Probe, Protocol, Registrant, RemovalReason, ReplicaId, Revision, Ruling,
        Status, Version, WallTime, Weight, Who,
    },
};
use std::sync::Arc;

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let protocol = prop_oneof![Just(Protocol::Grpc), Just(Protocol::Grpcs), Just(Protocol::Http)];
    let host = prop_oneof![
        Just("127.0.0.1".to_owned()),
        Just("::1".to_owned()),
        "[a-z]{1,60}\\.[a-z]{1,60}\\.[a-z]{1,60}"
    ];
    let endpoint = (protocol, host, 1..=65_535_u32).prop_map(|(protocol, host, port)| Endpoint {
        protocol,
        host: Host::try_new(&host).expect("a host"),
        port: Port::try_new(port).expect("a port"),
    });
    proptest::collection::vec(endpoint, 1..4).prop_map(|endpoints| endpoints.into_iter().collect())
}

fn time() -> impl Strategy<Value = WallTime> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| WallTime { seconds, nanos })
}

fn weight() -> impl Strategy<Value = Weight> {
    (0..=1_000_u32).prop_map(|weight| Weight::try_new(weight).expect("a weight"))
}

fn who() -> impl Strategy<Value = Who> {
    "[a-zé@]{1,128}".prop_map(|who| Who::try_new(&who).expect("a name"))
}

fn ruling() -> impl Strategy<Value = Ruling> {
    let until = proptest::option::of(time());
    (who(), "[a-zé ]{0,200}", until, time(), any::<u64>()).prop_map(|(who, why, until, at, revision)| Ruling {
        who,
        why: Detail::of(&why),
        until,
        at,
        revision: Revision::new(revision),
    })
}

fn laid() -> impl Strategy<Value = Option<Arc<Override>>> {
    let weight = proptest::option::of((weight(), ruling()));
    (proptest::option::of(ruling()), weight).prop_map(|(drain, weight)| Override { drain, weight }.kept())
}

fn override_change() -> impl Strategy<Value = OverrideChange> {
    let act = prop_oneof![
        Just(Act::Drained),
        Just(Act::Undrained),
        weight().prop_map(Act::WeightSet),
        Just(Act::WeightCleared),
        Just(Act::DrainEnded),
        Just(Act::WeightEnded),
        Just(Act::Forgotten),
    ];
    let who = proptest::option::of(who());
    (0..99_u8, act, who, "[a-zé ]{0,200}", laid()).prop_map(|(id, act, who, why, now)| OverrideChange {
        key: key("a-svc", &format!("i{id}")),
        act,
        who,
        why: Detail::of(&why),
        now,
    })
}

fn probe(seed: u128) -> Probe {
    let service = seed
        .is_multiple_of(2)
        .then(|| GrpcService::try_new("a.B").expect("a name"));
    let from = [None, "10.0.0.7".parse().ok(), "2001:db8::7".parse().ok()][(seed % 3) as usize];
    let interval = std::time::Duration::from_nanos(1_000_000_000 + (seed % 1_000_000_007) as u64);
    Probe::try_new(Some(interval), None, (seed % 11) as u32, service)
        .expect("a probe")
        .asked_from(from)
}

fn instance() -> impl Strategy<Value = Instance> {
    let status = prop_oneof![
        Just(Status::Starting),
        Just(Status::Up),
        Just(Status::Draining),
        Just(Status::Down)
    ];
    let metadata = proptest::collection::btree_map("[a-z._-]{1,63}", "\\PC{0,200}", 0..5);
    let services = proptest::collection::vec("[a-z]{1,30}\\.[A-Z]{1,200}", 0..3);
    let spec = (
        endpoints(),
        status,
        0..=1_000_u32,
        metadata,
        services,
        "[a-z]{0,9}",
        proptest::bool::ANY,
    );
    let numbers = (any::<u64>(), any::<u128>(), time());
    (spec, numbers, 0..99_u8, laid()).prop_map(
        |((endpoints, status, weight, metadata, services, tag, versioned), numbers, id, governance)| {
            let mut wanted = draft("a-svc", &format!("i{id}"), "z1");
            wanted.spec.endpoints = endpoints;
            wanted.spec.status = status;
            wanted.spec.weight = Weight::try_new(weight).expect("a weight");
            wanted.spec.metadata = Metadata::try_new(metadata.into_iter()).expect("fits");
            wanted.spec.grpc_services = services
                .iter()
                .map(|it| GrpcService::try_new(it).expect("a name"))
                .collect();
            wanted.spec.labels.tag = Label::try_new(&tag).expect("a label");
            wanted.spec.labels.version = Version::try_new(if versioned { "1.2.3" } else { "" }).expect("a version");
            let (revision, lease, started) = numbers;
            let instance = wanted.registered(Revision::new(revision), LeaseId::from_random(lease), started);
            let mut instance = Instance { governance, ..instance };
            if !versioned {
                instance.spec.probe = Some(Arc::new(probe(lease)));
                instance.health = [Health::Unprobed, Health::Passing, Health::Failing][usize::from(id) % 3];
            }
            instance
        },
    )
}

fn lease() -> impl Strategy<Value = LeaseRecord> {
    let replaced = proptest::collection::vec((0..99_u8).prop_map(|id| key("b-svc", &format!("i{id}"))), 0..4);
    let bits = (any::<u64>(), any::<u64>());
    (any::<u128>(), 100..3_000_u64, bits, replaced, any::<bool>()).prop_map(
        |(id, interval, (owner, registrant), replaced, emptied)| LeaseRecord {
            id: LeaseId::from_random(id),
            secret: LeaseSecret::from_random(id).hash(),
            heartbeat: heartbeat(interval),
            owner: ReplicaId::from_bits(owner),
            replaced,
            emptied,
            registrant: Registrant::from_bits(registrant),
        },
    )
}

fn batch() -> impl Strategy<Value = Batch> {
    let put = (instance(), any::<bool>()).prop_map(|(instance, left)| Change::Put {
        left: left.then(|| instance.spec.labels.clone()),
        instance: Arc::new(instance),
    });
    let reason = prop_oneof![
        Just(RemovalReason::Deregistered),
        Just(RemovalReason::Drained),
        Just(RemovalReason::Expired),
        Just(RemovalReason::Replaced)
    ];
    let removal = (instance(), reason, "[a-zé ]{0,200}").prop_map(|(instance, reason, detail)| {
        Change::Removed(Removal {
            key: instance.key,
            labels: instance.spec.labels.clone(),
            reason,
            detail: Detail::of(&detail),
        })
    });
    let of_lease = prop_oneof![
        lease().prop_map(LeaseChange::Kept),
        lease().prop_map(LeaseChange::Lost),
        any::<u128>().prop_map(|id| LeaseChange::Ended(LeaseId::from_random(id))),
    ];
    let changes = proptest::collection::vec(prop_oneof![put, removal], 0..6);
    let leases = proptest::collection::vec(of_lease, 0..4);
    let overrides = proptest::collection::vec(override_change(), 0..3);
    let by = proptest::option::of(who());
    (1..u64::MAX, time(), changes, leases, overrides, by).prop_map(|(revision, at, changes, leases, overrides, by)| {
        Batch {
            revision: Revision::new(revision),
            at,
            changes,
            leases,
            overrides,
            by,
            trace: None,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_are_the_bytes_of_prost_and_read_back(batches in proptest::collection::vec(batch().prop_map(Arc::new), 0..5)) {
        let bytes = encode_group(&batches);
        let theirs = GroupRecord { batches: batches.iter().map(|batch| BatchRecord::from(&**batch)).collect() };
        prop_assert_eq!(&bytes, &theirs.encode_to_vec());
        let found = decode_group(&bytes).expect("reads back");
        prop_assert!(found.iter().eq(batches.iter().map(|batch| &**batch)));
    }

    #[test]
    fn instances_and_leases_are_the_bytes_of_prost_and_read_back(instance in instance(), lease in lease()) {
        let bytes = encode_instance(&instance);
        prop_assert_eq!(&bytes, &InstanceRecord::from(&instance).encode_to_vec());
        prop_assert_eq!(Decoder::default().instance(&bytes).expect("reads back"), instance);
        let bytes = encode_lease(&lease);
        prop_assert_eq!(&bytes, &LeaseTermsRecord::from(&lease).encode_to_vec());
        prop_assert_eq!(Decoder::default().lease(lease.id, &bytes).expect("reads back"), lease);
    }

    #[test]
    fn overrides_are_the_bytes_of_prost_and_read_back(laid in laid(), id in 0..99_u8) {
        prop_assume!(laid.is_some());
        let record = OverrideRecord { key: key("a-svc", &format!("i{id}")), laid: laid.expect("is some") };
        let bytes = encode_override(&record);
        prop_assert_eq!(&bytes, &LaidRecord::from(&record).encode_to_vec());
        prop_assert_eq!(Decoder::default().laid(&bytes).expect("reads back"), record);
    }

    /// Whatever a disk has made of a record is refused or read, and neither takes more than the record has bytes for.
    #[test]
    fn damage_is_an_error_and_not_a_panic(batch in batch(), at in any::<proptest::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = encode_group(&[Arc::new(batch)]);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode_group(&bytes);
        bytes.truncate(at);
        let _ = decode_group(&bytes);
    }
}

#[test]
fn neighbours_share_what_they_have_in_common() {
    let mut decoder = Decoder::default();
    let mut read = |id: &str| {
        let instance =
            draft("a-svc", id, "z1").registered(Revision::new(1), LeaseId::from_random(1), crate::fixtures::WALL);
        decoder.instance(&encode_instance(&instance)).expect("reads back")
    };
    let (one, two) = (read("i1"), read("i2"));
    assert!(std::ptr::eq(one.key.service.as_str(), two.key.service.as_str()));
    assert!(std::ptr::eq(
        one.spec.labels.zone.as_str(),
        two.spec.labels.zone.as_str()
    ));
}

#[test]
fn what_a_newer_version_adds_is_skipped_and_what_it_changes_is_refused() {
    let instance =
        draft("a-svc", "i1", "z1").registered(Revision::new(1), LeaseId::from_random(1), crate::fixtures::WALL);
    let mut bytes = encode_instance(&instance);
    let mut more = Writer::default();
    more.text(90, "more");
    more.number(91, 7);
    more.fixed64(92, 7);
    bytes.extend(more.finish());
    // 93: a fixed32, which we never write.
    bytes.extend([0xed, 0x05, 1, 2, 3, 4]);
    assert_eq!(Decoder::default().instance(&bytes).expect("reads"), instance);

    let mut status = Writer::default();
    status.number(5, 9);
    bytes.extend(status.finish());
    let error = Decoder::default().instance(&bytes).expect_err("no such status");
    assert!(matches!(error, RecordError::Unknown("status")), "{error}");
}

/// Numbers and lists pass their own limits again, as all that is read back does.
#[test]
fn what_is_beyond_its_limit_is_refused() {
    let mut whole = Writer::default();
    let one = draft("a-svc", "i1", "z1").registered(Revision::new(1), LeaseId::from_random(7), crate::fixtures::WALL);
    whole.append(&encode_instance(&one));
    let whole = whole.finish();
    let check = |add: &dyn Fn(&mut Writer), expected: &str| {
        let mut more = Writer::default();
        more.append(&whole);
        add(&mut more);
        let error = Decoder::default().instance(&more.finish()).expect_err("is beyond");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let endpoint = |to: &mut Writer| {
        for _ in 0..9 {
            to.message(2, |endpoint| {
                endpoint.bytes(2, b"a");
                endpoint.number(3, 1);
            });
        }
    };
    check(&endpoint, "number of endpoints");
    check(
        &|to| (0..65).for_each(|_| to.bytes(6, b"a.B")),
        "number of gRPC services",
    );
    check(&|to| to.message(8, |time| time.number(2, 1_000_000_000)), "its time");
}

#[test]
fn what_is_not_protobuf_is_said_to_be_none() {
    for (bytes, why) in [
        (&[0x08][..], "it ends within a number"),
        (
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            "a number is too long",
        ),
        (&[0x0a, 0x05, 1], "it ends within a field"),
        (&[0x09, 1, 2], "it ends within a field"),
        (&[0x0b], "a field is of a type that there is not"),
    ] {
        let found = Fields::of(bytes).next().expect("a field").expect_err("damaged");
        assert_eq!(found, WireError(why), "{bytes:x?}");
    }
    assert!(Fields::of(&[]).next().is_none());
}
