//! What clients are told when the disk dies; everything else is told by the tests against a real registry, in `tests/it`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proto::registry::v1::{self as wire, registry_service_client::RegistryServiceClient};
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt as _;

use crate::{
    Config, Registry,
    catalog::Batch,
    model::Revision,
    running::history_limits,
    store::{Loaded, Store, StoreError, Verdict},
};

/// A disk that is full, gone or dying.
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
