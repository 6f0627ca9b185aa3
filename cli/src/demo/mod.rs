//! `tessera demo`: buys tickets as a client of the cluster would, by discovery and balancer alone, and checks what it
//! was told.
//!
//! In reading order: `programme` (what to buy), `shop` (the calls), `patience` (when they are
//! repeated), `purchase` (what came of them), `audit` (whether it
//! adds up), `report` (telling it).

mod audit;
mod patience;
mod programme;
mod purchase;
mod report;
mod shop;

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use proto::{common::v1::Money, ticket::v1::Event, user::v1::User};
use registry_client::{Registry, Token};
use tonic::{Code, Status};

use self::{
    audit::Stock,
    purchase::{Outcome, Purchase, Summary},
    report::Report,
    shop::{Credentials, Shop},
};
use crate::{
    args::DemoArgs,
    failure::{Failure, chain},
    output::{self, Output},
    registry, status,
    trace::Root,
};

/// People whose names are on nobody's tickets.
const NAMES: [&str; 8] = [
    "Ada",
    "Blaise",
    "Chien-Shiung",
    "Dijkstra",
    "Emmy",
    "Fibonacci",
    "Grace",
    "Hypatia",
];

/// So many accounts are opened at the same time, however many buy then: the services hash a password on a processor for
/// tens of milliseconds, and let few more wait than that. More at a time would open none sooner, and some too late.
const ACCOUNTS_AT_ONCE: usize = 32;

/// While others buy, an event and the list of its seats differ, since they are asked for one after the other.
const LOOKS: u32 = 5;
/// Long enough for another one's purchase to end meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What to buy, and how.
#[derive(Debug)]
pub(crate) struct Demo {
    registry: Registry,
    event: Option<String>,
    seats: u32,
    buyers: u32,
    concurrency: u32,
}

impl Demo {
    /// As the flags say.
    pub(crate) fn try_new(args: &DemoArgs) -> Result<Self, Failure> {
        Ok(Self {
            registry: registry::open(&args.discovery)?,
            event: args.event.clone(),
            seats: args.seats.unwrap_or(if args.buyers == 1 { 2 } else { 1 }),
            buyers: args.buyers,
            concurrency: args.concurrency,
        })
    }

    /// One person who buys two seats.
    pub(crate) fn of_one_buyer(registry: Registry) -> Self {
        Self {
            registry,
            event: None,
            seats: 2,
            buyers: 1,
            concurrency: 1,
        }
    }
}

/// Buys, prints what came of it, and fails when anything is not as it should be.
pub(crate) async fn run(demo: &Demo, output: Output) -> Result<(), Failure> {
    let shop = Shop::find(&demo.registry);
    reach(demo, &shop).await?;
    let failed = |what: &'static str| move |error: Status| status::failure(what, &error);
    let events = shop.events().await.map_err(failed("the events cannot be listed"))?;
    let wanted = demo.seats.saturating_mul(demo.buyers);
    let before = programme::choose(&events, demo.event.as_deref(), wanted)
        .map_err(|error| Failure::new(error.to_string()).advice(error.advice()))?;
    // The list may be a moment old; the comparison afterwards must not begin with it.
    let before = shop
        .event(&before.id)
        .await
        .map_err(failed("the event cannot be read"))?;

    let begun = Instant::now();
    let (buyers, mut purchases) = open_accounts(demo, &shop, &before).await;
    let opened = begun.elapsed();
    let begun = Instant::now();
    purchases.extend(buy_all(demo, &shop, &before, &buyers).await);
    let bought = begun.elapsed();

    let summary = Summary::of(&purchases);
    // What was bought is told even when nobody can be asked about it any more.
    let (stock, unchecked) = match take_stock(&shop, &before.id).await {
        Ok(stock) => (Some(stock), None),
        Err(error) => (None, Some(status::failure("what was sold cannot be checked", &error))),
    };
    let findings = audit::findings(&summary, &before, stock.as_ref());
    let report = Report {
        event: stock.as_ref().map_or(&before, |stock| &stock.event),
        checked: stock.is_some(),
        buyers: &buyers,
        purchases: &purchases,
        summary: &summary,
        findings: &findings,
        concurrency: width(demo),
        opened,
        bought,
    };
    let printed = output.print(&report.as_json(), || report.human());
    conclude(verdict(&summary, findings, unchecked), printed)
}

