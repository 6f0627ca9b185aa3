//! Which seats can be had, as it changes: what WatchAvailability tells. Not the wire.
//!
//! Level-triggered: a signal or the clock only says that it is time to look, and the store says what there is to see. Nothing is queued for
//! a watcher: each keeps the moment that it was told of last and is told how the present one differs, so that a slow watcher
//! misses moments in between, never the last one, and costs a seat map (20 KB of a big hall) and no more.
//!
//! A look is shared by all watchers of an event in this process. Changes made here are seen at once, those of other processes at the next
//! look: processes share nothing but the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::{
    domain::{event::Event, map::SeatMap},
    store::{Store, StoreError},
};

/// How often to look without a signal: for what other processes change.
const LOOK: Duration = Duration::from_millis(500);

/// A look so young is as good as a new one, if nothing changed here since.
const FRESH: Duration = Duration::from_millis(250);

/// The least time between two looks: a rush of changes is seen some twenty times a second, not a thousand times.
const GAP: Duration = Duration::from_millis(50);

/// A watcher that has heard nothing for so long is told that nothing has changed.
const QUIET: Duration = Duration::from_secs(10);

/// Watchers of one process. Each may hold on to a seat map of its own: 20 MB of big halls together.
const MAX_WATCHERS: usize = 1_000;

/// What one process tells its watchers. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Availability {
    store: Store,
    watched: Arc<Mutex<HashMap<Uuid, Weak<Watched>>>>,
    room: Arc<Semaphore>,
}

/// There are as many watchers as there may be.
#[derive(Debug)]
pub(crate) struct TooManyWatchers;

/// An event that is watched, and the last look at it.
#[derive(Debug)]
struct Watched {
    event: Event,
    seq: i64,
    /// Only one looks at a time; the others take what it saw.
    last: tokio::sync::Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    at: Instant,
    /// How many changes this process had made before it.
    changes: u64,
    map: Arc<SeatMap>,
}

/// One watcher.
#[derive(Debug)]
pub(crate) struct Watcher {
    store: Store,
    watched: Arc<Watched>,
    told: Option<Arc<SeatMap>>,
    _room: OwnedSemaphorePermit,
}

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum Update {
    /// Everything.
    Snapshot(Arc<SeatMap>),
    /// What is different from the moment before.
    Delta { from: Arc<SeatMap>, to: Arc<SeatMap> },
    /// Nothing has changed.
    Bookmark(Arc<SeatMap>),
}

impl Availability {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            watched: Arc::default(),
            room: Arc::new(Semaphore::new(MAX_WATCHERS)),
        }
    }

    /// Begins to watch an event.
    pub(crate) async fn watch(&self, event_id: Uuid) -> Result<Result<Watcher, TooManyWatchers>, StoreError> {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return Ok(Err(TooManyWatchers));
        };
        let known = self.lock().get(&event_id).and_then(Weak::upgrade);
        let watched = match known {
            Some(watched) => watched,
            None => self.enter(event_id, self.store.event_and_key(event_id).await?),
        };
        Ok(Ok(Watcher {
            store: self.store.clone(),
            watched,
            told: None,
            _room: room,
        }))
    }

    /// The one that another call has entered since, or this one. Forgets those that nobody watches any more.
    fn enter(&self, event_id: Uuid, (seq, event): (i64, Event)) -> Arc<Watched> {
        let mut watched = self.lock();
        watched.retain(|_, watched| watched.strong_count() > 0);
        if let Some(known) = watched.get(&event_id).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(Watched {
            event,
            seq,
            last: tokio::sync::Mutex::default(),
        });
        watched.insert(event_id, Arc::downgrade(&new));
        new
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Weak<Watched>>> {
        // Nothing panics while it holds the lock, and the map is whole at every step.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// The event that is watched.
    pub(crate) fn event(&self) -> &Event {
        &self.watched.event
    }

    /// What to tell next: at first everything, unless `applied` is how things are; then what changed, as soon as something has, or after
    /// a while that nothing has.
    pub(crate) async fn next(&mut self, applied: i64) -> Result<Update, StoreError> {
        let Some(told) = self.told.clone() else {
            let map = self.look().await?;
            self.told = Some(map.clone());
            return Ok(if map.revision == applied {
                Update::Bookmark(map)
            } else {
                Update::Snapshot(map)
            });
        };
        let quiet = Instant::now() + QUIET;
        loop {
            let signal = self.store.changes().of(self.watched.seq);
            let map = self.look().await?;
            if *map != *told {
                self.told = Some(map.clone());
                return Ok(Update::Delta { from: told, to: map });
            }
            if Instant::now() >= quiet {
                return Ok(Update::Bookmark(map));
            }
            let _ = timeout(LOOK, signal.wait()).await;
        }
    }

    /// The event's seats now, or a moment ago.
    async fn look(&self) -> Result<Arc<SeatMap>, StoreError> {
        let mut last = self.watched.last.lock().await;
        if let Some(look) = &*last {
            let unchanged = self.store.changes().count(self.watched.seq) == look.changes;
            if unchanged && look.at.elapsed() < FRESH {
                return Ok(look.map.clone());
            }
            sleep(GAP.saturating_sub(look.at.elapsed())).await;
        }
        // Counted before the look: what changes during it is looked at once more.
        let (at, changes) = (Instant::now(), self.store.changes().count(self.watched.seq));
        let seen = last.as_ref().map(|look| look.map.clone());
        let map = match seen {
            // Most looks end here, and read no seat's state.
            Some(map) if self.store.revision(self.watched.seq).await? == map.revision => map,
            _ => Arc::new(self.store.map_of(self.watched.seq, &self.watched.event).await?),
        };
        *last = Some(Look {
            at,
            changes,
            map: map.clone(),
        });
        Ok(map)
    }
}
