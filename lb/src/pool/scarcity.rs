//! Why nothing can be picked, and the error that it becomes. Found out only when a call has waited in vain.

use std::{sync::Arc, time::Duration};

use super::{Pool, Wish};
use crate::{Error, error::EndpointFailure, route::Route};

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

impl Pool {
    /// Why nothing can be picked for such a call.
    pub(crate) fn scarcity(&self, wish: Wish<'_>) -> Scarcity {
        let book = self.book();
        let all = book.slots.values();
        let mut slots = all
            .filter(|slot| Route::may_reach(wish.route, &slot.backend.attributes))
            .peekable();
        Scarcity {
            known: book.known,
            unreachable: match slots.peek() {
                None => book.slots.len(),
                Some(_) => 0,
            },
            route: wish
                .route
                .map_or_else(|| Route::default().to_string(), ToString::to_string),
            callable: slots
                .map(|slot| EndpointFailure {
                    address: slot.backend.key.address.to_string(),
                    // Of one that is connected, its last error is of the past.
                    error: match slot.health.why_not().filter(|_| slot.is_connected()) {
                        Some(why) => Some(why),
                        None => slot.endpoint.last_error(),
                    },
                })
                .collect(),
            discovery: match &book.unspoken {
                Some(unspoken) => format!("{unspoken}; {}", book.origin),
                None => book.origin.to_string(),
            },
        }
    }
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
