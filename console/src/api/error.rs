//! The one place where the monitor's errors become gRPC statuses.

use std::time::Duration;

use service_host::status;
use tonic::{Code, Status};

use crate::{driver::ReportError, monitor::Refused};

/// One transaction is over by then.
const SOON: Duration = Duration::from_millis(500);

impl From<ReportError> for Status {
    fn from(error: ReportError) -> Self {
        let message = error.to_string();
        match error {
            ReportError::Refused(Refused::InTheFuture) => status::invalid([("interval_start", message)]),
            ReportError::Refused(Refused::TooManyReporters) => {
                status::error(Code::ResourceExhausted, "TOO_MANY_REPORTERS", message)
            }
            ReportError::Busy => status::retryable(Code::Unavailable, "STORE_BUSY", message, SOON),
            ReportError::StoreFailed => status::error(Code::Unavailable, "STORE_FAILED", message),
        }
    }
}
