//! `tessera.registry.v1.RegistryService`: each RPC in one breath.

use std::sync::Arc;

use proto::registry::v1::{self as wire, registry_service_server::RegistryService};
use service_host::Peer;
use telemetry::TraceParent;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Api, acks,
    caller::Caller,
    error::ApiError,
    identity, instance,
    keep_alive::{self, KeepAliveStream},
    lanes::{Place, peer_of},
    lists::{self, Reader},
    mutate, register, registrant,
};
use crate::{
    access::{Bounds, Principal, scope::Need},
    catalog::{Asked, CatalogError, Command, LeaseChoice, Reply},
    model::{PeerKey, Probe, Who},
    prober,
};

/// Who asks for a change.
#[derive(Debug)]
pub(super) struct Asker {
    /// For what may be done.
    pub(super) caller: Caller,
    /// For the record: the address that the request came from, and whose it was where that is known.
    pub(super) by: Option<Who>,
    /// The address alone, for what says by itself whose it was.
    pub(super) from: Option<Who>,
    /// For its place in a lane.
    pub(super) peer: PeerKey,
}

/// The catalog has answered something that was not asked.
pub(super) const WRONG_REPLY: ApiError = ApiError::Bug("the catalog answered another question");

#[tonic::async_trait]
impl RegistryService for Api {
    type KeepAliveStream = KeepAliveStream;
    type WatchStream = tokio_stream::Empty<Result<wire::WatchResponse, Status>>;

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let Asker {
            caller,
            by,
            peer: peer_key,
            ..
        } = self.asker(&request);
        let peer = request.extensions().get::<Peer>().cloned();
        let from = peer.as_ref().map(|peer| peer.address.ip());
        let from = from.or_else(|| request.remote_addr().map(|address| address.ip()));
        let registrant = registrant::name(request.extensions());
        let bounds = self.bounds(&request)?;
        let mut command = register::command(request.into_inner(), self.probes)?;
        command.registrant = registrant::key(registrant.as_deref());
        identity::binds(peer.as_ref(), &command.drafts).map_err(ApiError::from)?;
        if let LeaseChoice::Join { within, .. } = &mut command.lease {
            *within = bounds;
        }
        for draft in &mut command.drafts {
            caller.needs(Need::Register(&draft.key.namespace, &draft.key.service))?;
            if let Some(probe) = draft.spec.probe.take() {
                let probe = Probe::clone(&probe).asked_from(from);
                draft.spec.probe = Some(Arc::new(probe));
            }
        }
        if let Some((key, refused)) = prober::refused(&command.drafts, &self.allowed).await {
            return Err(ApiError::ProbeRefused(key, refused).into());
        }
        // Only now: a name server that is slow stands in nobody's way.
        let _place = self.lanes.change(peer_key)?;
        let submitted = self.submit(Command::Register(command), by).await;
        match submitted.map_err(|error| registrant::named(error, registrant))? {
            Reply::Registered(registered) => Ok(Response::new(register::reply(registered))),
            _ => Err(WRONG_REPLY.into()),
        }
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::RenewResponse>, Status> {
        let heartbeats = self.lanes.heartbeats(peer_of(request.extensions()));
        Ok(Response::new(
            keep_alive::renew(self, &heartbeats, self.bounds(&request)?, request.get_ref()).await?,
        ))
    }

    async fn keep_alive(
        &self,
        request: Request<Streaming<wire::KeepAliveRequest>>,
    ) -> Result<Response<KeepAliveStream>, Status> {
        let heartbeats = self.lanes.heartbeats(peer_of(request.extensions()));
        let bounds = self.bounds(&request)?;
        Ok(Response::new(keep_alive::keep_alive(
            self.clone(),
            heartbeats,
            bounds,
            request.into_inner(),
        )))
    }

    async fn deregister(
        &self,
        request: Request<wire::DeregisterRequest>,
    ) -> Result<Response<wire::DeregisterResponse>, Status> {
        let _place = self.change(&request)?;
        let mut command = mutate::deregister(request.get_ref())?;
        command.within = self.bounds(&request)?;
        match self
            .submit(Command::Deregister(command), self.asker(&request).by)
            .await?
        {
            Reply::Deregistered { revision } => Ok(Response::new(wire::DeregisterResponse {
                revision: instance::number(revision),
            })),
            _ => Err(WRONG_REPLY.into()),
        }
    }

