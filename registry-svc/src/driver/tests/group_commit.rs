//! The driver over a store that the test holds the reins of: what waits for the disk, and what never does.

use std::{
    sync::{Arc, Mutex, mpsc as std_mpsc},
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{
        Batch, Catalog, CatalogError, Command, Deregister, LeaseRecord, Register, Reply, Settings as CatalogSettings,
    },
    driver::{Answer, Clock, Driver, DriverError, Handle, Settings, SubmitError},
    fixtures::{confidence, draft, end, grant, heartbeat, hub, now, owner},
    hub::Hub,
    metrics::Metrics,
    model::{Confidence, Metadata, ReplicaId, Revision},
    store::{Loaded, Store, StoreError, Verdict},
};

/// Bounds every wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store whose every commit waits to be let through, with success or without.
struct Gate {
    sizes: Arc<Mutex<Vec<usize>>>,
    verdicts: std_mpsc::Receiver<bool>,
    /// Cannot put things in order after a commit.
    untidy: bool,
}

impl Store for Gate {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    fn history(&mut self) -> Result<Vec<Batch>, StoreError> {
        Ok(Vec::new())
    }

    fn commit(&mut self, batches: &[Arc<Batch>], _compacted: Revision) -> Result<Verdict, StoreError> {
        self.sizes.lock().expect("no panic").push(batches.len());
        match self.verdicts.recv() {
            Ok(true) => Ok(Verdict::Durable),
            Ok(false) => Err(failed("fsync failed")),
            // The test is over.
            Err(_) => Ok(Verdict::Durable),
        }
    }

    fn tidy(&mut self) -> Result<bool, StoreError> {
        if self.untidy {
            Err(failed("tidying failed"))
        } else {
            Ok(false)
        }
    }
}

fn failed(why: &str) -> StoreError {
    StoreError::Directory {
        path: "disk".into(),
        source: std::io::Error::other(why),
    }
}

/// A driver that does not run yet, and what surrounds it.
struct Parts {
    driver: Driver,
    handle: Handle,
    hub: Arc<Hub>,
    stop: CancellationToken,
    sizes: Arc<Mutex<Vec<usize>>>,
    verdicts: std_mpsc::Sender<bool>,
}

struct Bench {
    handle: Handle,
    hub: Arc<Hub>,
    driver: JoinHandle<Result<(), DriverError>>,
    stop: CancellationToken,
    /// The sizes of the groups that came to the disk.
    sizes: Arc<Mutex<Vec<usize>>>,
    verdicts: std_mpsc::Sender<bool>,
}

impl Parts {
    fn new() -> Self {
        Self::over(Vec::new(), false)
    }

    /// After a restart that brought these leases back.
    fn restored(leases: Vec<LeaseRecord>) -> Self {
        Self::over(leases, false)
    }

    fn over(leases: Vec<LeaseRecord>, untidy: bool) -> Self {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let (verdicts, gate) = std_mpsc::channel();
        let hub = Arc::new(hub(&[], !leases.is_empty()));
        let clock = Clock::start();
        let catalog = Catalog::restore(
            CatalogSettings::default(),
            Revision::ZERO,
            leases,
            &[],
            clock.now().moment,
        );
        let stop = CancellationToken::new();
        let store = Gate {
            sizes: Arc::clone(&sizes),
            verdicts: gate,
            untidy,
        };
        let (driver, handle) = Driver::new(
            catalog,
            Arc::clone(&hub),
            store,
            clock,
            Metrics::new(),
            Settings::default(),
            stop.clone(),
        )
        .expect("a thread");
        Self {
            driver,
            handle,
            hub,
            stop,
            sizes,
            verdicts,
        }
    }

    /// Has a command taken up at a time; its answer would come here.
    fn mutate(&mut self, millis: u64, command: Command) -> oneshot::Receiver<Answer> {
        let answer = self.handle.abandoned(command);
        let mutation = self.driver.inbox.mutations.try_recv().expect("was sent");
        self.driver.core.look(now(millis));
        self.driver.mutate(mutation, now(millis));
        self.advance(millis);
        answer
    }

    /// Lets a commit through and takes it up at a time.
    async fn commit(&mut self, millis: u64) {
        self.verdicts.send(true).expect("the store lives");
        let committed = timeout(PATIENCE, self.driver.writer.committed())
            .await
            .expect("in time")
            .expect("succeeds");
        self.driver.core.look(now(millis));
        self.driver.committed(committed, now(millis)).expect("goes on");
    }

