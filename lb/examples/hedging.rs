//! A slow instance is hardly noticed: a call that is late is sent to one more instance, and the first answer counts.
//!
//! `cargo run -p lb --example hedging`: reads are hedged after 20 ms, within a budget, and everything else is left alone.

mod servers;

use std::time::{Duration, Instant};

use lb::{HedgingDelay, HedgingPolicy, Mode};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let servers = servers::start(3).await?;
    let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let late = HedgingDelay::After(Duration::from_millis(20));
    let hedging = HedgingPolicy::try_new(2, late, [Code::Unavailable])?;
    let channel = lb::Channel::builder(lb::Target::fixed(&addresses)?)
        .mode(Mode::Hedging(hedging))
        .build();
    channel.ready(Duration::from_secs(5)).await?;
    let begun = Instant::now();
    for _ in 0..1_000 {
        HealthClient::new(channel.clone())
            .check(HealthCheckRequest::default())
            .await?;
    }
    println!("1,000 calls in {:?}", begun.elapsed());
    for endpoint in channel.endpoints() {
        println!("{}: {} attempts served", endpoint.address, endpoint.served);
    }
    Ok(())
}
