//! Sending spans to a collector, without ever being in the way of a call.

mod batch;
mod codec;
mod connect;
mod limits;
mod otlp;
mod wire;

use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};

pub(crate) use self::{
    batch::BatchSettings,
    connect::TlsFiles,
    limits::Lengths,
    otlp::{Compression, Destination, Protocol},
};
use self::{
    batch::Batches,
    otlp::{BadEndpoint, Exporter},
};
use crate::{
    env::Exporting,
    sampling::{
        Sampling,
        sdk::{Decided, Ids},
    },
};

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    #[error("there is no thread for it: {0}")]
    Thread(#[from] std::io::Error),
}

/// A provider that exports in batches to that destination.
pub(crate) fn provider(
    resource: Resource,
    destination: Destination,
    exporting: &Exporting,
    sampling: &'static Sampling,
) -> Result<SdkTracerProvider, ExportError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exporter = {
        let _entered = runtime.enter();
        Exporter::new(destination, &resource)
    };
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            // A runtime must not be dropped within another one.
            runtime.shutdown_background();
            return Err(error.into());
        }
    };
    let batches = Batches::start(exporter, runtime, exporting.batch, exporting.lengths)?;
    Ok(SdkTracerProvider::builder()
        .with_span_processor(batches)
        .with_id_generator(Ids::default())
        .with_sampler(Decided::new(sampling))
        .with_span_limits(exporting.limits)
        .with_resource(resource)
        .build())
}
