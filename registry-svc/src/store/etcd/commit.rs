//! One commit: a transaction that compares the head and appends to the log, repeated until its outcome is certain.
//!
//! The fence makes the repetition safe: the first try that etcd applies changes the head, so that every other one fails its
//! comparison, however late it arrives; and the group in the log carries the commit's nonce, by which a repetition knows the
//! first try's success from another replica's.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    cluster::{Cluster, decode},
    failure::Failure,
    keys::nth,
    shared::{Fence, Shared},
    value::{self, Group, Head},
    wire::{Compare, KeyValue, Operation, RangeRequest, TxnRequest, end_of},
};
use crate::{
    model::Revision,
    store::{StoreError, Verdict},
};

/// What a group costs a replay besides its bytes: a key of its own and its share of a page.
pub(super) const GROUP_COST: u64 = 1_600;
/// Pauses between tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After so long a proposal whose answer never came is no longer on its way: etcd's own limit is 5 s and two elections.
const IN_DOUBT: Duration = Duration::from_secs(15);
/// How long a registry that is stopping waits for an etcd that does not answer.
const STOPPING: Duration = Duration::from_secs(5);

/// A commit on its way.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) shared: &'a Shared,
    pub(super) stop: &'a CancellationToken,
    pub(super) fence: Fence,
    pub(super) first: Revision,
    pub(super) last: Revision,
    pub(super) compacted: Revision,
    pub(super) nonce: u64,
    /// The largest value of a key.
    pub(super) part_bytes: usize,
}

/// What etcd says of a commit that it did not take just now.
enum Found {
    /// It took it before.
    Ours(Fence),
    /// It took another's in its place.
    Others,
    /// It has taken nothing since the fence.
    Nothing,
}

