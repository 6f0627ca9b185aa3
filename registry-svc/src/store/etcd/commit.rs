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
    cluster::{Cluster, MAKE_ROOM, decode},
    failure::Failure,
    keys::nth,
    shared::{Fence, Shared},
    value::{self, Group, Head, Trace},
    wire::{Compare, KeyValue, Operation, RangeRequest, TxnRequest, end_of},
};
use crate::{
    model::{ReplicaId, Revision},
    store::{StoreError, Verdict},
};

/// What a group costs a replay besides its bytes: a key of its own and its share of a page.
pub(super) const GROUP_COST: u64 = 1_600;
/// Pauses between tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After so long a try whose answer never came is most probably not on its way any more: etcd itself stops waiting for a proposal
/// after 5 s and two elections. That is no promise: it may lie in the log of a leader that is cut off, or in the socket of a
/// member that is stopped, for hours. One that is applied so late is news, as another replica's would be.
const IN_DOUBT: Duration = Duration::from_secs(15);
/// How long a registry that is stopping waits for an etcd that does not answer.
const STOPPING: Duration = Duration::from_secs(5);

/// A commit on its way.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) shared: &'a Shared,
    pub(super) own: ReplicaId,
    pub(super) stop: &'a CancellationToken,
    pub(super) fence: Fence,
    pub(super) first: Revision,
    pub(super) last: Revision,
    pub(super) compacted: Revision,
    pub(super) nonce: u64,
    /// Whose leases it ends since they are dead, and when the session was made that this replica knows it by.
    pub(super) dead: Option<(&'a [ReplicaId], i64)>,
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
    /// `batches` as they are written.
    pub(super) async fn run(self, batches: Vec<u8>, traces: Vec<Trace>) -> Result<Verdict, StoreError> {
        let cost = batches.len() as u64 + GROUP_COST;
        let head = Head {
            revision: self.last.get(),
            // Replicas may keep histories of different lengths: the shortest decides, and nothing comes back.
            compacted: self.compacted.get().max(self.fence.head.compacted),
            written: self.fence.head.written + cost,
            nonce: self.nonce,
        };
        let mut group = Group {
            nonce: self.nonce,
            after: self.fence.head.nonce,
            head: Some(head),
            traces,
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
        let request = self.request(group, head);
        let mut tries = Tries::new(self.stop, self.shared);
        loop {
            let begun = Instant::now();
            let found = match self.cluster.client.txn(request.clone()).await {
                Ok(answer) if answer.succeeded => {
                    self.shared.has_room();
                    Found::Ours(Fence {
                        head,
                        etcd: answer.revision(),
                    })
                }
                Ok(answer) => match self.found(answer.found(0), answer.found(1), head, tries.is_first())? {
                    // Not for the head's sake: somebody is not dead.
                    Found::Nothing if self.dead.is_some() => Found::Others,
                    Found::Nothing => {
                        let gone = "the parts of a commit are gone; something else has deleted them";
                        return Err(self.cluster.unusable(gone));
                    }
                    found => found,
                },
                Err(Failure::NoSpace) => {
                    tries.full(begun);
                    match self.ask(head).await? {
                        Some(Found::Nothing) if !tries.is_in_doubt() => {
                            if self.shared.forget(self.nonce) {
                                self.shared.lacks_room();
                                return Ok(no_room());
                            }
                            Found::Nothing
                        }
                        Some(found) => found,
                        None => Found::Nothing,
                    }
                }
                Err(failure @ Failure::Rejected(_)) => return Err(self.cluster.unusable(failure.to_string())),
                Err(failure) => {
                    tries.failed(&failure, begun);
                    Found::Nothing
                }
            };
            match found {
                Found::Ours(fence) => {
                    self.shared.durable(self.nonce, fence);
                    tries.ended(begun);
                    return Ok(Verdict::Durable);
                }
                Found::Others => {
                    self.shared.forget(self.nonce);
                    tries.ended(begun);
                    return Ok(Verdict::Overtaken);
                }
                // The watch may know what no answer has told.
                Found::Nothing if self.shared.is_seen(self.nonce) => {
                    let etcd = self.shared.fence().etcd;
                    self.shared.durable(self.nonce, Fence { head, etcd });
                    tries.ended(begun);
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

    /// The transaction that is tried.
    pub(super) fn request(&self, group: &Group, head: Head) -> TxnRequest {
        let keys = &self.cluster.keys;
        let mut request = TxnRequest::of(vec![
            Operation::put(keys.group(self.first), value::encode(group)),
            Operation::put(keys.head(), value::encode(&head)),
        ])
        .only_if(Compare::changed_at(keys.head(), self.fence.etcd));
        if let Some(last) = group.parts.checked_sub(1) {
            // A try that is applied after the commit was given up and its parts were taken away must not count: a group
            // without its parts is one that no replica can load.
            let parts = keys.parts_of(self.first, self.nonce);
            request = request.only_if(Compare::present(nth(&parts, last)));
        }
        if let Some((dead, session)) = self.dead {
            request = request.only_if(Compare::changed_at(keys.session(self.own), session));
            for replica in dead {
                request = request.only_if(Compare::absent(keys.session(*replica)));
            }
        }
        request.failure = self.evidence();
        request
    }

    /// What tells what became of the commit.
    fn evidence(&self) -> Vec<Operation> {
        let keys = &self.cluster.keys;
        [keys.group(self.first), keys.head()]
            .map(|key| Operation::range(RangeRequest::one(key)))
            .into()
    }

    /// `first`: no try before this one can have been applied.
    fn found(&self, group: &[KeyValue], at: &[KeyValue], head: Head, first: bool) -> Result<Found, StoreError> {
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
            // Another's commit is there and its group is not: the log was trimmed beyond, and with it what may have become of an
            // earlier try. Where there was none, others were first, and the watch still has what etcd's own history has.
            [kv] if kv.mod_revision > self.fence.etcd && first => Ok(Found::Others),
            [kv] if kv.mod_revision > self.fence.etcd => Err(cluster.left_behind(self.fence.head.newest())),
            _ => Err(cluster.replaced()),
        }
    }

    /// Reads it without another try; none where etcd does not answer.
    async fn ask(&self, head: Head) -> Result<Option<Found>, StoreError> {
        match self.cluster.client.txn(TxnRequest::of(self.evidence())).await {
            Ok(answer) => self.found(answer.found(0), answer.found(1), head, false).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Puts what is too large for one request beside the log, where it means nothing until a group names it.
    pub(super) async fn stage(&self, batches: Vec<u8>) -> Result<Result<u32, Verdict>, StoreError> {
        let prefix = self.cluster.keys.parts_of(self.first, self.nonce);
        let batches = Bytes::from(batches);
        let mut tries = Tries::new(self.stop, self.shared);
        let mut begun = Instant::now();
        let mut parts = 0;
        for begin in (0..batches.len()).step_by(self.part_bytes) {
            let part = batches.slice(begin..batches.len().min(begin + self.part_bytes));
            let put = TxnRequest::of(vec![Operation::put(nth(&prefix, parts), part)]);
            loop {
                begun = Instant::now();
                let put = self.cluster.client.txn(put.clone()).await;
                // After each part: a large group takes long enough for others to come first, and is in their way meanwhile.
                if self.shared.fence().etcd != self.fence.etcd {
                    tries.ended(begun);
                    return Ok(Err(Verdict::Overtaken));
                }
                match put {
                    Ok(_) => break,
                    Err(Failure::NoSpace) => {
                        tries.full(begun);
                        self.shared.lacks_room();
                        return Ok(Err(no_room()));
                    }
                    Err(failure @ Failure::Rejected(_)) => return Err(self.cluster.unusable(failure.to_string())),
                    Err(failure) => tries.failed(&failure, begun),
                }
                if !tries.pause().await {
                    return Err(self
                        .cluster
                        .unreachable(&Failure::Away("the registry stops".to_owned())));
                }
            }
            parts += 1;
        }
        tries.ended(begun);
        Ok(Ok(parts))
    }

    /// Takes the parts away again. What this leaves goes with the next trimming of the log.
    pub(super) async fn unstage(&self) {
        let prefix = self.cluster.keys.parts_of(self.first, self.nonce);
        let delete = TxnRequest::of(vec![Operation::delete(prefix.clone(), end_of(&prefix))]);
        if let Err(failure) = self.cluster.client.txn(delete).await {
            warn!(%failure, "parts of a commit that did not go through stay until the log is trimmed");
        }
    }
}

fn no_room() -> Verdict {
    Verdict::NoRoom(format!("{}: {MAKE_ROOM}", Failure::NoSpace))
}

/// The pauses between tries of one commit, and what is known of those before.
struct Tries<'a> {
    stop: &'a CancellationToken,
    shared: &'a Shared,
    begun: Instant,
    /// How many were not answered.
    count: u32,
    pause: Duration,
    /// Of the last try that may still be on its way.
    in_doubt: Option<Instant>,
    /// etcd has answered one with "no space", as also the one that was applied all the same.
    full: bool,
}

impl<'a> Tries<'a> {
    fn new(stop: &'a CancellationToken, shared: &'a Shared) -> Self {
        Self {
            stop,
            shared,
            begun: Instant::now(),
            count: 0,
            pause: PAUSE_MIN,
            in_doubt: None,
            full: false,
        }
    }

    /// One that began then was not answered.
    fn failed(&mut self, failure: &Failure, begun: Instant) {
        self.shared.unanswered(begun);
        self.in_doubt = Some(Instant::now());
        // Once, not at every try: this may take hours.
        if self.count == 1 {
            warn!(%failure, "etcd does not take a commit; it is repeated until its outcome is known");
        }
        self.count += 1;
    }

    /// One that began then was answered with "no space".
    fn full(&mut self, begun: Instant) {
        self.shared.answered(begun);
        self.full = true;
    }

    /// Whether no earlier one can have been applied.
    fn is_first(&self) -> bool {
        self.count == 0 && !self.full
    }

    /// By one that began then.
    fn ended(&self, begun: Instant) {
        self.shared.answered(begun);
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
