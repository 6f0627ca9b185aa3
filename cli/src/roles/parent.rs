//! The end of the parent, read from stdin: `up` holds the other end of the pipe and never writes. The kernel closes it
//! however the parent ends, `kill -9` included, which no signal handler and no file with a process id can promise.

use std::io::Read as _;

use tokio::sync::oneshot;

/// Resolves when stdin reaches its end; never, unless `bound` to the parent.
pub(crate) async fn gone(bound: bool) {
    if !bound {
        return std::future::pending().await;
    }
    let (sender, receiver) = oneshot::channel();
    // A thread of its own that nobody joins: tokio's stdin would hold up the end of the runtime until the next byte,
    // and this read returns only when the parent is gone.
    let reader = std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 64];
        loop {
            match stdin.read(&mut ignored) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Nobody waits for it any more: then it is ending anyway.
        let _ = sender.send(());
    });
    match reader {
        // An error is a sender that was dropped unsent, which the loop above does not do.
        Ok(_) => drop(receiver.await),
        Err(error) => {
            tracing::warn!(%error, "the end of the parent cannot be watched");
            std::future::pending().await
        }
    }
}
