//! `tessera healthcheck`: one question to one address, for container images that have no other tool. Bounded, and
//! without discovery: whether the registry is well is another question.

use std::time::Duration;

use serde_json::json;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    args::HealthcheckArgs,
    failure::{Failure, chain},
    output::Output,
};

/// Succeeds when the server says SERVING.
pub(crate) async fn run(args: &HealthcheckArgs, output: Output) -> Result<(), Failure> {
    let what = if args.service.is_empty() {
        args.address.clone()
    } else {
        format!("{} at {}", args.service, args.address)
    };
    let asked = tokio::time::timeout(args.timeout, ask(args));
    let status = asked
        .await
        .unwrap_or_else(|_| Err(Trouble::Slow(args.timeout)))
        .map_err(|trouble| trouble.failure(&what))?;
    if status != ServingStatus::Serving {
        return Err(Failure::new(format!("{what} is {}", status.as_str_name()))
            .advice("wait until it has started, or look at its log"));
    }
    let document = json!({ "address": args.address, "service": args.service, "status": status.as_str_name() });
    output.print(&document, || status.as_str_name().to_owned())
}

/// Why there is no answer.
enum Trouble {
    Connect(tonic::transport::Error),
    Answer(tonic::Status),
    Slow(Duration),
}

async fn ask(args: &HealthcheckArgs) -> Result<ServingStatus, Trouble> {
    let endpoint = Endpoint::from_shared(args.address.clone()).map_err(Trouble::Connect)?;
    let channel = endpoint.connect().await.map_err(Trouble::Connect)?;
    let request = HealthCheckRequest {
        service: args.service.clone(),
    };
    let answer = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(Trouble::Answer)?;
    Ok(answer.into_inner().status())
}

impl Trouble {
    fn failure(self, what: &str) -> Failure {
        match self {
            Self::Connect(error) => Failure::new(format!("{what} cannot be reached"))
                .why(chain(&error))
                .advice("start it, or give the address where it listens"),
            Self::Answer(status) => match status.code() {
                Code::NotFound => Failure::new(format!("{what} is not known to this server"))
                    .advice("leave out --service, or list what there is with `grpcurl -plaintext ADDR list`"),
                Code::Unimplemented => Failure::new(format!("{what} has no grpc.health.v1.Health")),
                code => Failure::new(format!("{what} answered {code:?}")).why(status.message()),
            },
            Self::Slow(patience) => Failure::new(format!("{what} did not answer within {patience:?}"))
                .advice("look at its log, or pass a longer --timeout"),
        }
    }
}
