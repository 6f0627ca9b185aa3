//! Refunds of what was sold: buyers who ask, terms that change, and money that comes back once.

use super::*;
use crate::domain::order::{RefundRefusal, RefundRefused};

/// For so long the event's terms allow refunds, and for so long they do not: its organiser changes them now and then.
const TERMS: Millis = 9_000;

impl World {
    /// In the storm somebody asks for the money of an order back that has succeeded, now and then, at some process.
    pub(super) fn ask_refund(&mut self) {
        let process = self.draw.below(PROCESSES as u64) as usize;
        let number = self.draw.below(ORDERS as u64) as usize;
        let awake = self.processes[process].stopped_until <= self.now;
        if !self.storms() || !awake || !self.draw.once_in(30) {
            return;
        }
        let Some(step) = refund_asked(&self.orders[number].step) else {
            return;
        };
        self.refunds_asked += 1;
        let stored = &mut self.orders[number];
        stored.step = step;
        stored.version += 1;
        stored.claim += 1;
        stored.claimed_until = self.now + LEASE;
        stored.refund = Some(self.refunds_asked);
        let seen = stored.clone();
        self.tell(number, seen.version);
        let driver = Driver {
            seen,
            attempts: Attempts::FIRST,
            call: None,
            at: self.now,
        };
        self.processes[process].drivers.insert(number, driver);
    }

    /// One transaction with its record.
    pub(super) fn repay(&mut self, process: usize, number: usize, tickets: Vec<Uuid>) {
        let next = after_repay(tickets);
        if self.bug == Bug::RepayApart {
            self.returns.push(number);
            if self.draw.once_in(10) {
                self.processes[process] = Process::default();
            } else {
                self.advance(process, number, next, None, |_| {});
            }
            return;
        }
        let owed = !self.returns.contains(&number);
        self.advance(process, number, next, None, |world| {
            if owed {
                world.returns.push(number);
            }
        });
    }

    /// The ticket service: one transaction. What was revoked is answered again, what was refused under an id is refused again.
    pub(super) fn serve_revoke(&mut self, order: usize, refund: u64) -> RevokeOutcome {
        let Some(place) = self.sold.iter().position(|(_, buyer)| *buyer == order) else {
            // Only what was sold is ever asked for.
            return RevokeOutcome::Revoked;
        };
        let refused = RevokeOutcome::Refused(RefundRefused {
            why: RefundRefusal::Closed,
            detail: String::new(),
        });
        if self.refunds_refused.contains(&refund) && self.bug != Bug::RefusalForgotten {
            return refused;
        }
        if (self.now / TERMS) % 2 == 1 {
            self.refunds_refused.insert(refund);
            return refused;
        }
        let (seat, _) = self.sold.remove(place);
        self.seats[seat] = None;
        self.set(order, Phase::Released);
        RevokeOutcome::Revoked
    }
}
