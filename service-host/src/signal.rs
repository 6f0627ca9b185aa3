//! When a process should stop: SIGTERM or SIGINT, and at once on the second one.

use std::{fmt, future::Future, io, pin::Pin};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

/// Resolves when the process is asked to stop.
pub struct Shutdown {
    requested: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Shutdown {
    /// Catches SIGTERM and SIGINT from now on. The first one resolves [`Shutdown::wait`]; the second ends the process at
    /// once, with exit code 128 + the signal's number (130 or 143), because somebody no longer wants to wait.
    ///
    /// # Errors
    /// If the operating system refuses to install a handler.
    pub fn install() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (request, requested) = watch::channel(false);
        let task = tokio::spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await.0;
            tracing::info!(signal = name, "stopping; a second signal stops at once");
            request.send_replace(true);
            let (name, code) = either(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = name, "stopping at once");
            exit_now(code);
        });
        Ok(Self { requested, task })
    }

    /// Resolves with that future instead of a signal, for tests and for servers inside a larger process.
    pub fn from_future(future: impl Future<Output = ()> + Send + 'static) -> Self {
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        let (request, requested) = watch::channel(false);
        let task = tokio::spawn(async move {
            future.await;
            request.send_replace(true);
        });
        Self { requested, task }
    }

    /// Waits for the first request to stop; returns at once if there has been one.
    pub async fn wait(&self) {
        // An error means that the task is gone: a runtime that shuts down, which is a request to stop as well.
        let _ = self.requested.clone().wait_for(|requested| *requested).await;
    }

    /// Whether the process has been asked to stop.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("requested", &self.is_requested())
            .finish_non_exhaustive()
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 143),
        _ = interrupt.recv() => ("SIGINT", 130),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the operator has asked twice; destructors and the flush are what they do not want to wait for"
)]
fn exit_now(code: i32) -> ! {
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_future_can_be_the_signal() {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = Shutdown::from_future(async move {
            let _ = stopped.await;
        });
        assert!(!shutdown.is_requested());
        stop.send(()).expect("listening");
        shutdown.wait().await;
        shutdown.wait().await;
        assert!(shutdown.is_requested());
    }
}
