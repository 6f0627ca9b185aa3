//! The calls to one registry endpoint, in our own types. Which endpoint is called, and what happens when it fails, is decided
//! in `endpoints`.

use std::{sync::Arc, time::Duration};

use proto::registry::v1::{self, registry_service_client::RegistryServiceClient};
use tonic::Request;

use super::{MAX_ANSWER, steps::Steps};
use crate::{
    connections::Connections,
    error::Error,
    model::{Field, Granted, Instance, Late, Lease, Removal, Resume, Selector, ServiceSummary},
    token::Line,
};

/// The largest page that the registry gives.
const PAGE_SIZE: i32 = 1_000;

/// One registry endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: Arc<str>,
    pub(crate) connections: Arc<Connections>,
    /// Told to the peer with every unary call; who calls enforces it as well.
    pub(crate) deadline: Duration,
}

/// A page of a list and the token of the next one; empty at the end.
pub(crate) type Page<T> = (Vec<T>, String);

/// What a replica tells of its watchers.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// Its name among the others; empty where it is alone.
    pub(crate) replica: String,
    pub(crate) late: Late,
    /// It began a moment ago: those who are not back yet are nowhere in `late`.
    pub(crate) watchers_may_return: bool,
}

/// Its name in an update mask.
fn path(field: Field) -> &'static str {
    match field {
        Field::Status => "status",
        Field::Weight => "weight",
        Field::Metadata => "metadata",
    }
}

fn client(line: Line) -> RegistryServiceClient<Line> {
    RegistryServiceClient::new(line).max_decoding_message_size(MAX_ANSWER)
}