    async fn update_instance(
        &self,
        request: Request<wire::UpdateInstanceRequest>,
    ) -> Result<Response<wire::UpdateInstanceResponse>, Status> {
        let _place = self.change(&request)?;
        let Asker { caller, by, .. } = self.asker(&request);
        let bounds = self.bounds(&request)?;
        let command = mutate::update(request.into_inner())?;
        caller.needs(Need::Register(&command.key.namespace, &command.key.service))?;
        // The certificate beside a token. An instance that is not of the lease is refused by the catalog.
        if bounds.is_some_and(|bounds| !bounds.cover(&command.key)) {
            return Err(ApiError::from(CatalogError::LeaseNotCovered).into());
        }
        match self.submit(Command::Update(command), by).await? {
            Reply::Updated { instance } => Ok(Response::new(wire::UpdateInstanceResponse {
                instance: Some(instance::to_wire(&instance)),
                revision: instance::number(instance.revision),
            })),
            _ => Err(WRONG_REPLY.into()),
        }
    }

    async fn list_services(
        &self,
        request: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        let answer = lists::services(self, &self.reader(&request), request.get_ref()).await?;
        Ok(Response::new(answer))
    }

    /// Not this way: `served` has the method.
    async fn list_instances(
        &self,
        _request: Request<wire::ListInstancesRequest>,
    ) -> Result<Response<wire::ListInstancesResponse>, Status> {
        Err(ApiError::Bug("a list is not served by the generated service").into())
    }

    async fn get_instance(
        &self,
        request: Request<wire::GetInstanceRequest>,
    ) -> Result<Response<wire::GetInstanceResponse>, Status> {
        let answer = lists::get(self, &self.reader(&request), request.get_ref()).await?;
        Ok(Response::new(answer))
    }

    /// Not this way: `watch::WithWatch` takes the method before the generated service sees it.
    async fn watch(&self, _request: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(ApiError::Bug("a watch is not served by the generated service").into())
    }

    async fn ack_watch(
        &self,
        request: Request<wire::AckWatchRequest>,
    ) -> Result<Response<wire::AckWatchResponse>, Status> {
        let holder = acks::holder(request.extensions());
        acks::acknowledge(self, &holder, request.get_ref())?;
        Ok(Response::new(wire::AckWatchResponse {}))
    }

    async fn await_watchers(
        &self,
        request: Request<wire::AwaitWatchersRequest>,
    ) -> Result<Response<wire::AwaitWatchersResponse>, Status> {
        let caller = self.caller(&request);
        let answer = acks::await_watchers(self, &caller, request.get_ref()).await?;
        Ok(Response::new(answer))
    }
}

impl Api {
    fn caller<T>(&self, request: &Request<T>) -> Caller {
        Caller::of(request.extensions(), self.is_guarded)
    }

    /// Who reads.
    pub(super) fn reader<T>(&self, request: &Request<T>) -> Reader {
        Reader {
            caller: self.caller(request),
            peer: peer_of(request.extensions()),
        }
    }

    /// How far whoever asks may go with the secret of a lease.
    fn bounds<T>(&self, request: &Request<T>) -> Result<Option<Bounds>, ApiError> {
        Caller::bounds(request.extensions(), self.is_guarded)
    }

    /// A place for a change, before anything is made of it; to be held until it is answered.
    fn change<T>(&self, request: &Request<T>) -> Result<Place, ApiError> {
        self.lanes.change(peer_of(request.extensions()))
    }

    /// Who asks.
    pub(super) fn asker<T>(&self, request: &Request<T>) -> Asker {
        let address = request.remote_addr();
        let by = match (address, request.extensions().get::<Principal>()) {
            (Some(address), Some(principal)) => Some(Who::of(&format!("{address}, {principal}"))),
            (Some(address), None) => Some(Who::of(&address.to_string())),
            (None, principal) => principal.map(|principal| Who::of(&principal.to_string())),
        };
        Asker {
            caller: self.caller(request),
            by,
            from: address.map(|address| Who::of(&address.to_string())),
            peer: peer_of(request.extensions()),
        }
    }

    /// Asks for a change, for the one who asks us.
    pub(super) async fn submit(&self, command: Command, by: Option<Who>) -> Result<Reply, ApiError> {
        let trace = TraceParent::of_current_if_sampled();
        Ok(self.driver.submit(Asked { command, by, trace }).await?)
    }
}
