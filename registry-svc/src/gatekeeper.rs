//! Keeps the tokens that are good up to date with their file, and decides with them. What is decided is `access`'s.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    access::{self, Access, Shown, Verdict},
    tokens::{self, TokenSet, TokensError},
};

/// How often the file is looked at and ended tokens are let go: a change counts within 2 s, and a revoked stream ends within 5.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that was changed so short a time ago may be changed again within one tick of the file system's clock.
const YOUNG: Duration = Duration::from_secs(2);

/// Decides about the calls of one registry.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    file: Option<PathBuf>,
    identities: bool,
    tokens: ArcSwap<TokenSet>,
}

impl Gatekeeper {
    /// `None` where everybody may do everything.
    ///
    /// # Errors
    /// A file of tokens that is not there or cannot be read: nobody is let in by an accident.
    pub(crate) fn open(access: &Access) -> Result<Option<Arc<Self>>, TokensError> {
        let Access::Guarded { tokens, identities } = access else {
            return Ok(None);
        };
        let set = match tokens {
            Some(file) => TokenSet::new(tokens::read(file)?),
            None => TokenSet::default(),
        };
        if tokens.is_some() && set.len() == 0 {
            warn!("the token file has no tokens: nobody can use this registry until `tessera token issue` adds one");
        }
        Ok(Some(Arc::new(Self {
            file: tokens.clone(),
            identities: *identities,
            tokens: ArcSwap::from_pointee(set),
        })))
    }

    /// Decides about a call by its path and what it shows. Blocks on nothing.
    pub(crate) fn decide(
        &self,
        path: &str,
        token: Option<Result<&str, ()>>,
        identity: Option<&Arc<tls::Identity>>,
    ) -> Verdict {
        let shown = Shown {
            token,
            identity: identity.filter(|_| self.identities),
            now: tokens::now(),
        };
        access::decide(path, shown, &self.tokens.load())
    }

    /// Follows the file until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut hangups = hangups();
        let mut pause = tokio::time::interval(LOOK_EVERY);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut follower = Follower::default();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                _ = pause.tick() => false,
                () = hangup(&mut hangups) => true,
            };
            self.tokens.load().expire(tokens::now());
            if let Some(file) = &self.file {
                follower.look(file.clone(), asked, &self.tokens).await;
            }
        }
    }
}

/// SIGHUP is a wish to read what is on disk again. Where it cannot be heard the file is still looked at.
fn hangups() -> Option<Signal> {
    signal(SignalKind::hangup())
        .inspect_err(|error| warn!(%error, "SIGHUP is not heard"))
        .ok()
}

async fn hangup(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => {
            // `None` comes only when the runtime ends.
            let _ = hangups.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
    /// Of content and inode, in seconds and nanoseconds: the latter cannot be set back.
    changed: [i64; 4],
    is_young: bool,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Follower {
    seen: Option<Seen>,
    /// What was wrong at the last look: said once.
    trouble: Option<String>,
}

impl Follower {
    async fn look(&mut self, file: PathBuf, asked: bool, tokens: &ArcSwap<TokenSet>) {
        let last = self.seen;
        let read = move || {
            let now = see(&file);
            let is_as_it_was = now.is_some_and(|now| !now.is_young) && now == last;
            (now, (asked || !is_as_it_was).then(|| tokens::read(&file)))
        };
        // Off the runtime: disks block. Joined at once, so it has an owner.
        let Ok((seen, read)) = tokio::task::spawn_blocking(read).await else {
            return;
        };
        match read {
            None => {}
            Some(Ok(next)) => {
                let before = tokens.load_full();
                let next = before.followed_by(next);
                if asked || self.trouble.take().is_some() || self.is_other(seen) {
                    info!(tokens = next.len(), "the token file was read");
                }
                tokens.store(Arc::new(next));
                self.seen = seen;
            }
            Some(Err(error)) => {
                let error = error.to_string();
                if self.trouble.as_ref() != Some(&error) {
                    warn!(%error, "the tokens that were read before are still the ones that count");
                    self.trouble = Some(error);
                }
            }
        }
    }

    /// Whether that is another content than the last one; the first look finds what the start has read.
    fn is_other(&self, seen: Option<Seen>) -> bool {
        let content = |seen: Seen| (seen.inode, seen.size, seen.changed);
        self.seen.is_some() && self.seen.map(content) != seen.map(content)
    }
}

fn see(file: &Path) -> Option<Seen> {
    let metadata = std::fs::metadata(file).ok()?;
    let age = metadata.modified().ok().map(|at| SystemTime::now().duration_since(at));
    Some(Seen {
        inode: metadata.ino(),
        size: metadata.size(),
        changed: [
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ],
        // From the future: by a clock that is not ours, so nothing is known.
        is_young: !matches!(age, Some(Ok(age)) if age > YOUNG),
    })
}