impl Peer {
    /// For unary calls.
    fn client(&self) -> RegistryServiceClient<Line> {
        client(self.connections.for_unary_calls())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    fn failed(&self, status: tonic::Status) -> Error {
        super::error(&self.address, &status)
    }

    pub(crate) fn timed_out(&self) -> Error {
        Error::Deadline {
            endpoint: self.address.to_string(),
            after: self.deadline,
        }
    }

    fn malformed(&self, problem: impl Into<String>) -> Error {
        Error::Malformed {
            endpoint: self.address.to_string(),
            problem: problem.into(),
        }
    }

    pub(crate) async fn register(
        &self,
        request_id: String,
        instance: Instance,
        heartbeat_interval: Duration,
        misses_allowed: u32,
    ) -> Result<Granted, Error> {
        let asked_id = instance.id.clone();
        let request = v1::RegisterRequest {
            request_id,
            instances: vec![instance.into()],
            heartbeat_interval: Some(super::wire_duration(heartbeat_interval)),
            misses_allowed,
            lease_id: String::new(),
            lease_secret: String::new(),
        };
        let answer = self.client().register(self.request(request)).await;
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        if answer.lease_id.is_empty() {
            return Err(self.malformed("a registration without a lease"));
        }
        Ok(Granted {
            lease: Lease {
                id: answer.lease_id,
                secret: answer.lease_secret,
            },
            instance_id: answer.instance_ids.into_iter().next().unwrap_or(asked_id),
            epoch: answer.epoch,
            revision: answer.revision,
            ttl: answer.ttl.and_then(super::duration).filter(|ttl| !ttl.is_zero()),
        })
    }

    /// The time that the lease lives from now, when the registry says it.
    pub(crate) async fn renew(&self, lease: Lease) -> Result<Option<Duration>, Error> {
        let request = v1::RenewRequest {
            lease_id: lease.id,
            lease_secret: lease.secret,
        };
        let answer = self.client().renew(self.request(request)).await;
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        Ok(answer.ttl.and_then(super::duration).filter(|ttl| !ttl.is_zero()))
    }

    /// Changes one field to what the instance says of it. The revision of the change.
    pub(crate) async fn update(
        &self,
        lease: Lease,
        instance: Instance,
        field: Field,
        epoch: i64,
    ) -> Result<i64, Error> {
        let request = v1::UpdateInstanceRequest {
            lease_id: lease.id,
            lease_secret: lease.secret,
            instance: Some(instance.into()),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![path(field).to_owned()],
            }),
            epoch,
        };
        let answer = self.client().update_instance(self.request(request)).await;
        Ok(answer.map_err(|status| self.failed(status))?.into_inner().revision)
    }

    /// Waits, at the registry, until every watch that is told of the instance has acknowledged the revision, or for so
    /// long.
    pub(crate) async fn await_watchers(
        &self,
        namespace: String,
        service: String,
        id: String,
        revision: i64,
        timeout: Duration,
    ) -> Result<Awaited, Error> {
        let request = v1::AwaitWatchersRequest {
            namespace,
            service,
            id,
            revision,
            timeout: Some(super::wire_duration(timeout)),
        };
        let answer = self.client().await_watchers(self.request(request)).await;
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        let late = Late {
            watches: answer.unacknowledged_watch_ids,
            replicas: answer.unheard_replicas,
        };
        Ok(Awaited {
            replica: answer.replica,
            late,
            watchers_may_return: answer.watchers_may_return,
        })
    }

    pub(crate) async fn deregister(&self, lease: Lease, removal: Removal) -> Result<(), Error> {
        let request = v1::DeregisterRequest {
            lease_id: lease.id,
            lease_secret: lease.secret,
            // All of the lease.
            instance_ids: Vec::new(),
            reason: v1::RemovalReason::from(removal).into(),
            detail: String::new(),
        };
        let answer = self.client().deregister(self.request(request)).await;
        answer.map(|_| ()).map_err(|status| self.failed(status))
    }

    pub(crate) async fn list_services(
        &self,
        namespace: String,
        page_token: String,
    ) -> Result<Page<ServiceSummary>, Error> {
        let request = v1::ListServicesRequest {
            namespace,
            page_size: PAGE_SIZE,
            page_token,
        };
        let answer = self.client().list_services(self.request(request)).await;
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        let services = answer.services.into_iter().map(ServiceSummary::from).collect();
        Ok((services, answer.next_page_token))
    }

    pub(crate) async fn list_instances(
        &self,
        namespace: String,
        service: String,
        page_token: String,
    ) -> Result<Page<Instance>, Error> {
        let request = v1::ListInstancesRequest {
            namespace,
            service,
            selector: None,
            page_size: PAGE_SIZE,
            page_token,
        };
        let answer = self.client().list_instances(self.request(request)).await;
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        let instances = answer.instances.into_iter().map(Instance::from).collect();
        Ok((instances, answer.next_page_token))
    }

    pub(crate) async fn get_instance(&self, namespace: String, service: String, id: String) -> Result<Instance, Error> {
        let request = v1::GetInstanceRequest { namespace, service, id };
        let answer = self.client().get_instance(self.request(request)).await;
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        answer
            .instance
            .map(Instance::from)
            .ok_or_else(|| self.malformed("an answer without its instance"))
    }

    /// Says of a watch on this connection that all up to the revision has been applied.
    pub(super) async fn ack_watch(&self, channel: Line, watch_id: String, revision: i64) -> Result<(), Error> {
        let request = v1::AckWatchRequest { watch_id, revision };
        let answer = client(channel).ack_watch(self.request(request)).await;
        answer.map(drop).map_err(|status| self.failed(status))
    }

    /// Opens a watch: answered when the registry has accepted it, which may be before its first step.
    pub(crate) async fn watch(
        &self,
        namespace: String,
        service: String,
        selector: Selector,
        resume: Resume,
    ) -> Result<Steps, Error> {
        let request = v1::WatchRequest {
            namespace,
            service,
            selector: (selector != Selector::default()).then(|| selector.into()),
            start_after_revision: resume.after,
            history_id: resume.history,
        };
        // Without a grpc-timeout: it would cover the whole stream, and a watch has no end of its own.
        let mut seat = self.connections.for_watch();
        let answer = client(seat.channel()).watch(Request::new(request)).await;
        seat.answered(answer.is_ok());
        let stream = answer.map_err(|status| self.failed(status))?.into_inner();
        Ok(Steps::new(self.clone(), stream, seat))
    }
}
