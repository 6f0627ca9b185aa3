//! Whole lives of registries in virtual time, thousands of them: the catalog, the hub and the driver's rules as they are, in a
//! world that is made up.
//!
//! One seed is one history. It decides who takes part and what the network and the disk are like ([`plan`]), then providers,
//! watchers and readers go about their business ([`traffic`]), things go wrong ([`faults`]), and registries live through it
//! ([`serving`]). Everything that happens is shown to the [`invariants`], which judge it by what is durable ([`truth`]). Then
//! the faults stop, and everything has to be as it should.
//!
//! ```text
//! TESSERA_SIM_SEED=1234 cargo test -p registry-svc --lib simulation::tests::one_history -- --nocapture    # drawn in full
//! TESSERA_SIM_SEEDS=100000 cargo test -p registry-svc --lib simulation::tests::histories                 # more of them
//! ```
//!
//! That the invariants can fail is shown by bugs that are planted ([`Plant`]). What is not in it: the api and its checks, the
//! queues and threads of the driver, and the stores themselves, for which a log stands that does what the trait promises.

mod clients;
mod faults;
mod heard;
mod invariants;
mod plan;
mod replica;
mod request;
mod rng;
mod serving;
mod store;
mod storing;
mod tests;
mod trace;
mod traffic;
mod truth;
mod world;

use std::{fmt, time::Duration};

/// Virtual time since the beginning of the history.
type Time = Duration;

/// A bug that is planted, to prove that an invariant finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plant {
    /// Nothing.
    None,
    /// The hub shows a group when it is sent to the disk.
    PublishBeforeDurable,
    /// A change is answered when it is applied.
    AnswerBeforeDurable,
    /// A heartbeat is refused for what is not durable.
    HearAtOnce,
    /// A refusal is not held against what others have committed.
    RefuseBehind,
    /// Who cannot be answered is refused.
    RefuseInDoubt,
    /// Who cannot be answered is told that all is well.
    PromiseInDoubt,
    /// A registry answers heartbeats of others' leases and lets them be others'.
    NeverClaim,
    /// The store takes whatever comes.
    NoFence,
    /// A registry that is behind serves who is ahead of it.
    ServeBehind,
    /// A restart forgets the last revisions.
    ForgetOnRestart,
    /// A restart forgets what operators have decided.
    ForgetOverrides,
    /// A restart finds what was lifted long ago.
    BringBack,
    /// What has just been taken back is decided once more, by nobody.
    DecideAgain,
    /// What ends one of the two decisions about an instance takes the other with it.
    DropTheOther,
    /// What probes of a process have come to is held against whoever has its name by then.
    JudgeTheSuccessor,
    /// What they have decided never ends by itself.
    NeverEndOverrides,
    /// A repeated request is a new one.
    ForgetRequestIds,
    /// An update is taken as if its sender held the present epoch.
    StaleEpochWins,
    /// Leases that a restart brings back live only half a second.
    ShortLivesAfterRestart,
    /// A pause of the registry counts against the leases.
    ChargePauses,
    /// Nothing lapses.
    NeverExpire,
    /// Self-preservation is off.
    ProtectNobody,
    /// A read shows an old state.
    StaleReads,
    /// A watcher is told a delta twice.
    TellTwice,
    /// A watcher is not told a delta.
    SkipDelta,
    /// A delta of several changes is told in two.
    SplitDelta,
    /// A watcher goes back.
    TravelInTime,
    /// A bookmark comes before what it stands for.
    BookmarkAhead,
    /// Who resumes begins anew.
    ResumeWithSnapshot,
    /// The history is not trimmed.
    KeepHistory,
    /// All changes are refused.
    RefuseAll,
    /// A registry that has crashed stays down.
    StayDown,
    /// Providers do not register anew.
    GiveUp,
}

/// How to run a history.
#[derive(Debug, Clone, Copy)]
struct Options {
    seed: u64,
    plant: Plant,
    /// Keep the last lines of what happened.
    trace: bool,
    /// Keep all of them.
    whole: bool,
}

/// An invariant is broken.
#[derive(Debug, Clone)]
struct Violation {
    invariant: &'static str,
    what: String,
}

/// A history that broke an invariant, as it is printed.
#[derive(Debug)]
struct Failure {
    seed: u64,
    violation: Violation,
    trace: String,
}

/// What a history was, for the determinism of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Summary {
    /// Durable revisions.
    revisions: u64,
    /// Requests that were sent.
    requests: u64,
    /// Things that happened.
    events: u64,
}

impl Options {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            plant: Plant::None,
            trace: false,
            whole: false,
        }
    }
}

/// Runs a history. One that fails is run again, to tell what happened.
fn run(options: Options) -> Result<Summary, Box<Failure>> {
    let mut world = world::World::new(&options);
    let Err(violation) = world.run() else {
        return Ok(world.summary());
    };
    let traced = Options { trace: true, ..options };
    let mut again = world::World::new(&traced);
    // The same seed, the same history.
    let repeated = again.run();
    assert!(
        repeated.is_err_and(|repeated| repeated.what == violation.what),
        "seed {} does not repeat itself",
        options.seed
    );
    Err(Box::new(Failure {
        seed: options.seed,
        violation,
        trace: again.trace.text(),
    }))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, violation, trace } = self;
        writeln!(f, "seed {seed} breaks `{}`: {}", violation.invariant, violation.what)?;
        writeln!(f, "the last that happened:\n{trace}")?;
        write!(
            f,
            "again, in full: TESSERA_SIM_SEED={seed} cargo test -p registry-svc --lib simulation::tests::one_history -- --nocapture"
        )
    }
}
