//! Hostile and unfinished: garbage on the wire, and what is promised but not there yet.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::support::{Fixture, ids, register};

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    register(&mut client, "a-svc", "1").await;
    let address = fixture.running().local_addr();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut raw = Grpc::new(channel.connect().await.expect("listens"));
    let nested = {
        // A length-delimited field 2 within field 2, a hundred deep.
        let mut bytes = Vec::new();
        for _ in 0..100 {
            let mut outer = vec![0x12];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(bytes);
            bytes = outer;
        }
        bytes
    };
    for method in [
        "Register",
        "Renew",
        "Deregister",
        "UpdateInstance",
        "ListServices",
        "ListInstances",
        "GetInstance",
    ] {
        for garbage in [
            vec![0xff; 64],
            vec![0x0a, 0xff, 0xff, 0x7f],
            vec![0x0a, 0x02, 0xc3, 0x28],
            nested.clone(),
        ] {
            raw.ready().await.expect("ready");
            let path = format!("/tessera.registry.v1.RegistryService/{method}")
                .parse()
                .expect("a path");
            let result = raw
                .unary(Request::new(Bytes::from(garbage.clone())), path, RawCodec)
                .await;
            // Unknown fields are no error in protobuf; whatever else it means, it must be refused, and not by a crash.
            match result {
                Ok(_) => assert!(method.starts_with("List"), "{method} took {garbage:?}"),
                Err(error) => assert!(
                    matches!(error.code(), Code::Internal | Code::InvalidArgument | Code::NotFound),
                    "{method}: {error:?}"
                ),
            }
        }
    }
    assert_eq!(ids(&mut client, "a-svc").await, ["1"]);
}

/// Sends and receives bytes as they are.
#[derive(Debug, Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
