//! Mails: each event's once.

use super::{Store, StoreError};
use crate::mail::Letter;

impl Store {
    /// Writes the mails that were not written before, all or none; which these are.
    pub(crate) async fn send_mails<'a>(&self, letters: &'a [Letter]) -> Result<Vec<&'a Letter>, StoreError> {
        self.whole(|| self.try_send_mails(letters)).await
    }

    async fn try_send_mails<'a>(&self, letters: &'a [Letter]) -> Result<Vec<&'a Letter>, StoreError> {
        let mut write = self.begin().await?;
        let mut sent = Vec::with_capacity(letters.len());
        for letter in letters {
            if !outbox::first_time(&mut write, "mail", letter.event_id).await? {
                continue;
            }
            sqlx::query("INSERT INTO mails (event_id, kind, order_id, user_id, sent_at) VALUES ($1, $2, $3, $4, $5)")
                .bind(letter.event_id.to_string())
                .bind(&letter.kind)
                .bind(letter.order_id.to_string())
                .bind(letter.user_id.to_string())
                .bind(write.now.as_nanos())
                .execute(&mut *write.tx)
                .await?;
            sent.push(letter);
        }
        write.commit().await?;
        Ok(sent)
    }
}
