//! gRPC's codec for requests that are written already: their bytes go out as they are, the answer is read by its generated type.

use bytes::{BufMut as _, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// A request, in pieces that a further try has, too, without copying them.
#[derive(Debug, Clone)]
pub(crate) struct Written(pub(crate) [Bytes; 3]);

impl Written {
    fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// In one piece.
    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::from(self.0.concat())
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsWritten;

impl Codec for AsWritten {
    type Encode = Written;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsWritten {
    type Item = Written;
    type Error = Status;

    fn encode(&mut self, item: Written, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(item.len());
        item.0.into_iter().for_each(|piece| into.put(piece));
        Ok(())
    }
}

impl Decoder for AsWritten {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // By the end of the message, not of the stream: the buffer holds one message.
        let answer = ExportTraceServiceResponse::decode(from);
        answer.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
