//! gRPC's codec for requests that are written already: their bytes go out as they are, the answer is read by its generated type.

use std::io::Write as _;

use bytes::{BufMut as _, Bytes};
use flate2::{Compression, write::GzEncoder};
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

    /// In one piece, compressed. Fast rather than small: spans repeat themselves so much that they shrink to a tenth either way.
    pub(crate) fn to_gzip(&self) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::with_capacity(self.len() / 8), Compression::fast());
        let written = self.0.iter().try_for_each(|piece| encoder.write_all(piece));
        // Writing to memory does not fail.
        let bytes = written.and_then(|()| encoder.finish()).unwrap_or_default();
        Bytes::from(bytes)
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
