//! What passes, what does not, and that neither depends on how the bytes are cut.

use proptest::prelude::*;
use prost::Message as _;
use proto::registry::v1 as wire;

use super::*;
use crate::limits;

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// Feeds a stream of messages in pieces. Where it is refused, with how many bytes had come.
fn feed(most: &'static Most, bytes: &[u8], piece: usize) -> Result<(), (Excess, usize)> {
    let mut meter = Meter::new(most.bytes, most.entries, most.fields, most.shapes);
    for (n, chunk) in bytes.chunks(piece).enumerate() {
        meter.feed(chunk).map_err(|excess| (excess, n * piece))?;
    }
    Ok(())
}

fn check(most: &'static Most, bytes: &[u8], expected: Result<(), Excess>) {
    for piece in [1, 2, 7, 1_000, usize::MAX] {
        let found = feed(most, bytes, piece).map_err(|(excess, _)| excess);
        assert_eq!(found, expected, "in pieces of {piece}");
    }
}

fn largest_instance() -> wire::Instance {
    wire::Instance {
        namespace: "n".repeat(63),
        service: "s".repeat(63),
        id: "i".repeat(128),
        endpoints: vec![
            wire::Endpoint {
                protocol: 2,
                host: "h".repeat(253),
                port: 65_535,
            };
            limits::ENDPOINTS
        ],
        version: "v".repeat(64),
        group: "g".repeat(63),
        zone: "z".repeat(63),
        tag: "t".repeat(63),
        weight: Some(1_000),
        status: 2,
        grpc_services: vec!["g".repeat(255); limits::GRPC_SERVICES],
        metadata: (0..limits::METADATA_PAIRS)
            .map(|n| (format!("{n:063}"), "v".repeat(193)))
            .collect(),
        started_at: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 1,
        }),
        ..Default::default()
    }
}

/// The largest good message of each method passes, and so do those that `validate` is to answer.
#[test]
fn what_the_rules_allow_passes() {
    let text = || "x".repeat(limits::LEASE_TEXT_CHARS);
    let register = wire::RegisterRequest {
        request_id: "0".repeat(36),
        instances: vec![largest_instance(); limits::INSTANCES_PER_REGISTER],
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 1 }),
        misses_allowed: 3,
        lease_id: text(),
        lease_secret: text(),
    };
    check(&REGISTER, &framed(&register.encode_to_vec()), Ok(()));
    let many = wire::RegisterRequest {
        instances: vec![wire::Instance::default(); limits::INSTANCES_PER_REGISTER + 1],
        ..Default::default()
    };
    check(&REGISTER, &framed(&many.encode_to_vec()), Ok(()));

    let renewal = wire::RenewRequest {
        lease_id: text(),
        lease_secret: text(),
    };
    let round = wire::KeepAliveRequest {
        renewals: vec![renewal; limits::RENEWALS_PER_ROUND + 1],
    };
    // A stream of them: each is counted by itself.
    check(&KEEP_ALIVE, &framed(&round.encode_to_vec()).repeat(3), Ok(()));

    let update = wire::UpdateInstanceRequest {
        instance: Some(largest_instance()),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["metadata".into(); 3],
        }),
        ..Default::default()
    };
    check(&UPDATE_INSTANCE, &framed(&update.encode_to_vec()), Ok(()));

    let deregister = wire::DeregisterRequest {
        instance_ids: vec!["i".repeat(128); limits::INSTANCES_PER_LEASE + 1],
        ..Default::default()
    };
    check(&DEREGISTER, &framed(&deregister.encode_to_vec()), Ok(()));

    let list = wire::ListInstancesRequest {
        page_token: "0".repeat(limits::PAGE_TOKEN_CHARS + 1),
        ..Default::default()
    };
    check(&NAMES, &framed(&list.encode_to_vec()), Ok(()));
    check(&NAMES, &framed(&[]).repeat(3), Ok(()));
}

