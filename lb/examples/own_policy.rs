//! A policy that this crate does not have: calls go to the instance with the most room, by what each says of its size.
//!
//! `cargo run -p lb --example own_policy`: three servers, of which one says that it has four cores and the others that they have one;
//! forty calls, ten at a time.

mod servers;

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use lb::{Choose, Draw, Instances, Policy};
use registry_client::{Discovery, Instance, Snapshot};
use tokio::{sync::watch, task::JoinSet};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// The fewest calls in flight for each core. Of several, another one each time.
#[derive(Debug)]
struct PerCore;

impl Choose for PerCore {
    fn name(&self) -> &'static str {
        "per_core"
    }

    fn criterion(&self) -> &'static str {
        "the fewest calls in flight for each core"
    }

    fn choose(&self, instances: &Instances<'_>, draw: &Draw) -> Option<usize> {
        let count = instances.len();
        let start = (draw.random() % count as u64) as usize;
        let room = |index: usize| {
            let cores = instances
                .get(index)
                .and_then(|instance| instance.metadata("cores")?.parse().ok());
            // In thousandths of a call, with the one that is to be placed.
            let load = (instances.in_flight(index) + 1) * 1000 / cores.unwrap_or(1).max(1);
            Reverse(load)
        };
        (0..count).map(|n| (start + n) % count).max_by_key(|index| room(*index))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let servers = servers::start(3).await?;
    let instances = servers
        .iter()
        .zip(["4", "1", "1"])
        .enumerate()
        .map(|(n, (server, cores))| {
            let mut instance = Instance::new("shop", format!("shop-{n}-{cores}-cores"), &server.address.to_string());
            instance.metadata.insert("cores".to_owned(), cores.to_owned());
            instance
        });
    let (_registry, told) = watch::channel(Arc::new(Snapshot::fresh(1, instances)));
    let channel = lb::Channel::builder(Discovery::fed_by("shop", told))
        .policy(Policy::own(PerCore))
        .build();
    channel.ready(Duration::from_secs(5)).await?;

    let mut answered: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..4 {
        let mut calls = JoinSet::new();
        for _ in 0..10 {
            let mut client = HealthClient::new(channel.clone());
            calls.spawn(async move { client.check(HealthCheckRequest::default()).await });
        }
        while let Some(response) = calls.join_next().await {
            let response = response??;
            let by = response
                .extensions()
                .get::<lb::Picked>()
                .ok_or("every response has one")?;
            *answered.entry(by.instance_id.to_string()).or_default() += 1;
        }
    }
    println!("{}", channel.explain());
    for (instance, calls) in answered {
        println!("{instance}: {calls} calls");
    }
    Ok(())
}