    fn advance(&mut self, millis: u64) {
        if let Some(job) = self.driver.core.next_job(now(millis)) {
            self.driver.writer.commit(job);
        }
    }

    fn pulse(&mut self, millis: u64) {
        self.driver.core.look(now(millis));
        self.driver.pulse(now(millis));
    }
}

impl Bench {
    fn new() -> Self {
        Self::run(Parts::new())
    }

    fn run(parts: Parts) -> Self {
        let Parts {
            driver,
            handle,
            hub,
            stop,
            sizes,
            verdicts,
        } = parts;
        Self {
            handle,
            hub,
            driver: tokio::spawn(driver.run()),
            stop,
            sizes,
            verdicts,
        }
    }

    fn submit(&self, command: Command) -> JoinHandle<Result<Reply, SubmitError>> {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.submit(command).await })
    }

    fn register(&self, n: u128, id: &str) -> JoinHandle<Result<Reply, SubmitError>> {
        self.submit(Command::Register(registration(n, id)))
    }

    fn let_through(&self) {
        self.verdicts.send(true).expect("the store lives");
    }

    /// Waits until so many groups have come to the disk.
    async fn groups(&self, count: usize) {
        let come = async {
            while self.sizes.lock().expect("no panic").len() < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, come).await.expect("the group comes");
    }

    fn instances(&self) -> usize {
        let scope = crate::fixtures::scope("").scope;
        let services = self
            .hub
            .look(|view| view.services(&scope, std::ops::Bound::Unbounded, usize::MAX));
        services.iter().map(|(_, view)| view.len()).sum()
    }
}

fn registration(n: u128, id: &str) -> Register {
    grant(n, heartbeat(100), vec![draft("a", id, "")])
}

/// The most that one Register may bring in metadata.
fn bulky(n: u128) -> Command {
    let drafts = (0..64).map(|id| {
        let mut draft = draft("a", &format!("{n}-{id}"), "");
        let pairs = (0..15).map(|key| (format!("k{key}"), "v".repeat(1_024)));
        draft.spec.metadata = Metadata::try_new(pairs).expect("fits");
        draft
    });
    Command::Register(grant(n, heartbeat(100), drafts.collect()))
}

async fn done<T>(task: JoinHandle<T>) -> T {
    timeout(PATIENCE, task).await.expect("in time").expect("no panic")
}

#[tokio::test]
async fn registrations_share_a_commit_and_are_seen_only_after_it() {
    let bench = Bench::new();
    let first = bench.register(0, "0");
    bench.groups(1).await;
    let others: Vec<_> = (1..=50).map(|n| bench.register(n, &n.to_string())).collect();
    // A renewal stands in no queue behind them; by its answer they have all been taken up, as the next lines show.
    assert!(bench.handle.renew(vec![owner(0)], None, None).await.expect("answers")[0].is_ok());
    assert_eq!(bench.instances(), 0, "nothing is durable yet");
    assert!(!first.is_finished());

    // The first group is let through as soon as all others wait behind it.
    while bench.handle.queued() > 0 {
        tokio::task::yield_now().await;
    }
    bench.let_through();
    assert!(matches!(done(first).await, Ok(Reply::Registered(_))));
    bench.groups(2).await;
    assert_eq!(bench.instances(), 1);
    bench.let_through();
    for other in others {
        done(other).await.expect("registers");
    }
    assert_eq!(bench.instances(), 51);
    assert_eq!(*bench.sizes.lock().expect("no panic"), [1, 50]);
}

/// A refusal tells of the state, so it must not run ahead of the disk either.
#[tokio::test]
async fn a_refusal_waits_for_what_it_tells_of() {
    let bench = Bench::new();
    let first = bench.register(1, "1");
    bench.groups(1).await;
    let second = bench.register(2, "1");
    let ending = Deregister {
        owner: owner(1),
        ..end(1, &["1"])
    };
    let refused = bench.submit(Command::Deregister(ending));
    while bench.handle.queued() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!refused.is_finished(), "that another took it is not durable yet");
    bench.let_through();
    done(first).await.expect("registers");
    bench.groups(2).await;
    assert!(!refused.is_finished());
    bench.let_through();
    done(second).await.expect("registers");
    let refusal = done(refused).await.expect_err("succeeded");
    assert!(
        matches!(refusal, SubmitError::Refused(CatalogError::LeaseFenced)),
        "{refusal}"
    );
}

