//! Sorted runs: what the log has changed, put in order, in chunks of a page each; and how several become one.
//!
//! A run is written once, from beginning to end. The newest one that has a key says what is under it. They are merged a few
//! megabytes at a time, each step in one transaction: what the output has got is cut from the inputs' beginning at once, so a
//! merge needs no room for a second copy, and a restart goes on where it stopped. Compared with a table of instances this
//! writes megabytes in a row where a B-tree would write a page for each instance: measured at 1,000,000 instances, 2 µs a
//! change against 100 µs.

use std::{collections::BTreeMap, ops::ControlFlow};

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::{CACHE_BYTES, Fault, recent};

/// run, first key → entries.
pub(super) const RUNS: TableDefinition<'_, (u64, &[u8]), &[u8]> = TableDefinition::new("runs");
/// run → its bytes; the higher its number, the newer it is.
pub(super) const SIZES: TableDefinition<'_, u64, u64> = TableDefinition::new("run_sizes");
/// "output" → the run that is being written, of all that are older than it.
const MERGE: TableDefinition<'_, &str, u64> = TableDefinition::new("merge");
const OUTPUT: &str = "output";
/// "from" → the first key that the output has not got. What inputs have below it is spent.
const MERGED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("merged");
const FROM: &str = "from";

/// Keys and lengths take so much of an entry beside its key and value.
const ENTRY_HEAD: usize = 6;
/// With more runs than this a merge begins, whatever they weigh: each costs a reader.
const RUNS_MAX: usize = 64;

/// How much at a time. In tests it is less.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Strides {
    /// So much log becomes a run. It bounds what a restart replays, and what is kept in memory to be put in order.
    pub(in crate::store) flush: usize,
    /// Entries of a chunk. With its key and redb's own it stays below 64 KiB: pages are powers of two.
    pub(in crate::store) chunk: usize,
    /// The young runs are merged with the oldest when they weigh half of it, so a change is written some five times in its
    /// life; and not before they weigh this, so that a small registry does not merge all the time.
    pub(in crate::store) young: u64,
    /// What one step of a merge reads: some 10 ms.
    pub(in crate::store) step: usize,
    /// After a step that found no room, so many commits pass before the next: the file has to be opened anew each time.
    pub(in crate::store) pause: u32,
    /// See [`CACHE_BYTES`].
    pub(in crate::store) cache: usize,
}

impl Default for Strides {
    fn default() -> Self {
        Self {
            flush: 8 * 1024 * 1024,
            chunk: 62 * 1024,
            young: 16 * 1024 * 1024,
            step: 4 * 1024 * 1024,
            pause: 100,
            cache: CACHE_BYTES,
        }
    }
}

/// Which runs there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct Runs {
    /// Their bytes, the oldest first.
    pub(in crate::store) sizes: BTreeMap<u64, u64>,
    /// The one that is being written.
    output: Option<u64>,
    /// See [`FROM`].
    from: Vec<u8>,
}

impl Runs {
    /// Makes the tables, and tells what is in them.
    pub(super) fn open(write: &WriteTransaction) -> Result<Self, Fault> {
        write.open_table(RUNS)?;
        let (sizes, merge) = (write.open_table(SIZES)?, write.open_table(MERGE)?);
        Self::of(&sizes, &merge, &write.open_table(MERGED)?)
    }

    /// What is in the tables.
    pub(super) fn read(read: &ReadTransaction) -> Result<Self, Fault> {
        let (sizes, merge) = (read.open_table(SIZES)?, read.open_table(MERGE)?);
        Self::of(&sizes, &merge, &read.open_table(MERGED)?)
    }

