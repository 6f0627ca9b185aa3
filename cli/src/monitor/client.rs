//! Asks the monitor, wherever the registry says that it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::monitor::v1::{
    self, DependenciesRequest, QueryRequest, QueryResponse, TopRequest, TopResponse, Window,
    monitor_service_client::MonitorServiceClient,
};
use tonic::{Code, Request, Status};

use crate::{args::Discovery, channel, failure::Failure, registry};

/// The monitor adds up millions of calls in milliseconds; a month of everything takes a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// More edges than a person can look at; the API has pages for the rest.
const EDGES: i32 = 1_000;

/// A monitor to ask.
#[derive(Debug, Clone)]
pub(super) struct Monitor {
    client: MonitorServiceClient<lb::Channel>,
}

impl Monitor {
    /// That of the namespace that the flags name. Dials nothing yet.
    pub(super) fn open(discovery: &Discovery) -> Result<Self, Failure> {
        let registry = registry::open(discovery)?;
        Ok(Self {
            client: MonitorServiceClient::new(channel::to_service(&registry, monitor_client::SERVICE)),
        })
    }

    pub(super) async fn query(&self, request: QueryRequest) -> Result<QueryResponse, Failure> {
        answered(self.client.clone().query(within(request)).await)
    }

    pub(super) async fn methods(&self, request: TopRequest) -> Result<TopResponse, Failure> {
        answered(self.client.clone().top(within(request)).await)
    }

    pub(super) async fn edges(&self, window: Window, service: &str) -> Result<Vec<v1::Dependency>, Failure> {
        let request = DependenciesRequest {
            window: Some(window),
            service: service.to_owned(),
            page_size: EDGES,
            page_token: String::new(),
        };
        let answer = answered(self.client.clone().dependencies(within(request)).await)?;
        Ok(answer.dependencies)
    }
}

/// From so many seconds since 1970 to so many.
pub(super) fn window(since: u64, until: u64) -> Window {
    let timestamp = |seconds| prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    };
    Window {
        since: Some(timestamp(since)),
        until: Some(timestamp(until)),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn answered<T>(answer: Result<tonic::Response<T>, Status>) -> Result<T, Failure> {
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| match status.code() {
            Code::Unavailable => Failure::new("the monitor cannot be asked")
                .why(status.message())
                .advice("start one with `tessera console`, as `tessera up` does, or pass another --registry"),
            _ => Failure::new("the monitor refused").why(status.message()),
        })
}
