//! What a failed attempt proves: whether the call may go elsewhere. Pure.
//!
//! Only what certainly reached no handler is repeated, however idempotent the call may be: that needs no knowledge of the
//! method and no budget, since it cannot multiply work (gRFC A6, "transparent retries"). Everything else is for policies that
//! know more, and they are not here.

/// Whether a stream that failed with `error`, after it was sent, was certainly not processed.
///
/// RFC 9113: section 8.7, REFUSED_STREAM guarantees that nothing was processed; section 6.8, so does a GOAWAY for every
/// stream above its last one, whatever its reason, and h2 fails exactly those streams with the GOAWAY itself. Streams up to
/// the last one that break later fail as I/O errors instead.
pub(crate) fn was_refused(error: &h2::Error) -> bool {
    let reset = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (reset || error.is_go_away())
}
