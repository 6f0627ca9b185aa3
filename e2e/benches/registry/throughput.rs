//! Operations a second in a closed loop: durable registrations, one at a time and batched, and reads.

use std::{rc::Rc, time::Duration};

use crate::{
    Failed,
    arena::Arena,
    closed_loop::{self, Bounds, Crew},
    etcd, payload,
    report::{Figure, Goal, Report, Series},
    server::{Kind, Server},
    stats::Sample,
    tessera::{self, Counter, Terms},
    zookeeper::{self, Asked, Session},
};

const ALL: [Kind; 3] = [Kind::Tessera, Kind::Etcd, Kind::ZooKeeper];
const ROUNDS: usize = 5;
const MEASURED: Duration = Duration::from_millis(1_500);
const CONNECTIONS: usize = 16;
/// 256 in all.
const IN_FLIGHT: usize = 16;
/// Units of one round, at most: a registry takes a million instances, and there are six rounds of two kinds.
const CAP: u64 = 150_000;

/// One opponent at one kind of work.
enum Runner<T, E, Z> {
    Tessera(Crew<T>),
    Etcd(Crew<E>),
    ZooKeeper(Vec<(Session, Z)>),
}

/// What the rounds have shown.
#[derive(Default)]
struct Measured {
    rates: Series,
    p99s: Series,
    /// Of the server, in microseconds a unit: it hardly depends on what else the machine does.
    cpu: Series,
}

impl Measured {
    fn report(self, report: &mut Report, what: &str, rates: impl FnOnce(Figure) -> Figure) {
        report.add(rates(Figure::new(what, "1/s", self.rates)));
        report.add(Figure::new(format!("  p99: {what}"), "ms", self.p99s));
        report.add(Figure::new(format!("  CPU: {what}"), "us", self.cpu));
    }
}

/// Alternates the runners within rounds; the first round is a warm-up.
async fn rounds<T, E, Z>(arena: &Arena, in_flight: usize, mut runners: Vec<Runner<T, E, Z>>) -> Result<Measured, Failed>
where
    T: closed_loop::Work,
    E: closed_loop::Work,
    Z: zookeeper::Work,
{
    let mut measured = Measured::default();
    for round in 0..=ROUNDS {
        for kind in arena.order(round) {
            let server = arena.get(kind).ok_or("takes part")?;
            let before = server.usage()?.cpu;
            let sample = run(kind, in_flight, &mut runners).await?;
            let cpu = server.usage()?.cpu.saturating_sub(before);
            if round > 0 {
                measured.rates.push(kind, sample.rate());
                measured.p99s.push(kind, sample.p99());
                measured.cpu.push(kind, cpu.as_secs_f64() * 1e6 / sample.units());
            }
        }
    }
    Ok(measured)
}

async fn run<T, E, Z>(kind: Kind, in_flight: usize, runners: &mut [Runner<T, E, Z>]) -> Result<Sample, Failed>
where
    T: closed_loop::Work,
    E: closed_loop::Work,
    Z: zookeeper::Work,
{
    let bounds = Bounds {
        time: MEASURED,
        units: CAP,
    };
    for runner in runners {
        match runner {
            Runner::Tessera(crew) if kind == Kind::Tessera => return crew.round(bounds).await,
            Runner::Etcd(crew) if kind == Kind::Etcd => return crew.round(bounds).await,
            Runner::ZooKeeper(members) if kind == Kind::ZooKeeper => {
                return zookeeper::round(members, in_flight, bounds.time, bounds.units).await;
            }
            _ => {}
        }
    }
    Err("a runner for each opponent".into())
}

async fn sessions<Z>(server: &Server, mut work: impl FnMut(usize) -> Z) -> Result<Vec<(Session, Z)>, Failed> {
    let mut sessions = Vec::new();
    for index in 0..CONNECTIONS {
        sessions.push((Session::open(server.address).await?, work(index)));
    }
    Ok(sessions)
}

/// Registrations one at a time: 256 in flight.
pub(crate) async fn unary(report: &mut Report) -> Result<(), Failed> {
    let measured = registrations(&ALL, Load::SINGLE, Load::SINGLE).await?;
    let note = "Register with a new lease | LeaseGrant, then Put | create of an ephemeral node; 256 in flight";
    measured.report(report, "durable registrations, one a call", |figure| {
        figure.goal(Goal::TimesEtcd(5.0)).note(note)
    });
    Ok(())
}

/// Registrations in batches, beside what etcd does one at a time and in the largest batches that it takes.
pub(crate) async fn batched(report: &mut Report) -> Result<(), Failed> {
    let ours = Load {
        batch: 64,
        in_flight: 2,
    };
    let measured = registrations(&[Kind::Tessera, Kind::Etcd], ours, Load::SINGLE).await?;
    let note = "Register of 64, 32 in flight | LeaseGrant, then Put, 256 in flight";
    measured.report(report, "durable registrations, batched", |figure| {
        let figure = figure.goal(Goal::AtLeast(50_000.0)).goal(Goal::TimesEtcd(8.0));
        figure.note(note)
    });
    let theirs = Load {
        batch: etcd::TXN_MAX,
        in_flight: 2,
    };
    let measured = registrations(&ALL, ours, theirs).await?;
    let note = "Register of 64 | LeaseGrant, then Txn of 128 puts | multi of 64 ephemeral creates; 32 in flight";
    measured.report(report, "  all of them batched", |figure| figure.note(note));
    Ok(())
}

/// What one opponent has to do at a time.
#[derive(Clone, Copy)]
struct Load {
    /// Registrations a call.
    batch: u64,
    /// Calls on each connection.
    in_flight: usize,
}

