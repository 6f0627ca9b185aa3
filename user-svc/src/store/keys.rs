//! The key pairs that access tokens are signed with.

use super::{Store, StoreError, rows};
use crate::domain::signing::{Place, Schedule};

/// A key pair as it is kept: its place, and its PKCS#8.
pub(crate) struct StoredKey {
    pub(crate) place: Place,
    pub(crate) document: Vec<u8>,
}

impl Store {
    /// The keys, oldest first.
    pub(crate) async fn signing_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let found: Vec<(i64, Vec<u8>, i64)> =
            sqlx::query_as("SELECT generation, document, signs_from FROM signing_keys ORDER BY generation")
                .fetch_all(self.database.reader())
                .await?;
        let keys = found.into_iter().map(|(generation, document, signs_from)| StoredKey {
            place: Place {
                generation,
                signs_from: rows::instant(signs_from),
            },
            document,
        });
        Ok(keys.collect())
    }

    /// Makes the key that is due, from `document`, unless another process has; and forgets those that have ended.
    pub(crate) async fn turn_keys(&self, schedule: &Schedule, document: &[u8]) -> Result<(), StoreError> {
        self.whole(|| self.try_turn_keys(schedule, document)).await
    }

    async fn try_turn_keys(&self, schedule: &Schedule, document: &[u8]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let places: Vec<(i64, i64)> =
            sqlx::query_as("SELECT generation, signs_from FROM signing_keys ORDER BY generation")
                .fetch_all(&mut *write.tx)
                .await?;
        let mut places: Vec<Place> = places
            .into_iter()
            .map(|(generation, signs_from)| Place {
                generation,
                signs_from: rows::instant(signs_from),
            })
            .collect();
        if let Some(due) = schedule.due(&places, write.now) {
            sqlx::query(
                "INSERT INTO signing_keys (generation, document, signs_from) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(due.generation)
            .bind(document)
            .bind(due.signs_from.as_nanos())
            .execute(&mut *write.tx)
            .await?;
            places.push(due);
        }
        if let Some(first) = schedule.ended_before(&places, write.now) {
            sqlx::query("DELETE FROM signing_keys WHERE generation < $1")
                .bind(first)
                .execute(&mut *write.tx)
                .await?;
        }
        write.commit().await?;
        Ok(())
    }
}
