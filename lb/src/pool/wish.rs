//! What a call asks of the pool besides "somebody": passed down to the pick. Not how it is chosen.

use std::sync::Arc;

use crate::{endpoint::Endpoint, route::Route};

/// What a call wants of the instance that it goes to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// Instances that had the call before: others are taken as long as there are any.
    pub(crate) avoid: &'a [Arc<Endpoint>],
    /// The digest of what keeps it together with other calls, see [`Pool::key_of`](super::Pool::key_of).
    pub(crate) key: Option<u64>,
    /// Where it may go; without one, wherever an untagged call may.
    pub(crate) route: Option<&'a Route>,
}

impl Wish<'_> {
    pub(crate) fn avoids(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.avoid.iter().any(|avoided| Arc::ptr_eq(avoided, endpoint))
    }
}
