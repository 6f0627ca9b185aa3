//! Reading everything: one thread goes through the runs, the others make values of what it finds.

use std::{
    collections::HashSet,
    num::NonZero,
    ops::{ControlFlow, Range},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use redb::ReadableTable;

use super::{
    Fault,
    recent::{self, Entry, Kind, Recent},
    runs::Runs,
};
use crate::{
    catalog::LeaseRecord,
    model::{Instance, LeaseId, OverrideRecord},
    store::record::Decoder,
};

/// Entries that are handed over at once: enough to be worth a wake, few enough to be spread.
const PORTION: usize = 2_048;
/// Portions that may wait, so that what is read does not lie about in memory.
const PORTIONS: usize = 16;
/// Threads that make values. More would wait for the one that reads.
const THREADS: usize = 4;

/// What is alive.
#[derive(Debug, Default)]
pub(super) struct Living {
    /// Ordered by key.
    pub(super) instances: Vec<Arc<Instance>>,
    /// Ordered by id.
    pub(super) leases: Vec<LeaseRecord>,
    /// Ordered by key.
    pub(super) overrides: Vec<OverrideRecord>,
}

/// Neighbours, in the order of their keys.
#[derive(Debug, Default)]
struct Portion {
    number: usize,
    bytes: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Debug)]
enum Item {
    /// As a run has it.
    Stored { key: Range<usize>, value: Range<usize> },
    /// As it is.
    Known(Entry),
}

