//! Speaks `tessera.monitor.v1`: the message of a report, and what its answer means. Retries nothing.

use std::time::Duration;

use proto::monitor::v1::{
    self, CodeCount, Histogram, ReportRequest, SeriesDelta, monitor_service_client::MonitorServiceClient,
};
use telemetry::stats::{Delta, Side};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::{backlog::Numbered, report::Interval};

/// A monitor answers within milliseconds, once the disk has the report; it is sent again at the next interval.
const PATIENCE: Duration = Duration::from_secs(3);

/// The monitor, wherever it is.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    client: MonitorServiceClient<lb::Channel>,
}

/// Who reports.
#[derive(Debug, Clone)]
pub(crate) struct Reporting {
    pub(crate) id: Uuid,
    pub(crate) service: String,
    pub(crate) instance_id: String,
}

/// Why a report was not counted.
#[derive(Debug, Clone)]
pub(crate) enum NotCounted {
    /// It may be yet: the monitor is away, busy, or does not know us.
    Later(Status),
    /// It never will be, however often it is sent.
    Never(Status),
}

impl Monitor {
    pub(crate) fn new(channel: lb::Channel) -> Self {
        Self {
            client: MonitorServiceClient::new(channel),
        }
    }

    /// Sends a report; it was counted, now or before, when this is fine.
    pub(crate) async fn report(&self, who: &Reporting, report: &Numbered) -> Result<(), NotCounted> {
        let mut request = Request::new(ReportRequest {
            reporter_id: who.id.to_string(),
            sequence: report.sequence,
            service: who.service.clone(),
            instance_id: who.instance_id.clone(),
            ..message(&report.interval)
        });
        request.set_timeout(PATIENCE);
        match self.client.clone().report(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(match status.code() {
                // What is in it is not to the monitor's liking.
                Code::InvalidArgument | Code::OutOfRange => NotCounted::Never(status),
                _ => NotCounted::Later(status),
            }),
        }
    }
}

/// Bytes of a report's content, for the test of its bounds.
#[cfg(test)]
pub(crate) fn encoded_len(interval: &Interval) -> usize {
    use prost::Message as _;
    message(interval).encoded_len()
}

fn message(interval: &Interval) -> ReportRequest {
    ReportRequest {
        interval_start: Some(prost_types::Timestamp {
            seconds: i64::try_from(interval.start.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(interval.start.subsec_nanos()).unwrap_or_default(),
        }),
        interval: prost_types::Duration::try_from(interval.length).ok(),
        series: interval.series.iter().map(series).collect(),
        ..ReportRequest::default()
    }
}

fn series(delta: &Delta) -> SeriesDelta {
    let side = match delta.key.side {
        Side::Caller => v1::Side::Caller,
        Side::Attempt => v1::Side::Attempt,
        Side::Provider => v1::Side::Provider,
    };
    let codes = delta.codes.iter();
    let (buckets, counts) = delta.latencies.iter().copied().unzip();
    SeriesDelta {
        side: side.into(),
        service: delta.key.service.to_string(),
        method: delta.key.method.to_string(),
        peer: delta.key.peer.to_string(),
        codes: codes
            .map(|(code, calls)| CodeCount {
                code: *code,
                calls: *calls,
            })
            .collect(),
        latencies: Some(Histogram {
            buckets,
            counts,
            total_micros: delta.total_micros,
        }),
    }
}