/// A slow disk delays registrations, but it must not end leases: neither those that live nor those it has not granted yet.
#[tokio::test]
async fn a_slow_disk_expires_nobody_who_renews() {
    let bench = Bench::new();
    let first = bench.register(1, "kept");
    bench.groups(1).await;
    bench.let_through();
    done(first).await.expect("registers");
    let second = bench.register(2, "slow");
    bench.groups(2).await;
    // Stands behind the one that is under way, as long as that takes.
    let third = bench.register(3, "behind");
    while bench.handle.queued() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    for _ in 0..30 {
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(
            bench.handle.renew(vec![owner(1)], None, None).await.expect("answers")[0].is_ok(),
            "answered at once"
        );
    }
    tokio::time::resume();
    bench.let_through();
    bench.let_through();
    done(second).await.expect("registers");
    done(third).await.expect("registers");
    for n in [2, 3] {
        assert!(
            bench.handle.renew(vec![owner(n)], None, None).await.expect("answers")[0].is_ok(),
            "the life of {n} begins now"
        );
    }
    assert_eq!(bench.instances(), 3);
}

/// The disk took longer than a time to live. When it was free again the driver expired what was overdue, although the renewal
/// had been standing in the queue all the while: only the pulse looked there first.
#[tokio::test]
async fn who_has_knocked_before_a_slow_commit_ends_does_not_lapse() {
    let mut parts = Parts::new();
    let kept = parts.mutate(0, Command::Register(registration(1, "kept")));
    parts.commit(0).await;
    kept.await.expect("answered").expect("registers");
    let _slow = parts.mutate(0, Command::Register(registration(2, "slow")));
    for millis in (100..=600).step_by(100) {
        parts.pulse(millis);
    }
    let handle = parts.handle.clone();
    let renewed = tokio::spawn(async move { handle.renew(vec![owner(1)], None, None).await });
    while parts.driver.inbox.renewals.is_empty() {
        tokio::task::yield_now().await;
    }
    parts.commit(650).await;
    assert!(parts.driver.core.open.batches().is_empty(), "nobody has lapsed");
    assert!(done(renewed).await.expect("answers")[0].is_ok());
}

/// The window of a restart closed while a commit was on its way, and what lapsed right after it was told as of a registry that
/// still recovers, during which nothing lapses: only the pulse told the confidence.
#[tokio::test]
async fn an_expiry_is_not_told_with_the_confidence_of_a_recovery() {
    let silent = LeaseRecord {
        id: owner(1).lease,
        secret: owner(1).secret,
        heartbeat: heartbeat(100),
        owner: ReplicaId::ALONE,
        replaced: Vec::new(),
        emptied: false,
        registrant: None,
    };
    let mut parts = Parts::restored(vec![silent]);
    let _slow = parts.mutate(100, Command::Register(registration(2, "slow")));
    assert_eq!(confidence(&parts.hub, now(700)), Confidence::Recovering);
    for millis in (200..=600).step_by(100) {
        parts.driver.core.look(now(millis));
    }
    parts.commit(700).await;
    assert_eq!(parts.driver.core.open.batches().len(), 1, "the silent one has lapsed");
    assert_eq!(confidence(&parts.hub, now(700)), Confidence::Fresh);
}