/// Everything that the runs and what came after them have.
pub(super) fn read_all(
    runs: &Runs,
    table: &impl ReadableTable<(u64, &'static [u8]), &'static [u8]>,
    recent: &Recent,
) -> Result<Living, Fault> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    let (to_makers, portions) = mpsc::sync_channel::<Portion>(PORTIONS);
    let portions = Arc::new(Mutex::new(portions));
    let made = thread::scope(|scope| {
        let makers: Vec<_> = (0..threads)
            .map(|_| {
                let portions = Arc::clone(&portions);
                scope.spawn(move || make(&portions))
            })
            .collect();
        // Theirs alone: when the last of them has stopped at what is damaged, what is read next has no taker, and fails.
        drop(portions);
        let read = collect(runs, table, recent, &to_makers);
        drop(to_makers);
        let made: Result<Vec<_>, Fault> = makers
            .into_iter()
            .map(|maker| maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        // What stopped them comes first: that nobody took what was read is its consequence.
        made.and_then(|made| read.map(|()| made))
    })?;
    let mut parts: Vec<_> = made.into_iter().flatten().collect();
    parts.sort_unstable_by_key(|(number, _)| *number);
    let (mut instances, mut leases) = (0, 0);
    for (_, part) in &parts {
        instances += part.instances.len();
        leases += part.leases.len();
    }
    let mut living = Living {
        instances: Vec::with_capacity(instances),
        leases: Vec::with_capacity(leases),
        overrides: Vec::new(),
    };
    for (_, part) in parts {
        living.instances.extend(part.instances);
        living.leases.extend(part.leases);
        living.overrides.extend(part.overrides);
    }
    living.check()?;
    Ok(living)
}

/// What is alive under a key.
pub(super) enum Found<'a> {
    /// A record in a run.
    Stored(&'a [u8]),
    /// A value after the runs; never [`Entry::Gone`].
    Known(&'a Entry),
}

/// Goes through all that is alive, by key.
pub(super) fn for_each_living(
    runs: &Runs,
    table: &impl ReadableTable<(u64, &'static [u8]), &'static [u8]>,
    recent: &Recent,
    mut each: impl FnMut(&[u8], Found<'_>) -> Result<ControlFlow<()>, Fault>,
) -> Result<(), Fault> {
    let mut recent = recent.iter().peekable();
    let mut stopped = false;
    let mut each = |key: &[u8], found: Found<'_>| match found {
        Found::Known(Entry::Gone) => Ok(ControlFlow::Continue(())),
        found => each(key, found),
    };
    runs.for_each(table, |key, value| {
        while let Some((before, entry)) = recent.next_if(|(other, _)| *other < key) {
            if each(before, Found::Known(entry))?.is_break() {
                stopped = true;
                return Ok(ControlFlow::Break(()));
            }
        }
        let flow = match (recent.next_if(|(other, _)| *other == key), value) {
            (Some((_, entry)), _) => each(key, Found::Known(entry))?,
            (None, Some(value)) => each(key, Found::Stored(value))?,
            (None, None) => ControlFlow::Continue(()),
        };
        stopped = flow.is_break();
        Ok(flow)
    })?;
    while !stopped && let Some((key, entry)) = recent.next() {
        stopped = each(key, Found::Known(entry))?.is_break();
    }
    Ok(())
}

/// Sends what is alive, by key.
fn collect(
    runs: &Runs,
    table: &impl ReadableTable<(u64, &'static [u8]), &'static [u8]>,
    recent: &Recent,
    to: &mpsc::SyncSender<Portion>,
) -> Result<(), Fault> {
    let mut portion = Portion::default();
    for_each_living(runs, table, recent, |key, found| {
        portion.add(key, found);
        if portion.items.len() < PORTION {
            return Ok(ControlFlow::Continue(()));
        }
        let next = Portion {
            number: portion.number + 1,
            ..Portion::default()
        };
        // Nobody takes it when all of them have stopped, and why is told there.
        Ok(match to.send(std::mem::replace(&mut portion, next)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    })?;
    let _ = to.send(portion);
    Ok(())
}

impl Portion {
    fn add(&mut self, key: &[u8], found: Found<'_>) {
        self.items.push(match found {
            Found::Known(entry) => Item::Known(entry.clone()),
            Found::Stored(value) => {
                let at = self.bytes.len();
                let middle = at + key.len();
                self.bytes.extend_from_slice(key);
                self.bytes.extend_from_slice(value);
                Item::Stored {
                    key: at..middle,
                    value: middle..self.bytes.len(),
                }
            }
        });
    }
}

/// Makes values of portions until there are no more.
fn make(portions: &Mutex<mpsc::Receiver<Portion>>) -> Result<Vec<(usize, Living)>, Fault> {
    let mut made = Vec::new();
    let mut decoder = Decoder::default();
    loop {
        let next = match portions.lock() {
            Ok(portions) => portions.recv(),
            Err(_) => return Ok(made),
        };
        let Ok(portion) = next else { return Ok(made) };
        let mut living = Living::default();
        for item in portion.items {
            match item {
                Item::Known(Entry::Instance(instance)) => living.instances.push(instance),
                Item::Known(Entry::Lease(lease)) => living.leases.push(*lease),
                Item::Known(Entry::Override(laid)) => living.overrides.push(*laid),
                Item::Known(Entry::Gone) => {}
                Item::Stored { key, value } => {
                    let (key, value) = (&portion.bytes[key], &portion.bytes[value]);
                    let damaged = |why| Fault::Record(recent::name_of(key), why);
                    match recent::kind_of(key) {
                        Kind::Lease(id) => living.leases.push(decoder.lease(id, value).map_err(damaged)?),
                        Kind::Override => living.overrides.push(decoder.laid(value).map_err(damaged)?),
                        Kind::Instance => living
                            .instances
                            .push(Arc::new(decoder.instance(value).map_err(damaged)?)),
                    }
                }
            }
        }
        made.push((portion.number, living));
    }
}

impl Living {
    /// An instance without its lease would never expire.
    fn check(&self) -> Result<(), Fault> {
        let leases: HashSet<LeaseId> = self.leases.iter().map(|lease| lease.id).collect();
        let mut last = None;
        for instance in &self.instances {
            // Neighbours have the same one, as a rule.
            if last != Some(instance.lease) && !leases.contains(&instance.lease) {
                return Err(Fault::damaged(
                    format!("instance {}", instance.key),
                    "its lease is missing",
                ));
            }
            last = Some(instance.lease);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redb::{Database, ReadableDatabase as _, backends::InMemoryBackend};

    use super::*;
    use crate::store::embedded::{RUNS, Strides, recent::instance_key};

    /// Whoever makes values stops at one that is damaged. Once all of them had, what was read was still handed over to nobody,
    /// and as soon as enough of that waited the start hung for ever instead of saying what is wrong.
    #[test]
    fn a_store_of_nothing_but_damage_says_so() {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .expect("opens");
        let write = database.begin_write().expect("begins");
        let runs = Runs::open(&write)
            .expect("opens")
            .add::<Fault>(Strides::default(), &write, |put| {
                // More portions than may wait, and one in the hands of each that makes values.
                for n in 0..(PORTIONS + THREADS + 8) * PORTION {
                    put(
                        &instance_key(&crate::fixtures::key("a-svc", &format!("i{n:07}"))),
                        Some(b"x"),
                    )?;
                }
                Ok(())
            });
        let runs = runs.expect("adds");
        write.commit().expect("commits");
        let (to, answer) = mpsc::channel();
        thread::spawn(move || {
            let read = database.begin_read().expect("begins");
            let table = read.open_table(RUNS).expect("opens");
            let _ = to.send(read_all(&runs, &table, &Recent::default()).map(|living| living.instances.len()));
        });
        let answer = answer.recv_timeout(Duration::from_secs(60)).expect("an answer");
        assert!(matches!(answer, Err(Fault::Record(..))), "{answer:?}");
    }
}
