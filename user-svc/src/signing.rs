//! The keys that tokens are signed with and checked against: kept up to date with the store, which replicas share.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::HeaderValue;
use identity::{
    AccessToken, Claims, ISSUER, KeyError, KeyPair, KeySet, PLATFORM, PublicKey, ServiceToken, Subject, Verifier,
};
use service_store::Timestamp;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{
    domain::{
        account::User,
        signing::{self, Place, Schedule},
    },
    store::{Store, StoreError},
};

/// How often the store is looked at: a new key is published ten minutes before it signs.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often it is looked at at the most, whatever tokens are shown: made-up key names must not become reads of the store.
const LOOK_AT_MOST: Duration = Duration::from_secs(1);

/// Signs and knows what is signed. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Signing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    schedule: Schedule,
    held: RwLock<Held>,
    service: ServiceToken,
    look: Notify,
}

/// What the store held at the last look.
#[derive(Debug, Clone)]
struct Held {
    places: Vec<Place>,
    pairs: Vec<Arc<KeyPair>>,
    verifier: Arc<Verifier>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    /// The store has none, or none that can be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key cannot be made, or is none.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The task that follows the store. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Follower {
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Signing {
    /// Takes up the store's keys, and makes the first one where there is none.
    pub(crate) async fn open(store: Store, schedule: Schedule, ticket_service: &str) -> Result<Self, SigningError> {
        let held = look(&store, &schedule).await?;
        Ok(Self(Arc::new(Inner {
            store,
            schedule,
            held: RwLock::new(held),
            service: ServiceToken::new(ISSUER, ISSUER, ticket_service),
            look: Notify::new(),
        })))
    }

    /// Follows the store until the follower is stopped or dropped.
    pub(crate) fn follow(&self) -> Follower {
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.clone().run(stop.clone()));
        Follower {
            task,
            stop: stop.drop_guard(),
        }
    }

    async fn run(self, stop: CancellationToken) {
        let mut not_before = Instant::now() + LOOK_AT_MOST;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.0.look.notified() => tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(not_before) => {}
                },
            }
            not_before = Instant::now() + LOOK_AT_MOST;
            match look(&self.0.store, &self.0.schedule).await {
                Ok(held) => *self.0.held.write().unwrap_or_else(PoisonError::into_inner) = held,
                // What was read before goes on being good; its keys are ahead by ten looks.
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the signing keys could not be looked at"
                ),
            }
        }
    }

    /// A token was signed with a key that is not known: another process may have made it.
    pub(crate) fn look_soon(&self) {
        self.0.look.notify_one();
    }

    /// What believes the tokens that are signed here.
    pub(crate) fn verifier(&self) -> Arc<Verifier> {
        self.held(|held| held.verifier.clone())
    }

    /// The public keys, oldest first, and from when on each signs.
    pub(crate) fn published(&self) -> Vec<(PublicKey, Timestamp)> {
        self.held(|held| {
            let keys = held.pairs.iter().zip(&held.places);
            keys.map(|(pair, place)| (pair.public_key().clone(), place.signs_from))
                .collect()
        })
    }

    /// An access token for a session, signed at `now`, and when it ends.
    pub(crate) fn access_token(
        &self,
        user: &User,
        session: Uuid,
        now: Timestamp,
    ) -> Result<(AccessToken, Timestamp), SigningError> {
        let issued_at = seconds(now);
        let expires_at = issued_at + self.0.schedule.token_lifetime.as_secs();
        let claims = Claims {
            issuer: ISSUER.to_owned(),
            subject: Subject::User { id: user.id, session },
            roles: user.roles,
            audience: PLATFORM.to_owned(),
            issued_at,
            expires_at,
        };
        let ends = i64::try_from(expires_at)
            .ok()
            .and_then(|secs| Timestamp::from_parts(secs, 0));
        Ok((claims.sign(&*self.signer(now)?), ends.unwrap_or(now)))
    }

    /// What this service shows to the ticket service.
    pub(crate) fn service_header(&self) -> Result<HeaderValue, SigningError> {
        let now = self.0.store.now();
        Ok(self.0.service.header(&*self.signer(now)?, seconds(now)))
    }

    fn signer(&self, now: Timestamp) -> Result<Arc<KeyPair>, SigningError> {
        self.held(|held| {
            // A clock that was set back before the first key's time: signed with that one all the same.
            let at = signing::signer(&held.places, now).unwrap_or_default();
            held.pairs.get(at).cloned()
        })
        .ok_or(StoreError::Corrupt("no signing key").into())
    }

    fn held<T>(&self, read: impl FnOnce(&Held) -> T) -> T {
        read(&self.0.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Follower {
    /// Ends it and waits until it has ended.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "what follows the signing keys broke");
        }
    }
}

/// Seconds since 1970, as tokens have them.
pub(crate) fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.to_parts().0).unwrap_or_default()
}

/// What the store holds, once the key that is due has been made.
async fn look(store: &Store, schedule: &Schedule) -> Result<Held, SigningError> {
    let held = read(store).await?;
    let now = store.now();
    let is_due = schedule.due(&held.places, now).is_some();
    let has_ended = schedule.ended_before(&held.places, now) > held.places.first().map(|place| place.generation);
    if !is_due && !has_ended {
        return Ok(held);
    }
    store.turn_keys(schedule, KeyPair::generate()?.to_stored()).await?;
    // Not the one that was made here: another process may have been first.
    read(store).await
}

async fn read(store: &Store) -> Result<Held, SigningError> {
    let (places, pairs): (Vec<_>, Vec<_>) = store
        .signing_keys()
        .await?
        .into_iter()
        .map(|key| (key.place, KeyPair::from_stored(&key.document)))
        .unzip();
    let pairs: Vec<Arc<KeyPair>> = pairs
        .into_iter()
        .map(|pair| pair.map(Arc::new))
        .collect::<Result<_, _>>()?;
    let keys = KeySet::new(pairs.iter().map(|pair| pair.public_key().clone()));
    Ok(Held {
        places,
        pairs,
        verifier: Arc::new(Verifier::new(ISSUER, [PLATFORM], keys)),
    })
}
