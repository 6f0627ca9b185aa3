//! Balanced calls to a fixed list of addresses; no registry, no configuration.
//!
//! `cargo run -p lb --example static_list`: three servers on free ports, thirty calls, who answered, and what became of them
//! when one of the servers went away.

mod servers;

use std::{collections::BTreeMap, time::Duration};

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut servers = servers::start(3).await?;
    let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();

    let channel = lb::Channel::builder(lb::Target::fixed(&addresses)?)
        .call_timeout(Duration::from_secs(2))
        .build();
    channel.ready(Duration::from_secs(5)).await?;
    println!("all there:     {:?}", calls(&channel, 30).await?);

    servers.remove(0).stop().await;
    println!("one is gone:   {:?}", calls(&channel, 30).await?);

    for endpoint in channel.endpoints() {
        println!(
            "{} is {:?}, {} calls served",
            endpoint.address, endpoint.state, endpoint.served
        );
    }
    Ok(())
}

/// How many calls each instance has answered.
async fn calls(channel: &lb::Channel, count: usize) -> Result<BTreeMap<String, usize>, Failed> {
    let mut answered = BTreeMap::new();
    for _ in 0..count {
        let mut client = HealthClient::new(channel.clone());
        let response = client.check(HealthCheckRequest::default()).await?;
        let by = response
            .extensions()
            .get::<lb::Picked>()
            .ok_or("every response has one")?;
        *answered.entry(by.address.to_string()).or_default() += 1;
    }
    Ok(answered)
}
