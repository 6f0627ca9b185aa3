//! The public keys that tokens are checked with: where they come from, when they are fetched again, and that they are kept
//! while whoever publishes them is away.
//!
//! A new key is published ten minutes before it signs, so a look each minute always comes in time. A token of a key that is
//! not known makes the next look come sooner, once a second at the most: key names can be made up.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use identity::{ISSUER, KeySet, PLATFORM, Refused, TokenError, Verifier};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::published::Published;

/// How often they are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// While there are none: nobody can be let in.
const LOOK_EVERY_WITHOUT: Duration = Duration::from_secs(1);
/// How often at the most, whatever tokens are shown.
const LOOK_AT_MOST: Duration = Duration::from_secs(1);

/// After so many looks in vain somebody should hear of it.
const WORRIES: u32 = 10;

/// Where keys come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The user service.
    Published(Box<Published>),
    /// A file, followed.
    File(PathBuf),
    /// Here they are.
    Fixed,
}

/// The keys of one process.
#[derive(Debug)]
pub(crate) struct Keys {
    source: Source,
    verifier: RwLock<Arc<Verifier>>,
    look: Notify,
}

/// The task that looks for keys. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Follower {
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Keys {
    /// Keys that are good from now on; more come from `source`.
    pub(crate) fn new(source: Source, keys: KeySet) -> Arc<Self> {
        Arc::new(Self {
            source,
            verifier: RwLock::new(Arc::new(verifier(keys))),
            look: Notify::new(),
        })
    }

    /// What believes tokens with the keys that are known.
    pub(crate) fn verifier(&self) -> Arc<Verifier> {
        self.verifier.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks soon where a call was refused for want of a key.
    pub(crate) fn noticed(&self, refused: &Refused) {
        if matches!(refused, Refused::NoKeys | Refused::BadToken(TokenError::KeyUnknown(_))) {
            self.look.notify_one();
        }
    }

    /// Looks for keys until the follower is stopped or dropped.
    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.clone().run(stop.clone()));
        Follower {
            task,
            stop: stop.drop_guard(),
        }
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        // What was wrong at the last look, and for how many: said once, and louder when it stays so.
        let mut trouble: Option<(String, u32)> = None;
        loop {
            let looked_at = Instant::now();
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = self.fetch() => found,
            };
            match found {
                Ok(None) => {}
                Ok(Some(keys)) => {
                    if trouble.take().is_some() || self.verifier().keys() != &keys {
                        tracing::info!(keys = keys.iter().count(), "tokens are checked with these keys");
                    }
                    *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier(keys));
                }
                Err(error) => {
                    let looks = match trouble.take() {
                        Some((before, looks)) if before == error => looks + 1,
                        _ => 1,
                    };
                    match (self.verifier().keys().is_empty(), looks) {
                        // Services are started in any order: the one that has them comes a moment later.
                        (true, 1) => tracing::info!(%error, "waits for the keys to check tokens with"),
                        (true, WORRIES) => {
                            tracing::warn!(%error, "still no keys to check tokens with: only what is public is answered");
                        }
                        (false, 1) => tracing::warn!(%error, "the keys that are known go on being good"),
                        _ => {}
                    }
                    trouble = Some((error, looks));
                }
            }
            let pause = match self.verifier().keys().is_empty() {
                true => LOOK_EVERY_WITHOUT,
                false => LOOK_EVERY,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.look.notified() => tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(looked_at + LOOK_AT_MOST) => {}
                },
            }
        }
    }

    /// The keys that there are; `None` where they do not change.
    async fn fetch(&self) -> Result<Option<KeySet>, String> {
        match &self.source {
            Source::Published(published) => published.fetch().await.map(Some),
            Source::File(file) => read(file.clone()).await.map(Some),
            Source::Fixed => Ok(None),
        }
    }
}

impl Follower {
    /// Ends it and waits until it has ended.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "what follows the keys broke");
        }
    }
}

/// The keys in a file.
pub(crate) async fn read(file: PathBuf) -> Result<KeySet, String> {
    let text = tokio::fs::read_to_string(&file)
        .await
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    KeySet::from_jwks(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// For people's tokens, and for those that services show to this one.
fn verifier(keys: KeySet) -> Verifier {
    Verifier::new(ISSUER, [PLATFORM, crate::service::SERVICE], keys)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