impl Commit<'_> {
    pub(super) async fn run(self, batches: Vec<u8>) -> Result<Verdict, StoreError> {
        let cost = batches.len() as u64 + GROUP_COST;
        let head = Head {
            revision: self.last.get(),
            // Replicas may keep histories of different lengths: the shortest decides, and nothing comes back.
            compacted: self.compacted.get().max(self.fence.head.compacted),
            written: self.fence.head.written + cost,
        };
        let mut group = Group {
            nonce: self.nonce,
            head: Some(head),
            ..Group::default()
        };
        let staged = batches.len() > self.part_bytes;
        if staged {
            match self.stage(batches).await? {
                Ok(parts) => group.parts = parts,
                Err(verdict) => {
                    self.unstage().await;
                    return Ok(verdict);
                }
            }
        } else {
            group.batches = batches.into();
        }
        self.shared.pending(self.nonce);
        let verdict = self.decide(&group, head).await?;
        if staged && verdict != Verdict::Durable {
            self.unstage().await;
        }
        Ok(verdict)
    }

    async fn decide(&self, group: &Group, head: Head) -> Result<Verdict, StoreError> {
        let keys = &self.cluster.keys;
        let request = TxnRequest {
            compare: vec![Compare::changed_at(keys.head(), self.fence.etcd)],
            success: vec![
                Operation::put(keys.group(self.first), value::encode(group)),
                Operation::put(keys.head(), value::encode(&head)),
            ],
            failure: self.look(),
        };
        let mut tries = Tries::new(self.stop);
        loop {
            let found = match self.cluster.client.txn(request.clone()).await {
                Ok(answer) if answer.succeeded => Found::Ours(Fence {
                    head,
                    etcd: answer.revision(),
                }),
                Ok(answer) => self.found(answer.found(0), answer.found(1), head)?,
                Err(Failure::NoSpace) => match self.look_again(head).await? {
                    Some(Found::Nothing) if !tries.is_in_doubt() => {
                        if self.shared.forget(self.nonce) {
                            return Ok(no_room());
                        }
                        Found::Nothing
                    }
                    Some(found) => found,
                    None => Found::Nothing,
                },
                Err(failure @ Failure::Rejected(_)) => return Err(self.cluster.unusable(failure.to_string())),
                Err(failure) => {
                    tries.failed(&failure);
                    Found::Nothing
                }
            };
            match found {
                Found::Ours(fence) => {
                    self.shared.durable(self.nonce, fence);
                    tries.ended();
                    return Ok(Verdict::Durable);
                }
                Found::Others => {
                    self.shared.forget(self.nonce);
                    tries.ended();
                    return Ok(Verdict::Overtaken);
                }
                // The watch may know what no answer has told.
                Found::Nothing if self.shared.is_seen(self.nonce) => {
                    let etcd = self.shared.fence().etcd;
                    self.shared.durable(self.nonce, Fence { head, etcd });
                    tries.ended();
                    return Ok(Verdict::Durable);
                }
                Found::Nothing => {
                    if !tries.pause().await {
                        return Err(self.cluster.unreachable(&Failure::Away(
                            "the registry stops, and what became of its last commit is unknown".to_owned(),
                        )));
                    }
                }
            }
        }
    }

    /// What tells what became of the commit.
    fn look(&self) -> Vec<Operation> {
        let keys = &self.cluster.keys;
        [keys.group(self.first), keys.head()]
            .map(|key| Operation::range(RangeRequest::one(key)))
            .into()
    }

    fn found(&self, group: &[KeyValue], at: &[KeyValue], head: Head) -> Result<Found, StoreError> {
        let cluster = self.cluster;
        if let [kv] = group {
            let group: Group = decode(cluster, "a group", &kv.value)?;
            return Ok(if group.nonce == self.nonce {
                let etcd = kv.mod_revision;
                Found::Ours(Fence { head, etcd })
            } else {
                Found::Others
            });
        }
        match at {
            [kv] if kv.mod_revision == self.fence.etcd => Ok(Found::Nothing),
            // Another's commit is there and its group is not: the log was trimmed beyond, and with it what became of ours.
            [kv] if kv.mod_revision > self.fence.etcd => Err(cluster.left_behind(self.fence.head.newest())),
            _ => Err(cluster
                .unusable("it was emptied or replaced by an older one; restart this replica to load what is there")),
        }
    }

    async fn look_again(&self, head: Head) -> Result<Option<Found>, StoreError> {
        let request = TxnRequest {
            success: self.look(),
            ..TxnRequest::default()
        };
        match self.cluster.client.txn(request).await {
            Ok(answer) => self.found(answer.found(0), answer.found(1), head).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Puts what is too large for one request beside the log, where it means nothing until a group names it.
    async fn stage(&self, batches: Vec<u8>) -> Result<Result<u32, Verdict>, StoreError> {
        let prefix = self.cluster.keys.parts_of(self.first, self.nonce);
        let batches = Bytes::from(batches);
        let mut tries = Tries::new(self.stop);
        let mut parts = 0;
        for begin in (0..batches.len()).step_by(self.part_bytes) {
            let part = batches.slice(begin..batches.len().min(begin + self.part_bytes));
            let put = TxnRequest {
                success: vec![Operation::put(nth(&prefix, parts), part)],
                ..TxnRequest::default()
            };
            loop {
                match self.cluster.client.txn(put.clone()).await {
                    Ok(_) => break,
                    Err(Failure::NoSpace) => return Ok(Err(no_room())),
                    Err(failure @ Failure::Rejected(_)) => return Err(self.cluster.unusable(failure.to_string())),
                    Err(failure) => tries.failed(&failure),
                }
                if self.shared.fence().etcd != self.fence.etcd {
                    return Ok(Err(Verdict::Overtaken));
                }
                if !tries.pause().await {
                    return Err(self
                        .cluster
                        .unreachable(&Failure::Away("the registry stops".to_owned())));
                }
            }
            parts += 1;
        }
        tries.ended();
        Ok(Ok(parts))
    }

    /// Takes the parts away again. What this leaves goes with the next trimming of the log.
    async fn unstage(&self) {
        let prefix = self.cluster.keys.parts_of(self.first, self.nonce);
        let delete = TxnRequest {
            success: vec![Operation::delete(prefix.clone(), end_of(&prefix))],
            ..TxnRequest::default()
        };
        if let Err(failure) = self.cluster.client.txn(delete).await {
            warn!(%failure, "parts of a commit that did not go through stay until the log is trimmed");
        }
    }
}

fn no_room() -> Verdict {
    Verdict::NoRoom(
        "etcd's space quota is used up: compact and defragment it, then disarm its alarm (etcdctl compact, defrag, alarm disarm)"
            .to_owned(),
    )
}

/// The pauses between tries of one commit, and what is known of those before.
struct Tries<'a> {
    stop: &'a CancellationToken,
    begun: Instant,
    count: u32,
    pause: Duration,
    /// Of the last try that may still be on its way.
    in_doubt: Option<Instant>,
}

impl<'a> Tries<'a> {
    fn new(stop: &'a CancellationToken) -> Self {
        Self {
            stop,
            begun: Instant::now(),
            count: 0,
            pause: PAUSE_MIN,
            in_doubt: None,
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.in_doubt = Some(Instant::now());
        // Once, not at every try: this may take hours.
        if self.count == 1 {
            warn!(%failure, "etcd does not take a commit; it is repeated until its outcome is known");
        }
        self.count += 1;
    }

    fn ended(&self) {
        if self.count > 1 {
            info!(
                tries = self.count,
                seconds = self.begun.elapsed().as_secs_f64(),
                "the outcome of the commit is known"
            );
        }
    }

    fn is_in_doubt(&self) -> bool {
        self.in_doubt.is_some_and(|last| last.elapsed() < IN_DOUBT)
    }

    /// `false`: give up, the registry stops and etcd has been silent for long enough.
    async fn pause(&mut self) -> bool {
        if self.stop.is_cancelled() && self.begun.elapsed() >= STOPPING {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}
