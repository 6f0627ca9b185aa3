//! Who emits: the resource that every exported span carries.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use crate::{init::Config, semconv};

/// What the configuration says, under what the environment says: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win.
pub(crate) fn resource(config: &Config, environment_names_service: bool) -> Resource {
    let from_environment = Resource::builder().build();
    let mut attributes = vec![
        KeyValue::new(semconv::SERVICE_VERSION, config.service_version.clone()),
        KeyValue::new(semconv::PROCESS_PID, i64::from(std::process::id())),
    ];
    if let Some(id) = &config.instance_id {
        attributes.push(KeyValue::new(semconv::SERVICE_INSTANCE_ID, id.clone()));
    }
    attributes.retain(|attribute| from_environment.get_ref(&attribute.key).is_none());
    // The SDK always fills in a service name of its own, "unknown_service:...", so absence is not visible there.
    if !environment_names_service {
        attributes.push(KeyValue::new(semconv::SERVICE_NAME, config.service_name.clone()));
    }
    Resource::builder().with_attributes(attributes).build()
}
