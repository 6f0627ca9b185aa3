//! `tessera.registry.v1.GovernanceService`: what operators decide, and backups.

mod backup;
mod decide;
mod explain;
mod pace;

use std::sync::Arc;

use backup::{Backups, Pieces};
use proto::registry::v1::{self as wire, governance_service_server::GovernanceService};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    Api, acks,
    error::ApiError,
    instance,
    lanes::Effort,
    registry::{Asker, WRONG_REPLY},
};
use crate::{
    access::scope::Need,
    catalog::{Command, Govern, Reply},
    model::{Instance, Revision},
};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Governance {
    api: Api,
    backups: Backups,
}

impl Governance {
    /// Of the registry that has this API.
    pub(super) fn new(api: &Api) -> Self {
        Self {
            api: api.clone(),
            backups: Backups::new(api),
        }
    }

    /// Has a decision made durable, for one who may decide about what is in the namespace. The instance is absent where it is not
    /// registered.
    async fn govern(&self, mut govern: Govern, asker: Asker) -> Result<(Option<Arc<Instance>>, Revision), ApiError> {
        asker.caller.needs(Need::Operate(&govern.key.namespace))?;
        // Until it is durable, and not while watchers are waited for.
        let _place = self.api.lanes.change(asker.peer)?;
        govern.who = asker.caller.signs(govern.who);
        match self.api.submit(Command::Govern(govern), asker.from).await? {
            Reply::Governed { instance, revision } => Ok((instance, revision)),
            _ => Err(WRONG_REPLY),
        }
    }
}

#[tonic::async_trait]
impl GovernanceService for Governance {
    type BackupStream = Pieces;

    async fn backup(&self, _request: Request<wire::BackupRequest>) -> Result<Response<Pieces>, Status> {
        Ok(Response::new(self.backups.begin()?))
    }

    async fn explain_instance(
        &self,
        request: Request<wire::ExplainInstanceRequest>,
    ) -> Result<Response<wire::ExplainInstanceResponse>, Status> {
        let Asker { caller, peer, .. } = self.api.asker(&request);
        let _turn = self.api.lanes.read(peer, Effort::Long).await?;
        let now = self.api.clock.now().moment;
        let told = explain::explain(&self.api.hub, &caller, now, request.into_inner())?;
        Ok(Response::new(told))
    }

    async fn drain(&self, request: Request<wire::DrainRequest>) -> Result<Response<wire::DrainResponse>, Status> {
        let asker = self.api.asker(&request);
        let (govern, ack_timeout) = decide::drain(request.into_inner(), self.api.clock.now().wall)?;
        let (instance, revision) = self.govern(govern, asker).await?;
        // Of one that is not there nothing is decided.
        let instance = instance.ok_or(WRONG_REPLY)?;
        // From now on: a slow disk is not the watchers' fault.
        let until = Instant::now() + ack_timeout;
        let late = acks::wait(&self.api, &instance, revision, until).await?;
        Ok(Response::new(wire::DrainResponse {
            revision: instance::number(revision),
            unacknowledged_watch_ids: late.watches,
            unheard_replicas: late.others,
            replica: late.replica,
            watchers_may_return: late.may_return,
        }))
    }

    async fn undrain(&self, request: Request<wire::UndrainRequest>) -> Result<Response<wire::UndrainResponse>, Status> {
        let asker = self.api.asker(&request);
        let (_, revision) = self.govern(decide::undrain(request.into_inner())?, asker).await?;
        let revision = instance::number(revision);
        Ok(Response::new(wire::UndrainResponse { revision }))
    }

    async fn set_weight(
        &self,
        request: Request<wire::SetWeightRequest>,
    ) -> Result<Response<wire::SetWeightResponse>, Status> {
        let asker = self.api.asker(&request);
        let govern = decide::set_weight(request.into_inner(), self.api.clock.now().wall)?;
        let (instance, revision) = self.govern(govern, asker).await?;
        Ok(Response::new(wire::SetWeightResponse {
            instance: instance.map(|instance| instance::to_wire(&instance)),
            revision: instance::number(revision),
        }))
    }
}
