//! What fault tests say to a registry, in its own protocol.

use std::time::Duration;

use proto::registry::v1::{self as wire, registry_service_client::RegistryServiceClient};
use tonic::{Code, Status, transport::Channel};

pub use proto::registry::v1::*;

/// The generated client.
pub type Client = RegistryServiceClient<Channel>;

/// The metadata key under which tests keep a value that is never used twice.
pub const VALUE: &str = "value";

/// All instances of a namespace at one revision.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Of the last page.
    pub revision: i64,
    /// By service and id.
    pub instances: Vec<wire::Instance>,
}

/// An instance as small as it may be.
pub fn instance(service: &str, id: &str) -> wire::Instance {
    wire::Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        endpoints: vec![wire::Endpoint {
            host: "127.0.0.1".into(),
            port: 7101,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The same with a value.
pub fn valued(service: &str, id: &str, value: u64) -> wire::Instance {
    wire::Instance {
        metadata: [(VALUE.to_owned(), value.to_string())].into(),
        ..instance(service, id)
    }
}

/// The value of an instance.
pub fn value(instance: &wire::Instance) -> Option<u64> {
    instance.metadata.get(VALUE)?.parse().ok()
}

/// Registers under a new lease with this time to live, five heartbeats long.
pub fn leased(instances: impl IntoIterator<Item = wire::Instance>, ttl: Duration) -> wire::RegisterRequest {
    wire::RegisterRequest {
        instances: instances.into_iter().collect(),
        heartbeat_interval: Some((ttl / 5).try_into().expect("short enough")),
        misses_allowed: 5,
        ..Default::default()
    }
}

/// The same under a lease that outlives every test: 3 hours.
pub fn lasting(instances: impl IntoIterator<Item = wire::Instance>) -> wire::RegisterRequest {
    leased(instances, Duration::from_secs(3 * 3_600))
}

/// A heartbeat.
pub fn renewal(lease: &wire::RegisterResponse) -> wire::RenewRequest {
    wire::RenewRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
    }
}

/// The end of a lease.
pub fn deregistration(lease: &wire::RegisterResponse) -> wire::DeregisterRequest {
    wire::DeregisterRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        ..Default::default()
    }
}

/// Another value for an instance that this lease keeps.
pub fn update(lease: &wire::RegisterResponse, instance: wire::Instance) -> wire::UpdateInstanceRequest {
    wire::UpdateInstanceRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        instance: Some(instance),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["metadata".into()],
        }),
        epoch: lease.epoch,
    }
}

/// Reads all pages of the namespace, or of one service of it.
///
/// # Errors
/// As the registry answers.
pub async fn list(client: &mut Client, service: &str) -> Result<Listing, Status> {
    let mut listing = Listing::default();
    let mut page_token = String::new();
    loop {
        let request = wire::ListInstancesRequest {
            service: service.to_owned(),
            page_size: 1_000,
            page_token,
            ..Default::default()
        };
        let page = client.list_instances(request).await?.into_inner();
        listing.revision = page.revision;
        listing.instances.extend(page.instances);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(listing);
        }
    }
}

/// Whether an error leaves open if the call took effect. What the registry refuses it says with other codes.
pub fn in_doubt(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
    )
}

/// Did the call provably reach nobody, because nobody listened?
pub fn reached_nobody(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}
