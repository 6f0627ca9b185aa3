//! Installing telemetry in a binary, once: subscriber, propagators and, if asked for, the exporter.

use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::{
    env::Environment,
    export, logs, metrics, propagation, resource,
    sampling::{Late, Sampling},
    span, stats,
};

/// How a process presents itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// `service.name`, unless the environment names the service.
    pub service_name: String,
    /// `service.version`.
    pub service_version: String,
    /// `service.instance.id`: the instance's id in the registry.
    pub instance_id: Option<String>,
    /// The form of log lines on standard error.
    pub log_format: LogFormat,
    /// What is logged if `RUST_LOG` is unset, in its syntax, for example `info`.
    pub default_filter: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text if standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line a record, for people.
    Text,
    /// One JSON object a record, for machines.
    Json,
}

/// Why telemetry could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not in `RUST_LOG` syntax.
    #[error("the log filter {filter:?} is not valid; an example is info,ticket_svc=debug")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else has installed a subscriber in this process.
    #[error("logging is already installed in this process")]
    AlreadyInstalled(#[source] tracing_subscriber::util::TryInitError),
}

/// Installs the `tracing` subscriber (to standard error), the propagators and, only if `OTEL_EXPORTER_OTLP_ENDPOINT` or
/// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, a batch exporter over OTLP. Otherwise nothing is dialled.
///
/// Call it once a process, and keep the [`Guard`] for the flush at the end. An endpoint that cannot
/// be used is logged and leaves export off: telemetry never keeps a service from starting.
///
/// # Errors
/// [`InitError`] for a bad filter or a second installation.
pub fn init(config: Config) -> Result<Guard, InitError> {
    let mut environment = Environment::read(|name| std::env::var(name).ok());
    logs::install(config.log_format, &config.default_filter)?;
    let keeper = logs::Keeper::start();
    metrics::runtime::identify(&config);
    let probe = metrics::runtime::Probe::start();
    propagation::install(environment.propagators);
    stats::call_as(&config.service_name);

    let mut provider = None;
    if let Some(destination) = environment.traces {
        let endpoint = destination.endpoint.clone();
        // Once a process, for its whole life.
        let sampling: &'static Sampling = Box::leak(Box::new(Sampling::new(&environment.sampling)));
        let resource = resource::resource(&config, environment.names_service);
        match export::provider(resource, destination, &environment.exporting, sampling) {
            Ok(built) => {
                span::install(&built, sampling, Late::new(&environment.sampling));
                opentelemetry::global::set_tracer_provider(built.clone());
                provider = Some(built);
            }
            Err(error) => environment
                .warnings
                .push(format!("no traces are exported to {endpoint}: {error}")),
        }
    }
    for warning in environment.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Guard {
        provider,
        keeper,
        probe,
    })
}

/// Keeps the exporter; ends with [`Guard::shutdown`].
#[derive(Debug)]
#[must_use = "spans still queued are lost unless shutdown is called"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
    keeper: logs::Keeper,
    probe: metrics::runtime::Probe,
}

impl Guard {
    /// Exports what is queued and stops, for at most `deadline`. A failure is logged, not returned: at that point nobody
    /// can do anything about it.
    pub async fn shutdown(self, deadline: Duration) {
        self.probe.end().await;
        self.keeper.end().await;
        let Some(provider) = self.provider else {
            return;
        };
        // The SDK's shutdown blocks its thread, and needs the runtime's others to send.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(deadline));
        match tokio::time::timeout(deadline, flushed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::debug!(%error, "not all traces were exported"),
            Ok(Err(error)) => tracing::debug!(%error, "the export of traces was cut off"),
            Err(_) => tracing::debug!("not all traces were exported in time"),
        }
    }
}
