//! Whom a policy has looked at, and what each would have cost: for explanations. The pick is played again with the same random bits,
//! and what it asks is written down.

use std::cell::RefCell;

use super::{Candidates, Draw, InstanceRef, Maglev, Weights};
use crate::{
    Policy,
    load::{Probes, Tick},
};

/// What a call would have cost somebody that was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Price {
    /// Microseconds: the expected latency, times the calls that would be under way.
    Micros(f32),
    /// Calls under way, for an instance of average weight.
    Calls(f32),
}

/// Candidates that notice who of them is looked at.
struct Looked<'a, C> {
    of: &'a C,
    /// The one that was chosen: the call that it was chosen for is under way there by now.
    own: Option<usize>,
    at: RefCell<Vec<usize>>,
}

impl Policy {
    /// Whom a pick with that draw compares, in its order, and at what price. `own` is who has got the call already. Nothing for policies
    /// that do not compare, and for those whose picks leave traces.
    pub(crate) fn compared(&self, candidates: &impl Candidates, own: Option<usize>, draw: Draw) -> Vec<(usize, Price)> {
        if !matches!(self, Self::LeastRequest(_) | Self::PeakEwma(_)) {
            return Vec::new();
        }
        let looked = Looked {
            of: candidates,
            own,
            at: RefCell::default(),
        };
        self.pick(&looked, || 0, draw);
        let at = looked.at.take();
        let price = |index: usize| {
            let relative = match looked.weights() {
                Weights::Equal => 1.0,
                Weights::Mixed(weights) => weights.total() as f32 / looked.len() as f32 / weights.of(index) as f32,
            };
            match self {
                Self::PeakEwma(_) => Price::Micros(super::ewma::cost(&looked, index, relative, draw.now)),
                _ => Price::Calls(looked.in_flight(index) as f32 * relative),
            }
        };
        at.into_iter().map(|index| (index, price(index))).collect()
    }
}

impl<C: Candidates> Candidates for Looked<'_, C> {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn in_flight(&self, index: usize) -> u32 {
        let mut at = self.at.borrow_mut();
        if !at.contains(&index) {
            at.push(index);
        }
        let own = u32::from(self.own == Some(index));
        self.of.in_flight(index).saturating_sub(own)
    }

    fn all_in_flight(&self) -> u32 {
        self.of.all_in_flight()
    }

    fn latency(&self, index: usize, now: Tick) -> Option<f32> {
        self.of.latency(index, now)
    }

    fn identity(&self, index: usize) -> u64 {
        self.of.identity(index)
    }

    fn weights(&self) -> &Weights {
        self.of.weights()
    }

    fn maglev(&self) -> Option<&Maglev> {
        self.of.maglev()
    }

    fn penalty(&self, index: usize, now: Tick) -> f32 {
        self.of.penalty(index, now)
    }

    fn probes(&self) -> Option<&Probes> {
        self.of.probes()
    }

    fn find(&self, number: u32) -> Option<usize> {
        self.of.find(number)
    }

    fn about(&self, index: usize) -> InstanceRef<'_> {
        self.of.about(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        LeastRequest, PeakEwma,
        pick::testing::{Table, spread},
    };

    fn draw(bits: u64) -> Draw {
        Draw {
            bits,
            now: Tick::ZERO,
            key: None,
        }
    }

    #[test]
    fn the_two_that_were_drawn_and_what_they_would_have_cost() {
        let mut table = Table::busy(&(0..40).collect::<Vec<_>>());
        table.latencies = (0..40).map(|_| Some(5_000.0)).collect();
        for n in 0..200 {
            let draw = draw(spread(n));
            let policy = Policy::PeakEwma(PeakEwma::default());
            let chosen = policy.pick(&table, || 0, draw);
            // The call is under way by the time somebody asks.
            let own = chosen.expect("somebody");
            table.loads[own] += 1;
            let compared = policy.compared(&table, chosen, draw);
            table.loads[own] -= 1;
            assert_eq!(compared.len(), 2, "{compared:?}");
            assert!(compared.iter().any(|(index, _)| *index == own));
            for (index, price) in compared {
                assert_eq!(price, Price::Micros(5_000.0 * (table.loads[index] + 1) as f32));
            }
        }
    }

    #[test]
    fn all_of_few_and_nobody_where_nothing_is_compared() {
        let table = Table::busy(&[3, 1, 2]);
        let mut compared = Policy::LeastRequest(LeastRequest::default()).compared(&table, None, draw(1));
        compared.sort_by_key(|(index, _)| *index);
        let calls = |calls| Price::Calls(calls);
        assert_eq!(compared, [(0, calls(3.0)), (1, calls(1.0)), (2, calls(2.0))]);
        assert_eq!(Policy::RoundRobin.compared(&table, None, draw(1)), []);
    }
}
