//! A status as trailers, and back.

use http::HeaderMap;
use http_body::Frame;
use tonic::Status;

/// The last frame of a body that ends with this status.
pub(super) fn frame<D>(status: &Status) -> Frame<D> {
    let mut headers = HeaderMap::new();
    replace(&mut headers, status);
    Frame::trailers(headers)
}

/// Puts this status in place of the one in headers or trailers; other metadata stays.
pub(super) fn replace(headers: &mut HeaderMap, status: &Status) {
    headers.remove(Status::GRPC_MESSAGE);
    headers.remove(Status::GRPC_STATUS_DETAILS);
    if let Err(error) = status.add_header(headers) {
        // Message and details are encoded to valid header bytes; this is unreachable, but an error still has a code.
        tracing::debug!(%error, "a status could not be written");
        headers.insert(Status::GRPC_STATUS, http::HeaderValue::from(i32::from(status.code())));
    }
}
