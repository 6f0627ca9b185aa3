//! Who else was using the machine while a figure was taken: figures of a busy machine mislead.

use std::{fs, time::Instant};

use crate::{Failed, stats::number};

/// Of the whole machine, in percent: beyond it a figure is called disturbed. The kernel and a quiet system take less.
const QUIET: f64 = 5.0;

/// The state at the begin of a figure.
pub(crate) struct Machine {
    begun: Instant,
    busy: u64,
    own: u64,
}

impl Machine {
    /// Now.
    pub(crate) fn look() -> Result<Self, Failed> {
        Ok(Self {
            begun: Instant::now(),
            busy: busy()?,
            own: own()?,
        })
    }

    /// The part of the machine that others took since then, in percent. The servers must have ended: until then what they
    /// used is not counted as ours.
    pub(crate) fn others(&self) -> Result<f64, Failed> {
        let cores = std::thread::available_parallelism()?.get() as u64;
        let ticks = self.begun.elapsed().as_secs_f64() * 100.0 * number(cores);
        let busy = busy()?.saturating_sub(self.busy);
        let own = own()?.saturating_sub(self.own);
        Ok(number(busy.saturating_sub(own)) / ticks * 100.0)
    }

    /// What to say of it.
    pub(crate) fn verdict(others: f64) -> Option<String> {
        (others > QUIET).then(|| format!("DISTURBED: other processes took {others:.0} % of the machine"))
    }
}

/// Ticks that all cores have spent on anything: all but idle (4th) and waiting for a disk (5th); the 9th and 10th are counted
/// among the first.
fn busy() -> Result<u64, Failed> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8);
    let ticks = fields.enumerate().filter(|(index, _)| ![3, 4].contains(index));
    Ok(ticks.map(|(_, field)| field.parse().unwrap_or(0)).sum())
}

/// Ticks of this process and of its children that have ended: fields 14 to 17.
fn own() -> Result<u64, Failed> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_command = stat.rsplit_once(')').ok_or("unreadable stat")?.1;
    let ticks = after_command.split_whitespace().skip(11).take(4);
    Ok(ticks.map(|field| field.parse().unwrap_or(0)).sum())
}
