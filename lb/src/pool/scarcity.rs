//! Why nothing can be picked, and the error that it becomes. Found out only when a call has waited in vain.

use std::{sync::Arc, time::Duration};

use crate::{Error, error::EndpointFailure};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Scarcity {
    /// Instances that the discovery knows, callable or not.
    pub(crate) known: usize,
    /// Callable instances, when the call's route leads to none of them.
    pub(crate) unreachable: usize,
    /// The call's route, in words.
    pub(crate) route: String,
    /// Those that the call could go to if they were connected.
    pub(crate) callable: Vec<EndpointFailure>,
    pub(crate) discovery: String,
}

impl Scarcity {
    pub(crate) fn into_error(self, service: &Arc<str>, waited: Duration) -> Error {
        let (service, discovery) = (Arc::clone(service), self.discovery);
        if self.unreachable > 0 {
            Error::NoRoute {
                service,
                waited,
                route: self.route,
                others: self.unreachable,
                discovery,
            }
        } else if self.callable.is_empty() {
            Error::NoInstances {
                service,
                waited,
                known: self.known,
                discovery,
            }
        } else {
            Error::NotReady {
                service,
                waited,
                endpoints: self.callable,
                discovery,
            }
        }
    }
}
