//! What clients are told when the disk dies, or operators when a peer floods; everything else is told by the tests against a real registry, in `tests/it`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proto::registry::v1::{
    self as wire, governance_service_server::GovernanceService as _, registry_service_client::RegistryServiceClient,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    Config, Registry,
    catalog::{Batch, Catalog, Settings},
    driver::{self, Driver},
    fixtures::hub,
    model::Revision,
    running::history_limits,
    store::{Loaded, Store, StoreError, Verdict},
};

/// A disk that is full, gone or dying.
#[derive(Debug)]
struct Dying;

impl Store for Dying {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    fn history(&mut self) -> Result<Vec<Batch>, StoreError> {
        Ok(Vec::new())
    }

    fn commit(&mut self, _batches: &[Arc<Batch>], _compacted: Revision) -> Result<Verdict, StoreError> {
        let source = std::io::Error::other("input/output error");
        Err(StoreError::Directory {
            path: "the-disk".into(),
            source,
        })
    }
}

#[tokio::test]
async fn a_dying_disk_ends_the_registry_with_a_reason_and_without_an_acknowledgement() {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    };
    let history = history_limits(&config).expect("the defaults are good");
    let started = Registry::serve(
        config,
        history,
        CancellationToken::new(),
        Dying,
        Loaded::default(),
        Vec::new(),
    )
    .await;
    let mut running = started.expect("starts: it has not written yet");
    let address = format!("http://{}", running.local_addr());
    let mut client = RegistryServiceClient::connect(address).await.expect("listens");
    let endpoint = wire::Endpoint {
        host: "127.0.0.1".into(),
        port: 1,
        ..Default::default()
    };
    let instance = wire::Instance {
        service: "a-svc".into(),
        endpoints: vec![endpoint],
        ..Default::default()
    };
    let request = wire::RegisterRequest {
        instances: vec![instance],
        ..Default::default()
    };
    let status = client.register(request).await.expect_err("is not durable");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status.get_details_error_info().expect("told").reason, "OUTCOME_UNKNOWN");

    let patience = Duration::from_secs(10);
    let error = tokio::time::timeout(patience, running.failed())
        .await
        .expect("told at once");
    let expected = "the registry cannot make changes durable: \
                    data directory the-disk cannot be used: input/output error";
    assert_eq!(error.to_string(), expected);
    // Reading goes on until the process is gone.
    client
        .list_services(wire::ListServicesRequest::default())
        .await
        .expect("answers");
    assert!(running.stop().await.failure.is_none(), "told once");
}

/// A registry whose driver has gone.
fn api() -> Api {
    let (hub, metrics, clock) = (Arc::new(hub(&[], false)), Metrics::new(), Clock::start());
    let catalog = Catalog::restore(Settings::default(), Revision::ZERO, Vec::new(), &[], clock.now().moment);
    let stop = CancellationToken::new();
    let settings = driver::Settings::default();
    let driver = Driver::new(catalog, Arc::clone(&hub), Dying, clock, metrics.clone(), settings, stop);
    let (_, driver) = driver.expect("a thread");
    Api {
        driver,
        hub,
        clock,
        drain: DrainSignal::new(),
        bookmark_interval: Duration::from_secs(30),
        backlog: Backlog::default(),
        lanes: Lanes::new(2, metrics.clone()),
        metrics,
        backup: None,
        is_guarded: false,
        allowed: Arc::new(Allowed::new(Vec::new(), [])),
        probes: Speaks::Plain,
    }
}

/// Drain, Undrain and SetWeight came past the lane of changes: one address that sent many of them stood before everybody's
/// registrations.
#[tokio::test]
async fn what_operators_decide_takes_its_place_among_changes() {
    let api = api();
    let governance = governance::Governance::new(&api);
    let reason = |status: Status| status.get_details_error_info().expect("says why").reason;
    let instance = Some(wire::InstanceRef {
        service: "a-svc".into(),
        id: "1".into(),
        ..Default::default()
    });
    let ask = async || {
        let (drain, undrain, weight) = (
            wire::DrainRequest {
                instance: instance.clone(),
                who: "ann".into(),
                ..Default::default()
            },
            wire::UndrainRequest {
                instance: instance.clone(),
                who: "ann".into(),
                ..Default::default()
            },
            wire::SetWeightRequest {
                instance: instance.clone(),
                who: "ann".into(),
                weight: Some(1),
                ..Default::default()
            },
        );
        [
            reason(governance.drain(Request::new(drain)).await.expect_err("is not done")),
            reason(
                governance
                    .undrain(Request::new(undrain))
                    .await
                    .expect_err("is not done"),
            ),
            reason(
                governance
                    .set_weight(Request::new(weight))
                    .await
                    .expect_err("is not done"),
            ),
        ]
    };
    let peer = lanes::peer_of(&http::Extensions::new());
    let flood: Vec<_> = std::iter::from_fn(|| api.lanes.change(peer).ok()).collect();
    assert_eq!(ask().await, ["PEER_BUSY"; 3]);
    drop(flood);
    assert_eq!(ask().await, ["REGISTRY_STOPPING"; 3], "they came as far as the driver");
}