impl Load {
    const SINGLE: Self = Self {
        batch: 1,
        in_flight: IN_FLIGHT,
    };
}

/// Services of a hundred instances each.
pub(crate) fn hundreds(number: u64) -> u64 {
    number / 100
}

async fn registrations(kinds: &[Kind], ours: Load, etcds: Load) -> Result<Measured, Failed> {
    let arena = Arena::start(kinds).await?;
    let mut runners = Vec::new();
    let work = tessera::Register::new(ours.batch, hundreds, Terms::LONG, Counter::default());
    let address = arena.tessera()?.address;
    runners.push(Runner::Tessera(
        Crew::connect(address, CONNECTIONS, ours.in_flight, |_| work.clone()).await?,
    ));
    if let Some(etcd) = arena.get(Kind::Etcd) {
        let work = etcd::Register::new(etcds.batch, hundreds, etcd::TTL_LONG, Counter::default());
        runners.push(Runner::Etcd(
            Crew::connect(etcd.address, CONNECTIONS, etcds.in_flight, |_| work.clone()).await?,
        ));
    }
    if let Some(zookeeper) = arena.get(Kind::ZooKeeper) {
        let counter = Counter::default();
        let work = |_| Create {
            records: ours.batch,
            record: payload::record(),
            counter: Rc::clone(&counter),
        };
        runners.push(Runner::ZooKeeper(sessions(zookeeper, work).await?));
    }
    rounds(&arena, ours.in_flight, runners).await
}

/// Creates ephemeral nodes. Their data is the record with its marks: nobody reads it.
struct Create {
    records: u64,
    record: Vec<u8>,
    counter: Counter,
}

impl zookeeper::Work for Create {
    fn ask(&mut self, session: &mut Session) -> Asked {
        let first = tessera::take(&self.counter, self.records);
        let path = |number| format!("/i-{number:010}");
        if self.records == 1 {
            session.create(&path(first), &self.record, true);
        } else {
            let nodes = (first..first + self.records).map(|number| (path(number), self.record.clone()));
            session.create_all(nodes);
        }
        Asked {
            answers: 1,
            // Each create of a multi answers with its path.
            bytes: path(first).len() * usize::try_from(self.records).unwrap_or(1),
            units: self.records,
        }
    }
}

const READ_SERVICES: u64 = 100;
const READ_INSTANCES: u64 = 20;

/// Reads of a service with 20 instances: 256 in flight.
pub(crate) async fn reads(report: &mut Report) -> Result<(), Failed> {
    let arena = Arena::start(&ALL).await?;
    let all = Bounds {
        time: Duration::from_secs(60),
        units: READ_SERVICES * READ_INSTANCES,
    };
    let instances = usize::try_from(READ_INSTANCES)?;
    let first = |index: usize| index * 7;
    let mut runners = Vec::new();

    let address = arena.tessera()?.address;
    let fill = tessera::Register::new(READ_INSTANCES, twenties, Terms::LONG, Counter::default());
    Crew::connect(address, 1, 1, |_| fill.clone()).await?.round(all).await?;
    runners.push(Runner::Tessera(
        Crew::connect(address, CONNECTIONS, IN_FLIGHT, |index| {
            tessera::List::new(READ_SERVICES, instances, first(index))
        })
        .await?,
    ));
    if let Some(etcd) = arena.get(Kind::Etcd) {
        let fill = etcd::Register::new(READ_INSTANCES, twenties, etcd::TTL_LONG, Counter::default());
        Crew::connect(etcd.address, 1, 1, |_| fill.clone())
            .await?
            .round(all)
            .await?;
        runners.push(Runner::Etcd(
            Crew::connect(etcd.address, CONNECTIONS, IN_FLIGHT, |index| {
                etcd::Read::new(READ_SERVICES, instances, first(index))
            })
            .await?,
        ));
    }
    if let Some(zookeeper) = arena.get(Kind::ZooKeeper) {
        let mut session = Session::open(zookeeper.address).await?;
        for service in 0..READ_SERVICES {
            session.create(&format!("/{}", payload::service(service)), &[], false);
            session.answer().await?;
            for instance in 0..READ_INSTANCES {
                session.create(&node(service, instance), &payload::record(), false);
                session.answer().await?;
            }
        }
        let work = |index| Look { next: index as u64 * 7 };
        runners.push(Runner::ZooKeeper(sessions(zookeeper, work).await?));
    }
    let measured = rounds(&arena, IN_FLIGHT, runners).await?;
    let note =
        "ListInstances | serializable Range of the prefix | getChildren and a multiRead of 20 getData; 256 in flight";
    measured.report(report, "reads of 20 instances", |figure| {
        figure.goal(Goal::TimesEtcd(2.0)).note(note)
    });
    Ok(())
}

fn twenties(number: u64) -> u64 {
    number / READ_INSTANCES
}

fn node(service: u64, instance: u64) -> String {
    format!("/{}/i-{instance:010}", payload::service(service))
}

/// Reads a service as ZooKeeper offers it. The names are known here, so both requests go out at once; a client that has to wait
/// for the names needs two round trips.
struct Look {
    next: u64,
}

impl zookeeper::Work for Look {
    fn ask(&mut self, session: &mut Session) -> Asked {
        let service = self.next % READ_SERVICES;
        self.next += 1;
        let paths: Vec<String> = (0..READ_INSTANCES).map(|instance| node(service, instance)).collect();
        session.children(&format!("/{}", payload::service(service)));
        session.get_all(paths.iter().map(String::as_str));
        Asked {
            answers: 2,
            bytes: paths.len() * payload::RECORD,
            units: 1,
        }
    }
}
