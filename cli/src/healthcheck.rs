//! `tessera healthcheck`: one question to one address, for container images that have no other tool. Bounded, and
//! without discovery: whether the registry is well is another question.

use std::time::Duration;

use serde_json::json;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    args::HealthcheckArgs,
    channel,
    failure::{Failure, chain},
    output::Output,
    registry::security,
};

/// Succeeds when the server says SERVING.
pub(crate) async fn run(args: &HealthcheckArgs, output: Output) -> Result<(), Failure> {
    let what = if args.service.is_empty() {
        args.address.clone()
    } else {
        format!("{} at {}", args.service, args.address)
    };
    let tls = security::client(&args.tls)?;
    let tls = tls.map(|tls| (tls, tls::Expected::Host));
    let status = ask(&args.address, &args.service, args.timeout, tls)
        .await
        .map_err(|trouble| trouble.failure(&what))?;
    if status != ServingStatus::Serving {
        return Err(Failure::new(format!("{what} is {}", status.as_str_name()))
            .advice("wait until it has started, or look at its log"));
    }
    let document = json!({ "address": args.address, "service": args.service, "status": status.as_str_name() });
    output.print(&document, || status.as_str_name().to_owned())
}

/// Why there is no answer.
pub(crate) enum Trouble {
    Connect(tonic::transport::Error),
    /// The same, with TLS.
    Secured(lb::Error),
    Flags(Failure),
    Answer(tonic::Status),
    Slow(Duration),
}

/// Asks `address` (`HOST:PORT`, or an `http://` origin, or with `tls` an `https://` one, where that one is expected) about `service`
/// over a connection of its own; empty for the server as a whole. Connecting and answering take at most `timeout`.
pub(crate) async fn ask(
    address: &str,
    service: &str,
    timeout: Duration,
    tls: Option<(tls::Client, tls::Expected)>,
) -> Result<ServingStatus, Trouble> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let asked = async {
        let answer = if address.starts_with("https://") {
            let (tls, expected) = tls.unzip();
            let expected = expected.unwrap_or_default();
            let channel = channel::fixed([address], tls, &expected).map_err(Trouble::Flags)?;
            // Sooner than the whole time, so that it is told why.
            channel.ready(timeout / 2).await.map_err(Trouble::Secured)?;
            HealthClient::new(channel).check(request).await
        } else {
            let origin = match address.contains("://") {
                true => address.to_owned(),
                false => format!("http://{address}"),
            };
            let endpoint = Endpoint::from_shared(origin).map_err(Trouble::Connect)?;
            let channel = endpoint.connect().await.map_err(Trouble::Connect)?;
            HealthClient::new(channel).check(request).await
        };
        Ok(answer.map_err(Trouble::Answer)?.into_inner().status())
    };
    let answer = tokio::time::timeout(timeout, asked).await;
    answer.unwrap_or(Err(Trouble::Slow(timeout)))
}

impl Trouble {
    /// What happened, in one line.
    pub(crate) fn told(&self, what: &str) -> Failure {
        match self {
            Self::Connect(error) => Failure::new(format!("{what} cannot be reached")).why(chain(error)),
            Self::Secured(error) => Failure::new(format!("{what} cannot be reached")).why(error),
            Self::Flags(_) => Failure::usage(format!("{what} is no address")),
            Self::Answer(status) => match status.code() {
                Code::NotFound => Failure::new(format!("{what} is not known to this server")),
                Code::Unimplemented => Failure::new(format!("{what} has no grpc.health.v1.Health")),
                code => Failure::new(format!("{what} answered {code:?}")).why(status.message()),
            },
            Self::Slow(patience) => Failure::new(format!("{what} did not answer within {patience:?}")),
        }
    }

    /// The same with what to do about it.
    fn failure(self, what: &str) -> Failure {
        let told = self.told(what);
        match self {
            Self::Flags(failure) => failure,
            Self::Secured(_) => {
                told.advice("start it, or pass --tls-ca, and --tls-cert and --tls-key where it asks for them")
            }
            Self::Connect(_) => told.advice("start it, or give the address where it listens"),
            Self::Answer(status) if status.code() == Code::NotFound => {
                told.advice("leave out --service, or list what there is with `grpcurl -plaintext ADDR list`")
            }
            Self::Answer(_) => told,
            Self::Slow(_) => told.advice("look at its log, or pass a longer --timeout"),
        }
    }
}
