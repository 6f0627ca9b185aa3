//! Who is in: the calls under way on an endpoint, and its leaving once they have ended. Three steps keep a call from going on where
//! nothing is left, and `tests/interleavings` looks at every order of them:
//!
//! 1. Whoever removes an endpoint closes its connections first, and then looks at the count ([`Occupancy::leave`]).
//! 2. A call counts itself first ([`Occupancy::enter`]), and then looks whether its connection is closed.
//! 3. Both change the count, be it by nothing, so that one of them comes later and sees all that the other one did before: either
//!    the call finds the connection closed, or it is waited for.

use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Occupancy {
    calls: AtomicU32,
    is_leaving: AtomicBool,
}

impl Default for Occupancy {
    fn default() -> Self {
        Self {
            calls: AtomicU32::new(0),
            is_leaving: AtomicBool::new(false),
        }
    }
}

impl Occupancy {
    /// That of another endpoint from here on. To be called when nobody has the former one any more.
    pub(super) fn renew(&self) {
        self.calls.store(0, Ordering::Relaxed);
        self.is_leaving.store(false, Ordering::Relaxed);
    }

    /// How many are in, for a pick: it compares numbers that change under its eyes anyway, and no ordering would make them truer.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// One more call.
    pub(crate) fn enter(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
    }

    /// One less; true when it was the last one, and somebody may wait for that.
    pub(crate) fn exit(&self) -> bool {
        let before = self.calls.fetch_sub(1, Ordering::AcqRel);
        before == 1 && self.is_leaving.load(Ordering::Acquire)
    }

    /// From now on whoever is the last to exit says so. To be called when no call can get in any more.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    /// Whether nobody is in.
    pub(crate) fn is_empty(&self) -> bool {
        // A change by nothing: a load might show what was a moment ago (rule 3).
        self.calls.fetch_add(0, Ordering::AcqRel) == 0
    }
}
