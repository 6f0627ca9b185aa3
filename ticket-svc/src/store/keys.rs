//! The keys that ticket codes are signed with. They are kept where the tickets are, so that every process on the store signs and
//! knows the same; whoever may read the store could sell seats anyway.

use std::sync::Arc;

use identity::{KeyPair, KeySet};

use super::{Store, StoreError};

impl Store {
    /// The key pair to sign with: the newest one. The first process of a new store makes it; of several that start at once one does.
    pub(crate) async fn signer(&self) -> Result<Arc<KeyPair>, StoreError> {
        if let Some(pair) = self.newest_key().await? {
            return Ok(pair);
        }
        let new = KeyPair::generate().map_err(|_| StoreError::NoRandomness)?;
        self.whole(|| async {
            let mut write = self.begin().await?;
            sqlx::query(
                "INSERT INTO ticket_keys (generation, kid, pair, made_at) VALUES (1, $1, $2, $3)
                 ON CONFLICT (generation) DO NOTHING",
            )
            .bind(new.kid().as_str())
            .bind(new.to_stored())
            .bind(write.now.as_nanos())
            .execute(&mut *write.tx)
            .await?;
            Ok::<_, StoreError>(write.commit().await?)
        })
        .await?;
        self.newest_key().await?.ok_or(StoreError::Corrupt("no key"))
    }

    /// The public halves of all keys that tickets were ever signed with.
    pub(crate) async fn public_keys(&self) -> Result<KeySet, StoreError> {
        let stored: Vec<Vec<u8>> = sqlx::query_scalar("SELECT pair FROM ticket_keys ORDER BY generation")
            .fetch_all(self.database.reader())
            .await?;
        let pairs = stored.iter().map(|pair| taken_up(pair));
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        Ok(KeySet::new(pairs.iter().map(|pair| pair.public_key().clone())))
    }

    async fn newest_key(&self) -> Result<Option<Arc<KeyPair>>, StoreError> {
        let stored: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT pair FROM ticket_keys ORDER BY generation DESC LIMIT 1")
                .fetch_optional(self.database.reader())
                .await?;
        stored.map(|pair| taken_up(&pair).map(Arc::new)).transpose()
    }
}

fn taken_up(stored: &[u8]) -> Result<KeyPair, StoreError> {
    KeyPair::from_stored(stored).map_err(|_| StoreError::Corrupt("a key pair that is none"))
}
