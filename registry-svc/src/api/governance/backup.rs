//! Backups of the store, as a stream that is not waited for all day.

use std::{io, sync::Arc};

use futures_util::{StreamExt as _, stream::BoxStream};
use proto::registry::v1 as wire;
use service_host::{DrainSignal, status};
use tokio::{
    runtime,
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tracing::{info, warn};

use super::pace::{PATIENCE, Pace, Patience};
use crate::{api::Api, driver::Clock, store::Backup};

/// A message of a backup: below the 4 MiB that a stock gRPC client accepts, and large enough that messages cost nothing.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// Messages that wait to be sent.
const MESSAGES: usize = 2;

/// What a caller reads.
pub(super) type Pieces = BoxStream<'static, Result<wire::BackupResponse, Status>>;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Backups {
    backup: Option<Arc<dyn Backup>>,
    clock: Clock,
    drain: DrainSignal,
    /// One backup at a time: each reads the whole store.
    turn: Arc<Semaphore>,
    patience: Patience,
}

impl Backups {
    /// Of the registry that has this API.
    pub(super) fn new(api: &Api) -> Self {
        Self {
            backup: api.backup.clone(),
            clock: api.clock,
            drain: api.drain.clone(),
            turn: Arc::new(Semaphore::new(1)),
            patience: PATIENCE,
        }
    }

    /// Begins one.
    pub(super) fn begin(&self) -> Result<Pieces, Status> {
        let Some(backup) = self.backup.clone() else {
            return Err(status::error(
                Code::Unimplemented,
                "STORE_HAS_ITS_OWN",
                "this registry's store is backed up by its own means: for etcd, `etcdctl snapshot save`",
            ));
        };
        let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() else {
            let text = "another backup is under way";
            return Err(status::error(Code::ResourceExhausted, "BACKUP_UNDER_WAY", text));
        };
        let (taken, patience) = (self.clock.now().wall, self.patience);
        let (to, messages) = mpsc::channel(MESSAGES);
        let runtime = runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let send = |message, patience| match runtime.block_on(async { timeout(patience, to.send(message)).await }) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it was read too slowly")),
            };
            let mut pace = Pace::new(patience);
            let mut message = Vec::new();
            let written = backup.write(taken, &mut |bytes| {
                message.extend_from_slice(&bytes);
                while message.len() >= MESSAGE_BYTES {
                    let rest = message.split_off(MESSAGE_BYTES);
                    let data = std::mem::replace(&mut message, rest).into();
                    let begun = Instant::now();
                    send(Ok(wire::BackupResponse { data }), pace.allows())?;
                    pace.took(MESSAGE_BYTES, begun.elapsed());
                }
                Ok(())
            });
            // The store is read no longer: what is left to say holds nobody up.
            drop(turn);
            match written {
                Ok(()) => {
                    // A caller that has gone needs no end.
                    let _ = send(Ok(wire::BackupResponse { data: message.into() }), patience.unread);
                    info!("a backup was taken");
                }
                Err(error) => {
                    warn!(%error, "a backup failed");
                    let text = format!("the backup failed: {error}");
                    let told = Err(status::error(Code::Unavailable, "BACKUP_FAILED", text));
                    let _ = send(told, patience.unread);
                }
            }
        });
        let drain = self.drain.clone();
        // A backup that a drain cuts short lacks its end, which whoever keeps it looks for.
        let messages = ReceiverStream::new(messages).take_until(async move { drain.wait().await });
        Ok(Box::pin(messages))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{model::WallTime, store::BackupError};

    /// A store that has no end.
    #[derive(Debug)]
    struct Endless;

    impl Backup for Endless {
        fn write(&self, _: WallTime, to: &mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> Result<(), BackupError> {
            loop {
                to(vec![0; MESSAGE_BYTES])?;
            }
        }
    }

    /// Whoever took a message now and then, each in time, held up the store's pages for hours: a bound was on each message, and
    /// none on all of them.
    #[tokio::test]
    async fn a_reader_that_is_slow_all_the_time_is_not_waited_for() {
        let backups = Backups {
            backup: Some(Arc::new(Endless)),
            clock: Clock::start(),
            drain: DrainSignal::new(),
            turn: Arc::new(Semaphore::new(1)),
            patience: Patience {
                grace: Duration::from_millis(200),
                rate: 1024 * 1024 * 1024,
                ..PATIENCE
            },
        };
        let mut stream = backups.begin().expect("begins");
        let mut reads = tokio::time::interval(Duration::from_millis(20));
        let slow = async {
            loop {
                reads.tick().await;
                match stream.next().await {
                    Some(Ok(_)) => {}
                    ended => return ended,
                }
            }
        };
        let ended = timeout(Duration::from_secs(20), slow).await.expect("ends");
        let status = ended.expect("says so").expect_err("is cut off");
        let details = status.get_error_details();
        assert_eq!(
            details.error_info().expect("has one").reason,
            "BACKUP_FAILED",
            "{status}"
        );
        assert!(status.message().contains("too slowly"), "{status}");
        assert_eq!(backups.turn.available_permits(), 1, "the next may come");
    }
}
