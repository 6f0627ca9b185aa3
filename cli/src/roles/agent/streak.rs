//! What a row of probes says: pure, so that no clock and no network decide about its tests.
//!
//! Down after several misses, up after one success. One miss may be a pause of the machine, and a set that loses a good
//! instance sends its calls to the others; one success is an answer, which a program that is not well does not give.

/// Whether something is well, by its probes so far.
#[derive(Debug, Clone)]
pub(crate) struct Streak {
    allowed: u32,
    missed: u32,
}

/// What changed with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It was well, and has missed too many in a row.
    Down,
    /// It was not, and has answered.
    Up,
}

impl Streak {
    /// Well, until `misses` (at least 1) in a row fail.
    pub(crate) fn well(misses: u32) -> Self {
        Self {
            allowed: misses.max(1),
            missed: 0,
        }
    }

    /// A probe has ended.
    pub(crate) fn observe(&mut self, passed: bool) -> Option<Turn> {
        let was_down = self.is_down();
        self.missed = match passed {
            true => 0,
            // Beyond the bound it is all the same.
            false => self.missed.saturating_add(1).min(self.allowed),
        };
        match (was_down, self.is_down()) {
            (false, true) => Some(Turn::Down),
            (true, false) => Some(Turn::Up),
            _ => None,
        }
    }

    fn is_down(&self) -> bool {
        self.missed == self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` for a probe that succeeds, `-` for one that fails; what comes of each: `D`own, `U`p, or nothing.
    fn check(misses: u32, probes: &str, expected: &str) {
        let mut streak = Streak::well(misses);
        let turns: String = probes
            .chars()
            .map(|probe| match streak.observe(probe == '+') {
                Some(Turn::Down) => 'D',
                Some(Turn::Up) => 'U',
                None => '.',
            })
            .collect();
        assert_eq!(turns, expected, "{misses} misses, {probes}");
    }

    #[test]
    fn down_after_so_many_in_a_row_and_up_after_one() {
        check(3, "++++", "....");
        check(3, "---", "..D");
        check(3, "--+--+--", "........");
        check(3, "-----+--+---", "..D..U.....D");
        check(1, "-+-+", "DUDU");
        check(0, "-+", "DU");
    }
}