    fn of(
        sizes: &impl ReadableTable<u64, u64>,
        merge: &impl ReadableTable<&'static str, u64>,
        merged: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Self, Fault> {
        let sizes = sizes
            .iter()?
            .map(|entry| entry.map(|(run, bytes)| (run.value(), bytes.value())));
        let from = merged.get(FROM)?.map(|from| from.value().to_vec());
        Ok(Self {
            sizes: sizes.collect::<Result<_, _>>()?,
            output: merge.get(OUTPUT)?.map(|output| output.value()),
            from: from.unwrap_or_default(),
        })
    }

    /// Adds the newest run, of what `fill` puts into it by key.
    pub(super) fn add<E: From<Fault>>(
        &self,
        strides: Strides,
        write: &WriteTransaction,
        fill: impl FnOnce(&mut Put<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let run = self.sizes.keys().next_back().copied().max(self.output).unwrap_or(0) + 1;
        let mut next = self.clone();
        let mut packer = Packer::new(run, strides.chunk);
        let mut table = write.open_table(RUNS).map_err(Fault::from)?;
        fill(&mut |key, value| {
            // Where there is nothing older there is nothing to hide.
            if value.is_some() || !self.sizes.is_empty() {
                packer.push(&mut table, key, value)?;
            }
            Ok(())
        })?;
        let bytes = packer.finish(&mut table)?;
        if bytes > 0 {
            let mut sizes = write.open_table(SIZES).map_err(Fault::from)?;
            sizes.insert(run, bytes).map_err(Fault::from)?;
            next.sizes.insert(run, bytes);
        }
        Ok(next)
    }

    /// All of them.
    pub(super) fn bytes(&self) -> usize {
        let bytes: u64 = self.sizes.values().sum();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Whether a step is due.
    pub(super) fn merge_is_due(&self, strides: Strides) -> bool {
        if self.output.is_some() {
            return true;
        }
        let oldest = self.sizes.values().next().copied().unwrap_or(0);
        let young: u64 = self.sizes.values().skip(1).sum();
        self.sizes.len() > 1 && (young >= strides.young.max(oldest / 2) || self.sizes.len() > RUNS_MAX)
    }

    /// One step of a merge; begins one if none is under way. Returns what it has read, too.
    pub(super) fn merge(&self, strides: Strides, write: &WriteTransaction) -> Result<(Self, usize), Fault> {
        let mut next = self.clone();
        let newest = self.sizes.keys().next_back().copied().unwrap_or(0);
        let output = *next.output.get_or_insert(newest + 1);
        let inputs: Vec<u64> = self.sizes.range(..output).map(|(run, _)| *run).collect();
        let mut table = write.open_table(RUNS)?;
        let (mut packed, mut read, mut last) = (Vec::new(), 0, None);
        let (spent, ended) = {
            let mut merge = Merge::of(&table, inputs.iter().copied(), |_| self.from.as_slice())?;
            merge.for_each(|key, value| {
                read += ENTRY_HEAD + key.len() + value.map_or(0, <[u8]>::len);
                // All that is older is here: what has ended leaves no trace.
                if let Some(value) = value {
                    entry(&mut packed, key, Some(value))?;
                }
                last = Some(key.to_vec());
                Ok(if read >= strides.step {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            })?;
            let ended = merge.is_over();
            (merge.spent(), ended)
        };
        for (run, first) in &spent {
            table.remove((*run, first.as_slice()))?;
        }
        let mut packer = Packer::new(output, strides.chunk);
        let mut at = 0;
        while let Some(found) = Position::read(&packed, at)? {
            packer.push(
                &mut table,
                &packed[found.key()],
                found.value().map(|value| &packed[value]),
            )?;
            at = found.end;
        }
        let bytes = self.sizes.get(&output).copied().unwrap_or(0) + packer.finish(&mut table)?;
        let mut sizes = write.open_table(SIZES)?;
        let mut merge = write.open_table(MERGE)?;
        let mut merged = write.open_table(MERGED)?;
        if bytes > 0 {
            sizes.insert(output, bytes)?;
            next.sizes.insert(output, bytes);
        }
        if ended {
            for run in inputs {
                sizes.remove(run)?;
                next.sizes.remove(&run);
            }
            merge.remove(OUTPUT)?;
            merged.remove(FROM)?;
            next.output = None;
            next.from = Vec::new();
        } else {
            // The least key above the last.
            let mut from = last.unwrap_or_default();
            from.push(0);
            merge.insert(OUTPUT, output)?;
            merged.insert(FROM, from.as_slice())?;
            next.from = from;
        }
        Ok((next, read))
    }

    /// All entries by key, the newest of each, those that have ended too.
    pub(super) fn for_each(
        &self,
        table: &impl ReadableTable<(u64, &'static [u8]), &'static [u8]>,
        each: impl FnMut(&[u8], Option<&[u8]>) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let from = |run| match self.output {
            Some(output) if run < output => self.from.as_slice(),
            _ => &[],
        };
        Merge::of(table, self.sizes.keys().copied(), from)?.for_each(each)
    }
}

/// Adds an entry; `None` for what has ended.
pub(super) type Put<'a> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), Fault> + 'a;

type RunTable<'t> = redb::Table<'t, (u64, &'static [u8]), &'static [u8]>;

/// Writes a run.
#[derive(Debug)]
struct Packer {
    run: u64,
    /// Bytes of a chunk at the most, unless it is of one entry.
    most: usize,
    first: Vec<u8>,
    chunk: Vec<u8>,
    bytes: u64,
}

impl Packer {
    fn new(run: u64, most: usize) -> Self {
        Self {
            run,
            most,
            first: Vec::new(),
            chunk: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, table: &mut RunTable<'_>, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        if self.chunk.len() + ENTRY_HEAD + key.len() + value.map_or(0, <[u8]>::len) > self.most {
            self.flush(table)?;
        }
        if self.chunk.is_empty() {
            self.first = key.to_vec();
        }
        entry(&mut self.chunk, key, value)
    }

    fn flush(&mut self, table: &mut RunTable<'_>) -> Result<(), Fault> {
        if !self.chunk.is_empty() {
            table.insert((self.run, self.first.as_slice()), self.chunk.as_slice())?;
            self.bytes += self.chunk.len() as u64;
            self.chunk.clear();
        }
        Ok(())
    }

    fn finish(mut self, table: &mut RunTable<'_>) -> Result<u64, Fault> {
        self.flush(table)?;
        Ok(self.bytes)
    }
}

/// Appends: length of the key (2 bytes, little endian); 0, or the length of the value plus 1 (4 bytes); key; value.
fn entry(to: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
    // Keys are below 300 bytes and values below a megabyte (see `limits`): what does not fit is not written as something else.
    let too_long = || Fault::damaged(recent::name_of(key), "it is too long");
    let key_length = u16::try_from(key.len()).map_err(|_| too_long())?;
    let value_length = value.map_or(Some(0), |value| u32::try_from(value.len()).ok()?.checked_add(1));
    let value_length = value_length.ok_or_else(too_long)?;
    to.extend_from_slice(&key_length.to_le_bytes());
    to.extend_from_slice(&value_length.to_le_bytes());
    to.extend_from_slice(key);
    to.extend_from_slice(value.unwrap_or_default());
    Ok(())
}

/// Where an entry is in its chunk.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    key: usize,
    value: usize,
    end: usize,
    gone: bool,
}

impl Position {
    /// The one that begins at `at`; `None` at the chunk's end.
    fn read(chunk: &[u8], at: usize) -> Result<Option<Self>, Fault> {
        let damaged = || Fault::damaged("a run", "an entry goes beyond its chunk");
        let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let (head, rest) = rest.split_at_checked(ENTRY_HEAD).ok_or_else(damaged)?;
        let key_length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let value_length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        let key = at + ENTRY_HEAD;
        let value = key + key_length;
        let end = value + value_length.saturating_sub(1) as usize;
        if end - key > rest.len() {
            return Err(damaged());
        }
        Ok(Some(Self {
            key,
            value,
            end,
            gone: value_length == 0,
        }))
    }

    fn key(&self) -> std::ops::Range<usize> {
        self.key..self.value
    }

    fn value(&self) -> Option<std::ops::Range<usize>> {
        (!self.gone).then_some(self.value..self.end)
    }
}

/// Goes through one run.
struct Reader<'t> {
    run: u64,
    chunks: redb::Range<'t, (u64, &'static [u8]), &'static [u8]>,
    /// The key of the chunk.
    first: Vec<u8>,
    chunk: Vec<u8>,
    at: Position,
    /// The keys of chunks that are behind.
    spent: Vec<Vec<u8>>,
}

impl<'t> Reader<'t> {
    /// At the first entry that is not below `from`; `None` if there is none.
    fn at(
        table: &'t impl ReadableTable<(u64, &'static [u8]), &'static [u8]>,
        run: u64,
        from: &[u8],
    ) -> Result<Option<Self>, Fault> {
        // What is below `from` is spent and its chunks are gone, but for the one that `from` cuts.
        let mut reader = Self {
            run,
            chunks: table.range((run, &[][..])..(run + 1, &[][..]))?,
            first: Vec::new(),
            chunk: Vec::new(),
            at: Position::default(),
            spent: Vec::new(),
        };
        while reader.advance()? {
            if reader.key() >= from {
                return Ok(Some(reader));
            }
        }
        Ok(None)
    }

    fn key(&self) -> &[u8] {
        &self.chunk[self.at.key()]
    }

    fn value(&self) -> Option<&[u8]> {
        self.at.value().map(|value| &self.chunk[value])
    }

    /// To the next entry; false at the end.
    fn advance(&mut self) -> Result<bool, Fault> {
        loop {
            if let Some(next) = Position::read(&self.chunk, self.at.end)? {
                self.at = next;
                return Ok(true);
            }
            if !self.chunk.is_empty() {
                self.spent.push(std::mem::take(&mut self.first));
                self.chunk.clear();
            }
            self.at = Position::default();
            let Some(next) = self.chunks.next() else {
                return Ok(false);
            };
            let (key, chunk) = next?;
            self.first.extend_from_slice(key.value().1);
            self.chunk.extend_from_slice(chunk.value());
        }
    }
}

/// Goes through several runs by key.
struct Merge<'t> {
    /// By key, the greatest first; of those with one key the newest last.
    readers: Vec<Reader<'t>>,
    over: Vec<Reader<'t>>,
}

impl<'t> Merge<'t> {
    fn of<'f>(
        table: &'t impl ReadableTable<(u64, &'static [u8]), &'static [u8]>,
        runs: impl Iterator<Item = u64>,
        from: impl Fn(u64) -> &'f [u8],
    ) -> Result<Self, Fault> {
        let mut merge = Self {
            readers: Vec::new(),
            over: Vec::new(),
        };
        for run in runs {
            if let Some(reader) = Reader::at(table, run, from(run))? {
                merge.place(reader);
            }
        }
        Ok(merge)
    }

    fn place(&mut self, reader: Reader<'t>) {
        let before = |other: &Reader<'t>| (other.key(), reader.run) > (reader.key(), other.run);
        let at = self.readers.partition_point(before);
        self.readers.insert(at, reader);
    }

    fn for_each(
        &mut self,
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        while let Some(mut newest) = self.readers.pop() {
            let flow = each(newest.key(), newest.value())?;
            while self.readers.last().is_some_and(|older| older.key() == newest.key()) {
                if let Some(older) = self.readers.pop() {
                    self.advance(older)?;
                }
            }
            if newest.advance()? {
                self.place(newest);
            } else {
                self.over.push(newest);
            }
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut reader: Reader<'t>) -> Result<(), Fault> {
        if reader.advance()? {
            self.place(reader);
        } else {
            self.over.push(reader);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.readers.is_empty()
    }

    /// The chunks that are behind.
    fn spent(self) -> Vec<(u64, Vec<u8>)> {
        let readers = self.readers.into_iter().chain(self.over);
        readers
            .flat_map(|reader| reader.spent.into_iter().map(move |first| (reader.run, first)))
            .collect()
    }
}
