//! Tidies away holds that have run out. Nothing is correct because of it: an expired hold counts as free wherever seats are counted,
//! picked or taken. It is here so that those who watch hear of it, and so that what is over is written down as over.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    Store, StoreError,
    holds::{self, Look},
    rows, sales,
};
use crate::events::Reason;

impl Store {
    /// Records at most `limit` expired holds as lapsed, the earliest first, and frees the seats that are still theirs. Answers how many
    /// there were.
    pub(crate) async fn sweep(&self, limit: u32) -> Result<usize, StoreError> {
        let expired: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, event FROM holds WHERE phase = 0 AND expires_at <= $1 ORDER BY expires_at, token LIMIT $2",
        )
        .bind(self.database.now().as_nanos())
        .bind(i64::from(limit))
        .fetch_all(self.database.reader())
        .await?;
        if expired.is_empty() {
            return Ok(0);
        }
        self.whole(|| self.try_sweep(&expired)).await?;
        Ok(expired.len())
    }

    /// All of them in one transaction: on a disk a commit costs more than all that is in it.
    async fn try_sweep(&self, expired: &[(String, i64)]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let look = Look::ToDecide(write.dialect);
        let mut swept = BTreeMap::new();
        for (id, event) in expired {
            // Read again under the lock: it may have been confirmed or released since, or swept by another process.
            let hold = holds::find(&mut write.tx, rows::uuid(id)?, look).await?;
            let Some(hold) = hold.filter(|hold| hold.facts.has_lapsed(write.now)) else {
                continue;
            };
            let event = match swept.entry(*event) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(holds::event_of(&mut write.tx, &hold).await?),
            };
            sales::give_back(&mut write, &hold, event, Reason::Expired).await?;
        }
        write.commit().await?;
        for event in swept.into_keys() {
            self.changed(event);
        }
        Ok(())
    }
}
