//! Which clock rules. On a file, the machine's: whoever shares the file shares the clock. On a server, the server's.
//!
//! Several machines write to a server, and a machine whose clock is ahead would give away seats that were promised until later.
//! So there is one clock for all of them, the server's. Asking it for every transaction would be one more way to the server
//! and back, so it is asked once a second, and in between the monotonic clock goes on from what it said.
//!
//! What it said is taken for the instant at which the answer *arrived*, so that we are behind it by at most one way, and
//! never ahead (but for what a monotonic clock drifts in a second). Behind is the harmless side: a hold is kept a little longer
//! than promised, and then given away by a conditional write.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Connection, Dialect};
use crate::{clock::Clock, time::Timestamp};

/// How long what the server said is good for. A step of its clock is noticed within that time.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The clock that rules. Clones share what they heard.
#[derive(Clone)]
pub(super) struct Ruling {
    own: Arc<dyn Clock>,
    server: Option<Arc<Mutex<Option<Heard>>>>,
}

#[derive(Clone, Copy)]
struct Heard {
    said: Timestamp,
    at: Instant,
}

impl Ruling {
    /// A clock that is not the machine's own (a test's, say) rules everywhere.
    pub(super) fn new(own: Arc<dyn Clock>, dialect: Dialect) -> Self {
        let server = (dialect == Dialect::Postgres && own.is_the_machines()).then(Arc::default);
        Self { own, server }
    }

    /// Now, by what was heard last.
    pub(super) fn now(&self) -> Timestamp {
        self.heard().map_or_else(|| self.own.now(), Heard::now)
    }

    /// Now; asks the server when what it said is old.
    pub(super) async fn ask(&self, connection: &mut Connection) -> Result<Timestamp, sqlx::Error> {
        let Some(server) = &self.server else {
            return Ok(self.own.now());
        };
        if let Some(heard) = self.heard().filter(|heard| heard.at.elapsed() < GOOD_FOR) {
            return Ok(heard.now());
        }
        // In microseconds, which is as fine as it gets.
        let micros: i64 = sqlx::query_scalar("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")
            .fetch_one(connection)
            .await?;
        let heard = Heard {
            said: Timestamp::from_nanos(micros.saturating_mul(1_000)),
            at: Instant::now(),
        };
        *server.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
        Ok(heard.said)
    }

    fn heard(&self) -> Option<Heard> {
        let server = self.server.as_ref()?;
        *server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn now(self) -> Timestamp {
        self.said.after(self.at.elapsed())
    }
}
