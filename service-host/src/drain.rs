//! The signal that tells long streams to end themselves, because nothing else ends them.
//!
//! HTTP/2's GOAWAY stops new streams and leaves open ones alone, for ever if need be.

use tokio_util::sync::CancellationToken;

/// Fires once, when the server starts to drain. Cheap to clone; give one to every service that holds long streams.
#[derive(Debug, Clone, Default)]
pub struct DrainSignal(CancellationToken);

impl DrainSignal {
    /// A signal of its own, for tests of a service outside a host.
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves when draining starts; at once if it has.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// Like [`DrainSignal::wait`], as a future that borrows nothing.
    pub fn into_wait(self) -> impl Future<Output = ()> + Send + 'static {
        self.0.cancelled_owned()
    }

    /// Whether draining has started.
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Starts draining.
    pub fn fire(&self) {
        self.0.cancel();
    }
}
