//! What a failed attempt proves: whether the call may go elsewhere. Pure.
//!
//! Only what certainly reached no handler is repeated, however idempotent the call may be: that needs no knowledge of the
//! method and no budget, since it cannot multiply work (gRFC A6, "transparent retries"). Everything else is for policies that
//! know more, and they are not here.

use std::error::Error as _;

use http::Request;
use hyper::client::conn::TrySendError;

use super::request::RequestBody;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It never left: here it is.
    Unsent(Box<Request<RequestBody>>, hyper::Error),
    /// It left, and the server told that it will not process it.
    Refused(hyper::Error),
    /// It left; nothing more is known.
    BrokenOff(hyper::Error),
}

impl Failure {
    pub(crate) fn of(mut error: TrySendError<Request<RequestBody>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(Box::new(request), error.into_error()),
            None => {
                let error = error.into_error();
                let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
                if h2.is_some_and(refused) {
                    Self::Refused(error)
                } else {
                    Self::BrokenOff(error)
                }
            }
        }
    }
}

/// RFC 9113: section 8.7, REFUSED_STREAM guarantees that nothing was processed; section 6.8, so does a GOAWAY for every
/// stream above its last one, whatever its reason, and h2 fails exactly those streams with the GOAWAY itself. Streams up to
/// the last one that break later fail as I/O errors instead.
fn refused(error: &h2::Error) -> bool {
    let reset = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (reset || error.is_go_away())
}
