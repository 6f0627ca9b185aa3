//! A new version gets a tenth of the users, and each user always the same version.
//!
//! `cargo run -p lb --example gray_release`: instances of two versions as a registry would tell of them, 1,000 users.

mod servers;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lb::{RouteRule, Routes, Split, Subset};
use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tonic::Request;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let servers = servers::start(4).await?;
    let instances = servers.iter().zip(["1.4.0", "1.4.0", "1.4.1", "2.0.0"]).enumerate();
    let instances = instances.map(|(n, (server, version))| Instance {
        version: version.to_owned(),
        ..Instance::new("shop", format!("shop-{n}-{version}"), &server.address.to_string())
    });
    let (_registry, told) = watch::channel(Arc::new(Snapshot::fresh(1, instances)));

    // Nine of ten users to the old versions, one to the new one, and by the header `user` always the same.
    let old = Subset::every().version("^1")?;
    let new = Subset::every().version("^2")?;
    let split = Split::try_new([(old, 90), (new, 10)])?.sticky_by("user")?;
    let channel = lb::Channel::builder(Discovery::fed_by("shop", told))
        .routes(Routes::try_new([RouteRule::new("gray release of 2.0", split)])?)
        .build();
    channel.ready(Duration::from_secs(5)).await?;

    let mut answered: BTreeMap<String, usize> = BTreeMap::new();
    for user in 0..1_000 {
        let mut request = Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("user", format!("user-{user}").parse()?);
        let response = HealthClient::new(channel.clone()).check(request).await?;
        let by = response
            .extensions()
            .get::<lb::Picked>()
            .ok_or("every response has one")?;
        *answered.entry(by.instance_id.to_string()).or_default() += 1;
    }
    for (instance, users) in answered {
        println!("{instance}: {users} users");
    }
    Ok(())
}
