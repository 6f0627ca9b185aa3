//! `tessera services`: what is registered, by name.

use serde_json::json;

use crate::{
    args::ServicesArgs,
    failure::Failure,
    output::{Output, Table},
    registry,
};

/// Lists the services of a namespace.
pub(crate) async fn run(args: &ServicesArgs, output: Output) -> Result<(), Failure> {
    let registry = registry::open(&args.discovery)?;
    let services = registry
        .list_services()
        .await
        .map_err(|error| registry::failure(&registry, &error))?;
    let document = json!({
        "namespace": registry.namespace(),
        "services": services.iter().map(|service| json!({
            "service": service.service,
            "instances": service.instances,
            "callable": service.callable,
            "versions": service.versions,
        })).collect::<Vec<_>>(),
    });
    output.print(&document, || {
        if services.is_empty() {
            return format!("Nothing is registered in namespace {}.", registry.namespace());
        }
        let mut table = Table::new(["service", "instances", "callable", "versions"]);
        for service in &services {
            table.row([
                service.service.clone(),
                service.instances.to_string(),
                service.callable.to_string(),
                service.versions.join(", "),
            ]);
        }
        table.render()
    })
}
