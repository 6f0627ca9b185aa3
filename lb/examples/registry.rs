//! Calls to a service by its name: who serves it is asked of a registry, and watched.
//!
//! Start one first (`cargo run --release -- up`), then `cargo run -p lb --example registry`. It prints who is called while you
//! drain, stop and start instances with `tessera drain`, Ctrl-C and so on. Losing the registry changes nothing.

use std::time::Duration;

use proto::ticket::v1::{ListEventsRequest, ticket_service_client::TicketServiceClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "http://127.0.0.1:7000".to_owned());
    let registry = registry_client::Registry::connect([address])?;
    let channel = lb::Channel::builder(registry.discover("ticket-svc")).build();
    // Says why, if there is nobody: no registry, no instances, or none that can be reached.
    channel.ready(Duration::from_secs(5)).await?;
    for _ in 0..20 {
        let response = TicketServiceClient::new(channel.clone())
            .list_events(ListEventsRequest::default())
            .await?;
        if let Some(by) = response.extensions().get::<lb::Picked>() {
            println!("{} at {}", by.instance_id, by.address);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
