//! `tessera.registry.v1.GovernanceService`: backups; the rest is promised by the wire, not there yet, and says so.

use std::{io, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use proto::registry::v1::{self as wire, governance_service_server::GovernanceService};
use service_host::{DrainSignal, status};
use tokio::{
    runtime,
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use super::Api;
use crate::{driver::Clock, store::Backup};

/// A message of a backup: below the 4 MiB that a stock gRPC client accepts, and large enough that messages cost nothing.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// Messages that wait to be sent.
const MESSAGES: usize = 2;
/// What nobody reads ends after this: a backup under way keeps the store from using old pages again.
const UNREAD: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Governance {
    backup: Option<Arc<dyn Backup>>,
    clock: Clock,
    drain: DrainSignal,
    /// One backup at a time: each reads the whole store.
    turn: Arc<Semaphore>,
}

impl Governance {
    /// Of the registry that has this API.
    pub(super) fn new(api: &Api) -> Self {
        Self {
            backup: api.backup.clone(),
            clock: api.clock,
            drain: api.drain.clone(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

#[tonic::async_trait]
impl GovernanceService for Governance {
    type BackupStream = BoxStream<'static, Result<wire::BackupResponse, Status>>;

    async fn backup(&self, _request: Request<wire::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
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
        let taken = self.clock.now().wall;
        let (to, messages) = mpsc::channel(MESSAGES);
        let runtime = runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let send = |message| match runtime.block_on(timeout(UNREAD, to.send(message))) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            let mut message = Vec::new();
            let written = backup.write(taken, &mut |bytes| {
                message.extend_from_slice(&bytes);
                while message.len() >= MESSAGE_BYTES {
                    let rest = message.split_off(MESSAGE_BYTES);
                    send(Ok(wire::BackupResponse {
                        data: std::mem::replace(&mut message, rest).into(),
                    }))?;
                }
                Ok(())
            });
            match written {
                Ok(()) => {
                    // A caller that has gone needs no end.
                    let _ = send(Ok(wire::BackupResponse { data: message.into() }));
                    info!("a backup was taken");
                }
                Err(error) => {
                    warn!(%error, "a backup failed");
                    let text = format!("the backup failed: {error}");
                    let _ = send(Err(status::error(Code::Unavailable, "BACKUP_FAILED", text)));
                }
            }
        });
        let drain = self.drain.clone();
        // A backup that a drain cuts short lacks its end, which whoever keeps it looks for.
        let messages = ReceiverStream::new(messages).take_until(async move { drain.wait().await });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn drain(&self, _request: Request<wire::DrainRequest>) -> Result<Response<wire::DrainResponse>, Status> {
        Err(status::unimplemented("Drain"))
    }

    async fn undrain(
        &self,
        _request: Request<wire::UndrainRequest>,
    ) -> Result<Response<wire::UndrainResponse>, Status> {
        Err(status::unimplemented("Undrain"))
    }

    async fn set_weight(
        &self,
        _request: Request<wire::SetWeightRequest>,
    ) -> Result<Response<wire::SetWeightResponse>, Status> {
        Err(status::unimplemented("SetWeight"))
    }
}
