//! The wire's side of the registry: generated types live here and nowhere else in this crate.
//!
//! A request is validated into the model's types (every field that is wrong is named at once), handed to the driver or read
//! from the hub, and the answer is translated back. Nothing here decides anything about instances or leases.

mod acks;
mod backlog;
mod caller;
mod error;
mod fingerprint;
mod gate;
mod governance;
mod identity;
mod instance;
mod intake;
mod keep_alive;
mod lanes;
mod lists;
mod mutate;
mod page;
mod register;
mod registrant;
mod registry;
mod served;
#[cfg(test)]
mod tests;
mod told;
mod validate;
mod watch;

use std::{sync::Arc, time::Duration};

pub(crate) use backlog::Backlog;
pub(crate) use gate::ApiGate;
pub(crate) use lanes::Lanes;
use prost::Message as _;
use proto::registry::v1::{
    governance_service_server::GovernanceServiceServer, registry_service_server::RegistryServiceServer,
};
use service_host::DrainSignal;
use tonic::service::Routes;

use crate::{
    access::rules,
    driver::{Clock, Handle},
    hub::Hub,
    metrics::Metrics,
    prober::{Allowed, Speaks},
    running::StartError,
    store::Backup,
};

/// For reflection.
pub(crate) const DESCRIPTORS: &[u8] = proto::FILE_DESCRIPTOR_SET;

/// What every RPC of the registry needs.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// To change.
    pub(crate) driver: Handle,
    /// To read.
    pub(crate) hub: Arc<Hub>,
    /// For the age of what is told.
    pub(crate) clock: Clock,
    /// Ends streams.
    pub(crate) drain: DrainSignal,
    /// How long a watch may be silent.
    pub(crate) bookmark_interval: Duration,
    /// What unread watches hold.
    pub(crate) backlog: Backlog,
    /// Whose turn it is.
    pub(crate) lanes: Lanes,
    /// Counts watchers and what they are told.
    pub(crate) metrics: Metrics,
    /// The store's, if it has none of its own means.
    pub(crate) backup: Option<Arc<dyn Backup>>,
    /// Whether a gate says who calls.
    pub(crate) is_guarded: bool,
    /// Where instances may be probed.
    pub(crate) allowed: Arc<Allowed>,
    /// And how.
    pub(crate) probes: Speaks,
}

/// The registry's services.
pub(crate) fn routes(api: Api) -> Routes {
    let governance = GovernanceServiceServer::new(governance::Governance::new(&api));
    // Of the largest of its messages; `intake` knows how large each may be.
    let generated = RegistryServiceServer::new(api.clone()).max_decoding_message_size(intake::REGISTER_BYTES);
    let registry = intake::Intake(watch::WithWatch::new(api, generated));
    Routes::new(registry).add_service(governance.max_decoding_message_size(service_host::MAX_REQUEST_MESSAGE))
}

/// Whether the table says of each method that is served here who may call it.
pub(crate) fn every_method_has_a_rule() -> Result<(), StartError> {
    let unruled = methods().find(|method| matches!(rules::of(method), None | Some(rules::Rule::Elsewhere)));
    unruled.map_or(Ok(()), |method| Err(StartError::Unruled { method }))
}

/// The paths of all methods of the registry's own services.
fn methods() -> impl Iterator<Item = String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let own = set
        .file
        .into_iter()
        .filter(|file| file.package() == "tessera.registry.v1");
    let services = own.flat_map(|file| file.service);
    services.flat_map(|service| {
        let name = format!("/tessera.registry.v1.{}", service.name());
        let methods = service.method.into_iter();
        methods.map(move |method| format!("{name}/{}", method.name()))
    })
}
