//! Where the registry's state outlives the process.
//!
//! A [`Store`] keeps what was committed and nothing else: it decides nothing about instances or leases. It is called from one
//! thread of its own (see `driver::writer`), so it may block.

mod archive;
mod embedded;
mod etcd;
pub(crate) mod names;
mod record;
mod succession;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub(crate) use archive::{ArchiveError, Contents, verify};
pub(crate) use embedded::{
    Embedded,
    backup::{AtRest, Restored},
};
pub(crate) use etcd::Etcd;
pub use etcd::{EtcdUrl, EtcdUrlError};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{
    catalog::{Batch, Change, LeaseRecord},
    model::{HistoryId, Instance, OverrideRecord, ReplicaId, Replicas, Revision, WallTime},
};

/// Durable state.
pub(crate) trait Store: Send + 'static {
    /// Everything that was ever committed and has not ended. Called once, before the first commit.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// The batches after `compacted` that are still kept, oldest first, without a gap, up to the last commit.
    fn history(&mut self) -> Result<Vec<Batch>, StoreError>;

    /// Makes consecutive batches durable, all or none, and forgets the history up to and with `compacted`. With
    /// [`Verdict::Durable`] they survive a power cut; with the others nothing was written and the store may be used again.
    /// After an error nothing may be assumed and the store must not be used again: a second fsync can succeed without having
    /// written what the first one lost. A store that is away keeps trying until it knows, so this may take as long as that.
    fn commit(&mut self, batches: &[Arc<Batch>], compacted: Revision) -> Result<Verdict, StoreError>;

    /// As [`Store::commit`], of a group that ends leases which `dead` replicas have left behind. Where one of them is back, or
    /// this replica has been held for dead itself and so may not know of it, nothing is written: [`Verdict::Overtaken`], and
    /// there may be no news of it.
    fn commit_if_dead(
        &mut self,
        batches: &[Arc<Batch>],
        compacted: Revision,
        _dead: &[ReplicaId],
    ) -> Result<Verdict, StoreError> {
        self.commit(batches, compacted)
    }

    /// Whether `base` was still the last revision at some time after this was asked: [`Verdict::Durable`], and else
    /// [`Verdict::Overtaken`]. What a replica knows may be the past: by this it learns whether it was the present. Nobody else
    /// writes to a store that is not shared.
    fn confirm(&mut self, _base: Revision) -> Result<Verdict, StoreError> {
        Ok(Verdict::Durable)
    }

    /// Work that commits leave behind and nobody waits for; called after each has been answered, on the same thread. Not
    /// having room for it is no error. Returns whether there is more for [`Store::idle`].
    fn tidy(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// A little more of that, called again and again while nobody wants anything and it returns that there is more.
    fn idle(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Who this registry is among those that use the store. The same for the whole life of the store.
    fn replica(&self) -> ReplicaId {
        ReplicaId::ALONE
    }

    /// For backups while the store is used; `None` for a store that is backed up by its own means.
    fn backup(&self) -> Option<Arc<dyn Backup>> {
        None
    }

    /// What others do with the same store, for the whole life of the store; `None` for a store that is not shared. Called
    /// once, after [`Store::history`] and from within a runtime. The first are the [`News::Replicas`] of now: they are there when
    /// this returns. The batches begin after what was loaded, in order and without a gap; those that this store has committed
    /// itself may or may not be among them.
    fn news(&mut self) -> Option<mpsc::Receiver<News>> {
        None
    }
}

/// Takes backups while others commit.
pub(crate) trait Backup: Send + Sync + std::fmt::Debug {
    /// Hands over a backup of the state at one durable revision, piece by piece, as `archive` has it. May block, and does as
    /// long as `to` does.
    fn write(&self, taken: WallTime, to: &mut dyn FnMut(Vec<u8>) -> std::io::Result<()>) -> Result<(), BackupError>;
}

/// What a backup fails of.
#[derive(Debug, Error)]
pub(crate) enum BackupError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The store cannot be read or made.
    #[error("{0}")]
    Store(String),
    /// The file is no backup that can be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It survives a power cut.
    Durable,
    /// Nothing was written: another replica was first. Its batches come by [`Store::news`].
    Overtaken,
    /// Nothing was written: there is no room, as this says for people. A later commit may fit.
    NoRoom(String),
}

/// What happens to a store that is shared.
#[derive(Debug)]
pub(crate) enum News {
    /// Committed by another replica: consecutive.
    Batches(Vec<Arc<Batch>>),
    /// Replicas have come or gone, or another one is elected.
    Replicas(Replicas),
    /// The store cannot be reached. Told again while that lasts is allowed.
    Away {
        /// How long ago it could.
        since: Duration,
    },
    /// The store can be reached again, and all that was committed meanwhile has been told.
    Back,
    /// The store must not be used again, as after an error of a commit. The last news.
    Failed(StoreError),
}

/// See [`Store::load`].
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Of this store since it was made.
    pub(crate) history_id: HistoryId,
    /// Of the last commit.
    pub(crate) revision: Revision,
    /// The last revision that the history no longer has.
    pub(crate) compacted: Revision,
    /// Ordered by key.
    pub(crate) instances: Vec<Arc<Instance>>,
    /// In any order.
    pub(crate) leases: Vec<LeaseRecord>,
    /// In any order.
    pub(crate) overrides: Vec<OverrideRecord>,
}

impl Loaded {
    /// Makes the history share with the present what is still as it was then, as in a registry that was never restarted: a
    /// store may read both apart, and then each has its own. What was superseded stays the history's own.
    pub(crate) fn lend_to(&self, past: &mut [Batch]) {
        for change in past.iter_mut().flat_map(|batch| &mut batch.changes) {
            let Change::Put { instance, .. } = change else {
                continue;
            };
            let found = self.instances.binary_search_by(|known| known.key.cmp(&instance.key));
            if let Some(known) = found.ok().and_then(|at| self.instances.get(at))
                && **known == **instance
            {
                *instance = Arc::clone(known);
            }
        }
    }
}

/// The store cannot do what it is for.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The directory cannot be made or written.
    #[error("data directory {} cannot be used: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("data directory {} is in use by another registry", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Written by a version that knows more.
    #[error("data directory {} has format {found}; this registry reads format {known}: use the version that wrote it or a newer one", path.display())]
    NewerFormat {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What we read.
        known: u64,
    },
    /// It is not the one that this process has left there.
    #[error("data directory {}: its file was exchanged while it was in use: {how}", path.display())]
    Exchanged {
        /// Which.
        path: PathBuf,
        /// What shows it.
        how: String,
    },
    /// Written by an earlier version, where it must not be converted.
    #[error("data directory {} has format {found}: take the backup with the version that wrote it, or start this one's registry there, which converts it for good", path.display())]
    OlderFormat {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
    /// The engine failed.
    #[error("data directory {}: cannot {action}: {source}", path.display())]
    Engine {
        /// Which.
        path: PathBuf,
        /// At what.
        action: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A store in the network cannot be reached, or refuses to serve us.
    #[error("the store at {store} cannot be used: {why}")]
    Unreachable {
        /// Its members' addresses, without credentials.
        store: String,
        /// Why, and what to do.
        why: String,
    },
    /// A store in the network holds what this replica cannot go on from.
    #[error("the store at {store}: {what}")]
    Unusable {
        /// Its members' addresses, without credentials.
        store: String,
        /// What, and what to do.
        what: String,
    },
    /// A record is not what this registry writes.
    #[error("data directory {}: the record of {what} is damaged: {why}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What the record is of.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}
