//! A fixed number of operations in flight: as soon as one is answered, the next one begins.
//!
//! It compares what operations cost on this machine. It does not predict latencies under a given load.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use crate::{
    Failed,
    http2::{Connection, Out, Peer},
    stats::Sample,
};

/// What is done over and over. An operation may take several calls, one after the other.
pub(crate) trait Work {
    /// Writes the first request of an operation and says which method takes it.
    fn begin(&mut self, slot: usize, message: &mut Vec<u8>) -> &'static str;
    /// Takes an answer: the next method with its request in `message`, or the end of the operation.
    fn answer(&mut self, slot: usize, answer: &[u8], message: &mut Vec<u8>) -> Result<Step, Failed>;
}

/// What follows an answer.
pub(crate) enum Step {
    /// Another call.
    Call(&'static str),
    /// The operation has done so many units.
    Done(u64),
}

/// Connections that work.
pub(crate) struct Crew<W> {
    members: Vec<(Connection, W)>,
    in_flight: usize,
}

/// When a round ends.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// After this time.
    pub(crate) time: Duration,
    /// After so many units in all, if that is earlier.
    pub(crate) units: u64,
}

impl<W: Work> Crew<W> {
    /// Connects; `in_flight` operations on each connection.
    pub(crate) async fn connect(
        address: SocketAddr,
        connections: usize,
        in_flight: usize,
        mut work: impl FnMut(usize) -> W,
    ) -> Result<Self, Failed> {
        let mut members = Vec::new();
        for index in 0..connections {
            members.push((Connection::open(address).await?, work(index)));
        }
        Ok(Self { members, in_flight })
    }

    /// Works until the bound is reached and all is answered.
    pub(crate) async fn round(&mut self, bounds: Bounds) -> Result<Sample, Failed> {
        let begun = Instant::now();
        let members = self.members.len() as u64;
        let (until, units) = (begun + bounds.time, bounds.units.div_ceil(members));
        let in_flight = self.in_flight;
        let runs = self
            .members
            .iter_mut()
            .map(|(connection, work)| run(connection, work, in_flight, until, units));
        let ends = try_join_all(runs).await?;
        let mut sample = Sample::new(begun.elapsed());
        for (units, latencies) in ends {
            sample.add(units, latencies);
        }
        Ok(sample)
    }

    /// The works, for what they have gathered.
    pub(crate) fn into_works(self) -> impl Iterator<Item = W> {
        self.members.into_iter().map(|(_, work)| work)
    }
}

async fn run<W: Work>(
    connection: &mut Connection,
    work: &mut W,
    in_flight: usize,
    until: Instant,
    most: u64,
) -> Result<(u64, Vec<Duration>), Failed> {
    let mut running = Running {
        work,
        slots: Vec::new(),
        message: Vec::new(),
        until,
        most,
        begun: 0,
        open: 0,
        units: 0,
        latencies: Vec::new(),
    };
    for slot in 0..in_flight {
        let (stream, begun) = running.begin(&mut connection.out, slot);
        running.slots.push(Slot {
            stream,
            begun,
            answered: false,
        });
    }
    while running.open > 0 {
        connection.turn(&mut running).await?;
    }
    Ok((running.units, running.latencies))
}

struct Slot {
    stream: u32,
    begun: Instant,
    answered: bool,
}

struct Running<'a, W> {
    work: &'a mut W,
    slots: Vec<Slot>,
    message: Vec<u8>,
    until: Instant,
    most: u64,
    begun: u64,
    open: usize,
    units: u64,
    latencies: Vec<Duration>,
}

impl<W: Work> Running<'_, W> {
    fn begin(&mut self, out: &mut Out, slot: usize) -> (u32, Instant) {
        self.message.clear();
        let path = self.work.begin(slot, &mut self.message);
        self.begun += 1;
        self.open += 1;
        (out.call(path, &self.message), Instant::now())
    }
}

impl<W: Work> Peer for Running<'_, W> {
    fn message(&mut self, out: &mut Out, stream: u32, message: &[u8]) -> Result<(), Failed> {
        let Some(index) = self.slots.iter().position(|slot| slot.stream == stream) else {
            return Ok(());
        };
        self.message.clear();
        match self.work.answer(index, message, &mut self.message)? {
            Step::Call(path) => self.slots[index].stream = out.call(path, &self.message),
            Step::Done(units) => {
                self.units += units;
                self.latencies.push(out.read_at - self.slots[index].begun);
                self.slots[index].answered = true;
                self.open -= 1;
                // Units are as many as operations times a constant: as many have been begun as will be done.
                if out.read_at < self.until && self.begun * units < self.most {
                    let (stream, begun) = self.begin(out, index);
                    self.slots[index] = Slot {
                        stream,
                        begun,
                        answered: false,
                    };
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, _: &mut Out, stream: u32) -> Result<(), Failed> {
        // A stream that has been answered is no slot's any more, unless it was the slot's last.
        match self.slots.iter().find(|slot| slot.stream == stream) {
            Some(slot) if !slot.answered => Err("a call was refused; the server's log may say why".into()),
            _ => Ok(()),
        }
    }
}
