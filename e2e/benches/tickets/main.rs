//! Purchases beside the bare statements that they come down to: `cargo bench -p e2e --bench tickets`, or `make bench-tickets`.
//!
//! For SQLite and for PostgreSQL: a cluster of real processes (a registry, three ticket services on one store, two user services on
//! another one) that buyers reach by discovery, and beside it, in a database of the same kind at the same place, the three statements
//! without which there is no purchase: take a seat, take the money, sell the seat, each a transaction of its own. The arms take turns, each
//! round in another order, so that what the machine does meanwhile meets all of them; compared is within a round, and the median of
//! the rounds is told. At the end the buyers' books are held against seats, orders and wallets: a fast answer that is wrong is none.

mod bare;
mod report;
mod rush;

use std::process::ExitCode;

use e2e::{Cluster, ClusterOptions, Stores, market::Market};
use service_store::{Dialect, testing::TestStore};

use crate::{bare::Bare, report::Figures, rush::Rush};

/// The one that the binary has, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;

/// What is measured in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arm {
    /// The three statements, with as many at once as there are buyers.
    Bare,
    /// Purchases of seats that were picked.
    Purchases,
    /// The same with twice the buyers.
    Twice,
    /// Purchases of the best seat that is left.
    Best,
    /// Answers to those who come when everything is sold.
    SoldOut,
}

impl Arm {
    pub(crate) const ALL: [Self; 5] = [Self::Bare, Self::Purchases, Self::Twice, Self::Best, Self::SoldOut];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "three statements",
            Self::Purchases => "purchases",
            Self::Twice => "twice the buyers",
            Self::Best => "best available",
            Self::SoldOut => "sold out",
        }
    }
}

fn main() -> ExitCode {
    if !std::env::args().any(|arg| arg == "--bench") {
        // `cargo test --all-targets` runs this too, unoptimised: figures of that would mislead.
        println!("skipped: run it with `cargo bench -p e2e --bench tickets`");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let met = runtime.block_on(async {
        let mut met = true;
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            match measure(dialect).await {
                Some(rounds) => met &= report::tell(dialect, &rounds),
                None => println!("\n{}: skipped, there is none here", dialect.name()),
            }
        }
        met
    });
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All rounds on stores of that kind, arm by arm in the order of [`Arm::ALL`]. `None` where there is no such store.
async fn measure(dialect: Dialect) -> Option<Vec<[Figures; Arm::ALL.len()]>> {
    let (bare, ticket, user) = (
        TestStore::new(dialect)?,
        TestStore::new(dialect)?,
        TestStore::new(dialect)?,
    );
    let bare = Bare::open(&bare).await;
    let cluster = Cluster::with(ClusterOptions {
        users: 2,
        stores: Some(Stores {
            ticket: ticket.url(),
            user: user.url(),
        }),
        ..ClusterOptions::default()
    })
    .await;
    let mut rush = Rush::new(Market::of(&cluster)).await;
    let mut rounds = Vec::new();
    // The first one warms up: connections, caches, the allocator, the files.
    for round in 0..=ROUNDS {
        let mut figures = [Figures::default(); Arm::ALL.len()];
        for turn in 0..Arm::ALL.len() {
            let at = (turn + round) % Arm::ALL.len();
            figures[at] = match Arm::ALL[at] {
                Arm::Bare => bare.round().await,
                arm => rush.round(arm).await,
            };
        }
        if round > 0 {
            rounds.push(figures);
        }
        eprintln!("{}: round {round} of {ROUNDS}", dialect.name());
    }
    rush.audit().await;
    drop(cluster);
    Some(rounds)
}
