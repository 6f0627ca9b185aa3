//! ListInstances as a tonic service: like the generated one, but its answers are bytes already.

use std::{pin::Pin, sync::Arc};

use bytes::BufMut as _;
use http::{Request, Response};
use proto::registry::v1 as wire;
use tonic::{
    Status,
    body::Body,
    codec::{Codec, EncodeBuf, Encoder},
    server::{Grpc, UnaryService},
};
use tonic_prost::ProstDecoder;

use super::{Api, lists};

/// The path of what is served here.
pub(super) const LIST_INSTANCES: &str = "/tessera.registry.v1.RegistryService/ListInstances";

/// A message that is encoded.
#[derive(Debug)]
pub(super) struct Encoded(pub(super) Vec<u8>);

/// Serves a ListInstances.
pub(super) async fn list_instances(api: Arc<Api>, request: Request<Body>) -> Response<Body> {
    let mut grpc = Grpc::new(ListCodec).apply_max_message_size_config(Some(service_host::MAX_REQUEST_MESSAGE), None);
    grpc.unary(ListInstances(api), request).await
}

struct ListInstances(Arc<Api>);

impl UnaryService<wire::ListInstancesRequest> for ListInstances {
    type Response = Encoded;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Encoded>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<wire::ListInstancesRequest>) -> Self::Future {
        let api = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = lists::instances(&api, &api.reader(&request), request.get_ref()).await?;
            Ok(tonic::Response::new(answer))
        })
    }
}

struct ListCodec;

impl Codec for ListCodec {
    type Encode = Encoded;
    type Decode = wire::ListInstancesRequest;
    type Encoder = AsItIs;
    type Decoder = ProstDecoder<wire::ListInstancesRequest>;

    fn encoder(&mut self) -> AsItIs {
        AsItIs
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

struct AsItIs;

impl Encoder for AsItIs {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, Encoded(bytes): Encoded, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(bytes.len());
        to.put_slice(&bytes);
        Ok(())
    }
}