#[tokio::test]
async fn silence_expires_and_a_pause_does_not() {
    let bench = Bench::new();
    let first = bench.register(1, "1");
    bench.groups(1).await;
    bench.let_through();
    done(first).await.expect("registers");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert!(
        bench.handle.renew(vec![owner(1)], None, None).await.expect("answers")[0].is_ok(),
        "an hour's pause counts for nothing"
    );
    for _ in 0..6 {
        tokio::time::advance(Duration::from_millis(100)).await;
        // The driver has its turn.
        bench.handle.renew(Vec::new(), None, None).await.expect("answers");
    }
    tokio::time::resume();
    bench.groups(2).await;
    assert_eq!(bench.instances(), 1, "the removal is not durable yet");
    bench.let_through();
    while bench.instances() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A second fsync may succeed without having written what the first one lost, so there is no second one.
#[tokio::test]
async fn a_failed_commit_is_the_end_and_acknowledges_nothing() {
    let bench = Bench::new();
    let first = bench.register(1, "1");
    bench.groups(1).await;
    let waiting = bench.register(2, "2");
    while bench.handle.queued() > 0 {
        tokio::task::yield_now().await;
    }
    bench.verdicts.send(false).expect("the store lives");
    let error = done(bench.driver).await.expect_err("fails");
    assert!(error.to_string().contains("fsync failed"), "{error}");
    for task in [first, waiting] {
        let error = done(task).await.expect_err("not acknowledged");
        assert!(matches!(error, SubmitError::OutcomeUnknown), "{error}");
    }
    let late = bench
        .handle
        .submit(Command::Register(registration(3, "3")))
        .await
        .expect_err("stopped");
    assert!(matches!(late, SubmitError::Stopping), "{late}");
    assert_eq!(
        bench.sizes.lock().expect("no panic").len(),
        1,
        "the disk was not asked again"
    );
}

/// Nobody looked at the store while nothing was on its way: it was taken for alive until the next change, which then heard that
/// a thread had ended, and not why.
#[tokio::test]
async fn a_store_that_fails_while_idle_is_heard_at_once_and_says_why() {
    let bench = Bench::run(Parts::over(Vec::new(), true));
    let first = bench.register(1, "1");
    bench.groups(1).await;
    bench.let_through();
    done(first).await.expect("registers");
    let error = done(bench.driver).await.expect_err("fails");
    assert!(error.to_string().contains("tidying failed"), "{error}");
}

#[tokio::test]
async fn a_stop_finishes_what_was_accepted() {
    let bench = Bench::new();
    let tasks: Vec<_> = (0..10).map(|n| bench.register(n, &n.to_string())).collect();
    bench.groups(1).await;
    bench.stop.cancel();
    drop(bench.verdicts);
    done(bench.driver).await.expect("stops");
    for task in tasks {
        done(task).await.expect("was accepted");
    }
    assert_eq!(bench.hub.look(|view| view.revision()).get(), 10);
}

#[tokio::test]
async fn nobody_works_for_callers_who_have_gone() {
    let bench = Bench::new();
    let first = bench.register(1, "1");
    bench.groups(1).await;
    // Not taken up before the disk is free again: the driver has no turn in between.
    let gone = bench.handle.abandoned(Command::Register(registration(2, "2")));
    drop(gone);
    while bench.handle.queued() > 0 {
        tokio::task::yield_now().await;
    }
    bench.let_through();
    done(first).await.expect("registers");
    assert_eq!(bench.hub.look(|view| view.revision()).get(), 1);
    assert!(
        bench.handle.renew(vec![owner(2)], None, None).await.expect("answers")[0].is_err(),
        "it was never registered"
    );
}

/// Behind a slow disk the driver took up mutations as long as they made less than 4,096 batches. Those that make none were
/// never counted, and those of a megabyte as much as those of a kilobyte.
#[tokio::test]
async fn what_waits_for_a_slow_disk_is_bounded_whatever_it_is() {
    let mut parts = Parts::new();
    let _slow = parts.mutate(0, Command::Register(registration(1, "slow")));
    let mut refused = Vec::new();
    while parts.driver.core.takes_mutations() {
        refused.push(parts.mutate(0, Command::Deregister(end(9, &[]))));
        assert!(refused.len() <= 4_096, "answers are counted");
    }
    assert!(
        parts.driver.core.open.batches().is_empty(),
        "and nothing but answers was there"
    );
    parts.commit(0).await;
    parts.advance(0);
    assert!(parts.driver.core.takes_mutations(), "they have been answered");

    let _slow = parts.mutate(0, Command::Register(registration(2, "slow")));
    let mut large = Vec::new();
    while parts.driver.core.takes_mutations() {
        large.push(parts.mutate(0, bulky(10 + large.len() as u128)));
        assert!(large.len() <= 20, "bytes are counted");
    }
    assert!(large.len() > 5, "but not too many: {}", large.len());
    parts.commit(0).await;
    parts.advance(0);
    assert!(parts.driver.core.takes_mutations(), "they are on their way");
}

/// The queue held 1,024 mutations of up to 2.3 MB each.
#[tokio::test]
async fn the_queue_is_bounded_by_bytes_too() {
    let mut parts = Parts::new();
    let mut waiting = Vec::new();
    while waiting.len() < 100 && parts.handle.has_room_for(&bulky(0)) {
        waiting.push(parts.handle.abandoned(bulky(waiting.len() as u128)));
    }
    assert!((50..70).contains(&waiting.len()), "{} MiB", waiting.len());
    let busy = parts.handle.submit(bulky(100)).await.expect_err("no room");
    assert!(matches!(busy, SubmitError::Busy), "{busy}");
    while let Ok(mutation) = parts.driver.inbox.mutations.try_recv() {
        parts.driver.mutate(mutation, now(0));
    }
    assert!(
        parts.handle.has_room_for(&bulky(100)),
        "what was taken up has left the queue"
    );
}
