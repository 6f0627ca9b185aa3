//! The invariants, looked at after every step.

use super::*;

impl World {
    pub(super) fn check(&self) -> Result<(), String> {
        let count = |list: &[usize], number| list.iter().filter(|&&other| other == number).count();
        for seat in 0..SEATS {
            if self.sold.iter().filter(|(sold, _)| *sold == seat).count() > 1 {
                return Err(format!("1: seat {seat} is sold twice: {:?}", self.sold));
            }
        }
        for (number, order) in self.orders.iter().enumerate() {
            let (paid, refunded) = (count(&self.debits, number), count(&self.refunds, number));
            let returned = count(&self.returns, number);
            let sold = self.sold.iter().filter(|(_, buyer)| *buyer == number).count();
            let say = |what: &str| {
                Err(format!(
                    "{what}: order {number}: paid {paid} refunded {refunded} returned {returned} sold {sold} {order:?}"
                ))
            };
            if refunded > 1 || (refunded > 0 && sold > 0) {
                return say("2");
            }
            if returned > 1 || (returned > 0 && (refunded > 0 || sold > 0)) {
                return say("7");
            }
            match order.step {
                Step::Succeeded(_) if (paid, refunded, returned, sold) != (1, 0, 0, 1) => return say("3"),
                Step::Revoke(_) if (paid, refunded, returned) != (1, 0, 0) => return say("7"),
                Step::Repay(_) if (paid, refunded, returned, sold) != (1, 0, 0, 0) => return say("7"),
                Step::Refunded(_) if (paid, refunded, returned, sold) != (1, 0, 1, 0) => return say("7"),
                Step::Failed(_) if sold > 0 || paid != refunded => return say("4"),
                Step::Failed(_)
                    if order.heard_release && self.holds.get(&number).is_some_and(|hold| hold.phase == Phase::Held) =>
                {
                    return say("5");
                }
                _ if paid > 1 => return say("3"),
                _ => {}
            }
        }
        for (number, seen) in &self.seen {
            if !seen.is_sorted() {
                return Err(format!("6: order {number}: {seen:?}"));
            }
        }
        match self.effects.iter().find(|(_, effects)| **effects > 1) {
            Some(twice) => Err(format!("6: two effects: {twice:?}")),
            None => Ok(()),
        }
    }
}