/// 1.3 million empty instances were 2.5 MiB on the wire and 570 MB in memory.
#[test]
fn many_empty_entries_are_refused_long_before_they_have_all_come() {
    let empty = |key: u8, count: usize| framed(&[key, 0].repeat(count));
    for (most, key, count) in [
        (&REGISTER, 0x12, 1_300_000),
        (&KEEP_ALIVE, 0x0a, 130_000),
        (&DEREGISTER, 0x1a, 130_000),
    ] {
        let bytes = empty(key, count);
        check(most, &bytes, Err(Excess::Fields));
        let (_, come) = feed(most, &bytes, 1_000).expect_err("refused");
        assert!(come < 6_000, "{come} bytes had come");
    }
    // Within the one instance that there is: endpoints, and paths of the mask.
    for (number, key) in [(0x1a, 0x22), (0x22, 0x0a)] {
        let mut update = vec![number];
        let inner = [key, 0].repeat(100_000);
        prost::encoding::encode_varint(inner.len() as u64, &mut update);
        update.extend(inner);
        check(&UPDATE_INSTANCE, &framed(&update), Err(Excess::Fields));
    }
    // Spread over instances that are few enough: some of them have thousands of endpoints.
    let crowded = wire::Instance {
        endpoints: vec![wire::Endpoint::default(); 1_000],
        ..Default::default()
    };
    let register = wire::RegisterRequest {
        instances: vec![crowded; 64],
        ..Default::default()
    };
    check(&REGISTER, &framed(&register.encode_to_vec()), Err(Excess::Fields));
}

/// The worst that passes, decoded: what a stream can make us hold besides its bytes.
#[test]
fn what_passes_is_small_when_it_is_decoded() {
    let per_entry = size_of::<wire::Instance>().max(size_of::<wire::RenewRequest>());
    // A vector that grows has room for twice as many.
    let entries = 2 * REGISTER.entries * per_entry;
    let fields = 2 * REGISTER.fields * size_of::<wire::Endpoint>().max(2 * size_of::<String>());
    assert!(entries + fields < 2 << 20, "{entries} + {fields} bytes");
}

#[test]
fn what_is_too_long_is_refused_with_its_prefix() {
    let length = u32::try_from(NAMES_BYTES + 1).expect("short").to_be_bytes();
    let prefix = [&[0][..], &length].concat();
    check(&NAMES, &prefix, Err(Excess::Bytes(NAMES_BYTES + 1)));
}

#[test]
fn what_does_not_fit_is_malformed() {
    for message in [
        // A key that does not end; a value, a length and a field that are not there; a group of wire type 7.
        &[0x80][..],
        &[0x08],
        &[0x12],
        &[0x12, 5, 0],
        &[0x0d, 0, 0],
        &[0x0f],
        &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        // An instance with a field that is longer than itself.
        &[0x12, 2, 0x0a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        check(&REGISTER, &framed(message), Err(Excess::Malformed));
        assert!(wire::RegisterRequest::decode(message).is_err(), "{message:?}");
    }
    // Compressed: tonic refuses it.
    check(&REGISTER, &[1, 0, 0, 0, 1, 0x80], Ok(()));
}

proptest! {
    /// Whatever decodes, and is small, passes, however it is cut.
    #[test]
    fn nothing_that_decodes_is_malformed(message in proptest::collection::vec(any::<u8>(), 0..40), piece in 1..10_usize) {
        let passes = feed(&REGISTER, &framed(&message), piece);
        if wire::RegisterRequest::decode(message.as_slice()).is_ok() {
            prop_assert_eq!(passes, Ok(()));
        }
    }
}

/// A request that its caller resets, with this code.
struct Reset(Option<Code>);

impl http_body::Body for Reset {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|code| Err(Status::new(code, "reset"))))
    }
}

/// A process that was killed looked like one that had ended its KeepAlive as it should, if its reset came at a bad moment: its
/// leases were not suspected.
#[tokio::test]
async fn a_stream_that_is_cancelled_has_not_ended() {
    for code in [Code::Cancelled, Code::Unknown] {
        let body = Metered::new(Body::new(Reset(Some(code))), &KEEP_ALIVE);
        let decoder = tonic_prost::ProstDecoder::<wire::KeepAliveRequest>::default();
        let mut requests = tonic::Streaming::new_request(decoder, body, None, None);
        requests.message().await.expect_err("broken off");
    }
    let body = Metered::new(Body::new(Reset(None)), &KEEP_ALIVE);
    let decoder = tonic_prost::ProstDecoder::<wire::KeepAliveRequest>::default();
    let mut requests = tonic::Streaming::new_request(decoder, body, None, None);
    assert!(requests.message().await.expect("ends").is_none());
}
