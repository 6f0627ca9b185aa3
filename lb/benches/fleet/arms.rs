//! Who calls: `lb` with one setting or another, tonic's `balance_list`, and tower's power of two choices by peak EWMA.

use std::{sync::Arc, time::Duration};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{
    ServiceExt as _,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwmaDiscover},
    util::BoxCloneSyncService,
};

use crate::{Failed, load::Call};

/// Longer than any call that goes well, and the end of one that hangs.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Calls that tower's buffer holds.
const BUFFER: usize = 100_000;

/// A balancer under test.
pub(crate) struct Arm {
    pub(crate) name: &'static str,
    make: Make,
}

enum Make {
    Lb(fn(lb::Builder) -> lb::Builder),
    BalanceList,
    TowerPeakEwma,
}

/// What `lb` does by itself.
pub(crate) const LB: Arm = Arm::lb("lb", |builder| builder);
pub(crate) const BALANCE_LIST: Arm = Arm {
    name: "tonic balance_list",
    make: Make::BalanceList,
};
pub(crate) const TOWER: Arm = Arm {
    name: "tower p2c + peak EWMA",
    make: Make::TowerPeakEwma,
};

impl Arm {
    pub(crate) const fn lb(name: &'static str, with: fn(lb::Builder) -> lb::Builder) -> Self {
        Self {
            name,
            make: Make::Lb(with),
        }
    }

    /// Connected to `addresses`; for `lb` the channel, too.
    pub(crate) async fn connect(&self, addresses: &[String]) -> Result<(Call, Option<lb::Channel>), Failed> {
        let endpoints = || -> Result<Vec<Endpoint>, Failed> {
            let endpoint = |address: &String| Ok(Endpoint::from_shared(format!("http://{address}"))?.timeout(TIMEOUT));
            addresses.iter().map(endpoint).collect()
        };
        match self.make {
            Make::Lb(with) => {
                let builder = lb::Channel::builder(lb::Target::fixed(addresses)?).call_timeout(TIMEOUT);
                let channel = with(builder).build();
                // Those that are there; in one case nobody is.
                let _ = channel.ready(Duration::from_millis(500)).await;
                let client = HealthClient::new(channel.clone());
                let call: Call = Arc::new(move || {
                    let mut client = client.clone();
                    Box::pin(async move { answer(client.check(request()).await) })
                });
                Ok((call, Some(channel)))
            }
            Make::BalanceList => {
                let client = HealthClient::new(Channel::balance_list(endpoints()?.into_iter()));
                let call: Call = Arc::new(move || {
                    let mut client = client.clone();
                    Box::pin(async move { answer(client.check(request()).await) })
                });
                Ok((call, None))
            }
            Make::TowerPeakEwma => {
                let channels: Vec<Channel> = endpoints()?
                    .into_iter()
                    .map(|endpoint| endpoint.connect_lazy())
                    .collect();
                // As linkerd2-proxy has it.
                let (rtt, decay) = (Duration::from_millis(30), Duration::from_secs(10));
                let discover = ServiceList::new::<http::Request<tonic::body::Body>>(channels);
                let discover = PeakEwmaDiscover::new(discover, rtt, decay, CompleteOnResponse::default());
                let balance = Buffer::new(Balance::new(discover), BUFFER);
                let told = balance.map_err(|error| Status::unavailable(error.to_string()));
                let client = HealthClient::new(BoxCloneSyncService::new(told));
                let call: Call = Arc::new(move || {
                    let mut client = client.clone();
                    Box::pin(async move { answer(client.check(request()).await) })
                });
                Ok((call, None))
            }
        }
    }
}

fn request() -> HealthCheckRequest {
    HealthCheckRequest {
        service: "tessera.ticket.v1.TicketService/some-sixty-bytes-of-text".to_owned(),
    }
}

fn answer(response: Result<tonic::Response<tonic_health::pb::HealthCheckResponse>, Status>) -> Result<i32, Status> {
    Ok(response?.into_inner().status)
}
