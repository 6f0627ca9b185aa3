//! A tower layer that makes the span and measures the duration of every call a server answers.
//!
//! It extracts the caller's context first and starts the span under it, attaches the context to the handler and to the
//! response body, and reads the status where gRPC puts it: in the headers of a response without a body, in the trailers
//! of any other. A body that is dropped before its trailers was cancelled by the caller. Health checks and reflection are
//! served without span or measure. Not here: deadlines, errors, anything that changes a response.

mod body;
mod future;
mod layer;

pub use body::TraceBody;
pub use future::TraceFuture;
pub use layer::{Endless, PeerAddr, ReceivedMessages, ServerTrace, ServerTraceLayer};
