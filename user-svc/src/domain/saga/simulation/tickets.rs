//! The wire to the ticket service, and a model of what that promises: each request is one transaction, and is repeated to the
//! same effect.

use service_store::{Currency, Money};

use super::*;
use crate::domain::order::SeatId;

impl World {
    /// In the storm a message is lost, doubled, or up to a minute late; replays of requests go on after it.
    pub(super) fn post(&mut self, mail: Mail) {
        if !self.storms() {
            self.wire.push((self.now + self.draw.below(50), mail));
            return;
        }
        for _ in 0..1 + u64::from(self.draw.once_in(3)) {
            if self.draw.once_in(4) {
                continue;
            }
            let late = if self.draw.once_in(5) { 60_000 } else { 400 };
            self.wire.push((self.now + self.draw.below(late), mail.clone()));
        }
    }

    pub(super) fn mail(&mut self) {
        let due: Vec<Mail> = {
            let now = self.now;
            let (due, rest) = std::mem::take(&mut self.wire)
                .into_iter()
                .partition(|(at, _)| *at <= now);
            self.wire = rest;
            let due: Vec<(Millis, Mail)> = due;
            due.into_iter().map(|(_, mail)| mail).collect()
        };
        for mail in due {
            match mail {
                Mail::Request { call, order, ask } => {
                    let answer = self.serve(order, ask);
                    self.post(Mail::Reply { call, answer });
                }
                Mail::Reply { call, answer } => {
                    let waiting = self.processes.iter().enumerate().find_map(|(process, state)| {
                        let mut drivers = state.drivers.iter();
                        let driver = drivers.find(|(_, driver)| driver.call.is_some_and(|(id, _)| id == call));
                        (state.stopped_until <= self.now).then_some(())?;
                        driver.map(|(number, _)| (process, *number))
                    });
                    if let Some((process, number)) = waiting {
                        self.hear(process, number, answer);
                    }
                }
            }
        }
    }

    /// The ticket service: each is one transaction.
    fn serve(&mut self, order: usize, ask: Ask) -> Answer {
        match ask {
            Ask::Hold => Answer::Hold(self.serve_hold(order)),
            Ask::Confirm(token) => {
                let refused = ConfirmOutcome::Refused(failing(Failure::HoldExpired));
                let Some(hold) = self.holds.get(&order).copied() else {
                    return Answer::Confirm(refused);
                };
                let in_time = self.now < hold.until && self.seats[hold.seat] == Some(token);
                match hold.phase {
                    Phase::Confirmed => {}
                    Phase::Held if in_time || self.bug == Bug::LateConfirm => {
                        self.seats[hold.seat] = Some(token);
                        self.sold.push((hold.seat, order));
                        self.set(order, Phase::Confirmed);
                    }
                    Phase::Held => {
                        self.set(order, Phase::Released);
                        return Answer::Confirm(refused);
                    }
                    Phase::Released => return Answer::Confirm(refused),
                }
                Answer::Confirm(ConfirmOutcome::Confirmed(vec![Uuid::from_u128(order as u128)]))
            }
            Ask::Revoke(refund) => Answer::Revoke(self.serve_revoke(order, refund)),
            Ask::Release => {
                match self.holds.get(&order).copied() {
                    None if self.bug != Bug::EmptyReleaseForgotten => drop(self.empty_releases.insert(order)),
                    Some(hold) if hold.phase == Phase::Held => {
                        if self.seats[hold.seat] == Some(hold.token) {
                            self.seats[hold.seat] = None;
                        }
                        self.set(order, Phase::Released);
                    }
                    _ => {}
                }
                Answer::Release(ReleaseOutcome::Settled)
            }
        }
    }

    fn serve_hold(&mut self, order: usize) -> HoldOutcome {
        if let Some(hold) = self.holds.get(&order) {
            return if hold.phase == Phase::Released {
                HoldOutcome::Refused(failing(Failure::HoldExpired))
            } else {
                HoldOutcome::Granted(held(hold))
            };
        }
        if self.empty_releases.contains(&order) {
            return HoldOutcome::Refused(failing(Failure::HoldExpired));
        }
        let free = (0..SEATS).find(|seat| {
            !self.sold.iter().any(|(sold, _)| sold == seat)
                && !self.holds.values().any(|hold| {
                    hold.seat == *seat
                        && hold.phase == Phase::Held
                        && self.seats[*seat] == Some(hold.token)
                        && hold.until > self.now
                })
        });
        let Some(seat) = free else {
            return HoldOutcome::Refused(failing(Failure::SoldOut));
        };
        self.token += 1;
        self.seats[seat] = Some(self.token);
        let hold = Hold {
            token: self.token,
            seat,
            until: self.now + HOLD,
            phase: Phase::Held,
        };
        self.holds.insert(order, hold);
        HoldOutcome::Granted(held(&hold))
    }

    pub(super) fn set(&mut self, order: usize, phase: Phase) {
        if let Some(hold) = self.holds.get_mut(&order) {
            hold.phase = phase;
        }
    }
}

fn held(hold: &Hold) -> Held {
    Held {
        token: hold.token,
        seats: vec![SeatId::try_new(&format!("A/1/{}", hold.seat)).expect("a seat")],
        total: Money::try_new(Currency::EUR, PRICE).expect("not negative"),
    }
}