/// What was found outweighs whether anybody read the report: `tessera demo | head -1` must not hide a seat sold twice.
fn conclude(verdict: Result<(), Failure>, printed: Result<(), Failure>) -> Result<(), Failure> {
    verdict.and(printed)
}

/// Asks for the event and its seats until both say the same, or for [`LOOKS`] times.
async fn take_stock(shop: &Shop, event_id: &str) -> Result<Stock, Status> {
    let mut looks = 1;
    loop {
        let before = shop.event(event_id).await?;
        let seats = shop.seats(event_id).await?;
        let event = shop.event(event_id).await?;
        let stock = Stock::new(&before, event, seats);
        if stock.agrees() || looks == LOOKS {
            return Ok(stock);
        }
        looks += 1;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Somebody with an account and money in it.
pub(crate) struct Buyer {
    /// The account.
    pub(crate) user: User,
    /// What it signs in with.
    credentials: Credentials,
    /// What it shows.
    token: Token,
    /// What the wallet holds.
    pub(crate) balance: Option<Money>,
}

async fn reach(demo: &Demo, shop: &Shop) -> Result<(), Failure> {
    // A registry that is away has the clearer message, and at once.
    demo.registry
        .list_services()
        .await
        .map_err(|error| registry::failure(&demo.registry, &error))?;
    shop.ready().await.map_err(|error| {
        Failure::new("the services cannot be reached")
            .why(chain(&error))
            .advice("start a cluster with `tessera up`, or see who is there with `tessera instances`")
    })
}

/// Opens an account for each buyer; who gets none is a failed purchase.
async fn open_accounts(demo: &Demo, shop: &Shop, event: &Event) -> (Vec<Buyer>, Vec<Purchase>) {
    let budget = programme::budget(event, demo.seats);
    let bar = bar(demo.buyers, "accounts");
    let opened: Vec<Result<Buyer, Purchase>> = stream::iter(0..demo.buyers)
        .map(|number| {
            let (shop, budget, bar) = (shop.clone(), budget.clone(), &bar);
            async move {
                let opened = open_account(&shop, number, budget).await;
                bar.inc(1);
                opened
            }
        })
        .buffer_unordered(width(demo).min(ACCOUNTS_AT_ONCE))
        .collect()
        .await;
    bar.finish_and_clear();
    let (mut buyers, mut failures) = (Vec::new(), Vec::new());
    for result in opened {
        match result {
            Ok(buyer) => buyers.push(buyer),
            Err(failure) => failures.push(failure),
        }
    }
    (buyers, failures)
}

async fn open_account(shop: &Shop, number: u32, budget: Money) -> Result<Buyer, Purchase> {
    let name = NAMES[number as usize % NAMES.len()];
    let root = Root::begin("open account");
    let begun = Instant::now();
    let opened = root
        .around(async {
            let (user, credentials) = shop
                .create_user(name, &budget.currency_code)
                .await
                .map_err(|error| ("CreateUser", error))?;
            let token = shop.sign_in(&credentials).await.map_err(|error| ("SignIn", error))?;
            let balance = shop.top_up(&token, &user.id, budget).await;
            Ok(Buyer {
                user,
                credentials,
                token,
                balance: balance.map_err(|error| ("TopUp", error))?,
            })
        })
        .await;
    let (trace_id, trace_url) = (root.trace_id().to_owned(), root.url());
    root.end();
    opened.map_err(|(method, error)| Purchase {
        outcome: failed(method, &error),
        took: begun.elapsed(),
        trace_id,
        trace_url,
    })
}

async fn buy_all(demo: &Demo, shop: &Shop, event: &Event, buyers: &[Buyer]) -> Vec<Purchase> {
    let bar = bar(u32::try_from(buyers.len()).unwrap_or(u32::MAX), "purchases");
    let purchases = stream::iter(buyers)
        .map(|buyer| {
            let bar = &bar;
            async move {
                let purchase = buy(shop, buyer, &event.id, demo.seats).await;
                bar.inc(1);
                purchase
            }
        })
        .buffer_unordered(width(demo))
        .collect()
        .await;
    bar.finish_and_clear();
    purchases
}

/// One purchase, which is one trace.
async fn buy(shop: &Shop, buyer: &Buyer, event_id: &str, seats: u32) -> Purchase {
    let root = Root::begin("purchase");
    let begun = Instant::now();
    let Buyer { user, token, .. } = buyer;
    let mut answer = root.around(shop.buy(token, &user.id, event_id, seats)).await;
    // It was opened when there were other accounts to open still, and has waited longer than a token is good.
    if answer
        .as_ref()
        .is_err_and(|error| error.code() == Code::Unauthenticated)
        && let Ok(renewed) = shop.sign_in(&buyer.credentials).await
    {
        token.replace(&renewed);
        answer = root.around(shop.buy(token, &user.id, event_id, seats)).await;
    }
    let took = begun.elapsed();
    let (trace_id, trace_url) = (root.trace_id().to_owned(), root.url());
    root.end();
    let outcome = match answer {
        Ok(order) => match shop.settled(token, order).await {
            Ok(order) => Outcome::of(order),
            Err(error) => failed("GetOrder", &error),
        },
        Err(error) => failed("BuyTicket", &error),
    };
    Purchase {
        outcome,
        took,
        trace_id,
        trace_url,
    }
}

fn failed(method: &str, error: &Status) -> Outcome {
    Outcome::Failed(format!(
        "{method} answered {}: {}",
        status::code_name(error.code()),
        error.message()
    ))
}

fn width(demo: &Demo) -> usize {
    demo.concurrency.min(demo.buyers).max(1) as usize
}

/// A progress bar where many are at work and a person looks.
fn bar(length: u32, what: &'static str) -> ProgressBar {
    if length < 2 || !output::is_interactive() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length.into());
    if let Ok(style) = ProgressStyle::with_template("{msg:<10} {bar:40.cyan} {pos}/{len}  {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn verdict(summary: &Summary, findings: Vec<audit::Finding>, unchecked: Option<Failure>) -> Result<(), Failure> {
    if !findings.is_empty() {
        let failure = Failure::new("what was sold does not add up");
        return Err(findings.into_iter().fold(failure, Failure::detail));
    }
    if let Some(unchecked) = unchecked {
        return Err(unchecked);
    }
    match summary.failed {
        0 => Ok(()),
        failed => Err(Failure::new(format!("{} failed", output::count(failed, "purchase")))
            .advice("look up their traces, or the logs of the services")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::*;

    /// The report was printed first, and a reader that had left made the end of it a success.
    #[test]
    fn what_is_wrong_outweighs_a_reader_that_left() {
        let code = |verdict, printed| {
            let failure = conclude(verdict, printed).expect_err("not as it should be");
            failure.report()
        };
        let gone = || Err(Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        let failed = Summary {
            failed: 1,
            ..Summary::default()
        };
        assert_eq!(code(verdict(&failed, Vec::new(), None), gone()), ExitCode::from(1));
        let found = verdict(
            &Summary::default(),
            vec!["sold to more than one buyer: A/1/1".to_owned()],
            None,
        );
        assert_eq!(code(found, gone()), ExitCode::from(1));
        let unchecked = Failure::new("what was sold cannot be checked");
        let unchecked = verdict(&Summary::default(), Vec::new(), Some(unchecked));
        assert_eq!(code(unchecked, gone()), ExitCode::from(1));
        assert_eq!(code(Ok(()), gone()), ExitCode::SUCCESS);
    }
}
