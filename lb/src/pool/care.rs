//! Who of the connected endpoints may be picked, and with what weight: ejections, probation, slow start. It performs what
//! `outlier` and `slow_start` decide; who exists and who is connected is settled before.
//!
//! Everything happens under the book's lock and ends with a new ready set, so an instance is out when the call that saw its last
//! failure has ended. What time alone changes is done by the keeper's task, which asks [`Pool::attend`] when to come again.

use std::{sync::Arc, time::SystemTime};

use tokio::time::{Instant, sleep_until};

use super::{
    Book, Pool, Slot,
    ready::{Admission, Choice, Member},
    slow_start::{Ramp, SlowStart, scaled},
};
use crate::{
    EjectionReason, OutlierDetection,
    endpoint::{Ending, Endpoint, Overseer},
    outlier::{Host, InService, Standing, may_eject, sweep},
};

/// What is not set is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Care {
    pub(crate) outlier: Option<OutlierDetection>,
    pub(crate) slow_start: Option<SlowStart>,
}

/// What the book notes of an endpoint for this module.
#[derive(Debug, Default)]
pub(super) struct Cared {
    pub(super) standing: Standing,
    ramp: Ramp,
}

impl Pool {
    /// From now on it goes by `care`. Without outlier detection everybody is in service.
    pub(crate) fn set_care(&self, care: Care) {
        let mut book = self.book();
        if book.care == care {
            return;
        }
        book.care = care;
        book.next_sweep = care.outlier.map(|config| Instant::now() + config.interval);
        for slot in book.slots.values_mut() {
            slot.watch(&care);
        }
        self.publish(&book);
        self.attention.notify_one();
    }

    /// Resolves when [`Pool::attend`] is due: at `due`, or earlier because something has changed.
    pub(crate) async fn wants_attention(&self, due: Option<Instant>) {
        let come = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.attention.notified() => {}
            () = come => {}
        }
    }

    /// Does what time has brought, and says when there will be more.
    pub(crate) fn attend(&self, now: Instant) -> Option<Instant> {
        let mut book = self.book();
        let mut changed = false;
        if let Some(config) = book.care.outlier {
            if book.next_sweep.is_none_or(|at| at <= now) {
                changed |= book.sweep(now, &config, || self.chance.share());
                book.next_sweep = Some(now + config.interval);
            }
            for slot in book.slots.values_mut() {
                changed |= slot.pass_time(now, &config);
            }
        }
        let ramping = book.is_anybody_ramping(now);
        // Once more when the last one has arrived: `settle` forgets who has.
        changed |= ramping | book.settle(now);
        if changed {
            self.publish(&book);
        }
        let step = book
            .care
            .slow_start
            .filter(|_| ramping)
            .map(|config| now + config.step());
        let standing = book.care.outlier.and_then(|config| {
            let dues = book.slots.values().filter_map(|slot| slot.cared.standing.due(&config));
            dues.min()
        });
        [book.next_sweep, step, standing].into_iter().flatten().min()
    }

    /// The choice is the one call that its endpoint is to prove itself by: nobody else is let through meanwhile.
    pub(super) fn let_through(&self, choice: &Choice) {
        self.change(choice.in_flight.endpoint(), |slot, now, _| {
            slot.cared.standing = match std::mem::take(&mut slot.cared.standing) {
                // OnProbation -> Proving
                Standing::OnProbation(on_probation) => Standing::Proving(on_probation.let_through(now)),
                // A sweep or a rebirth was faster.
                other => other,
            };
        });
    }

    /// Publishes what `change` makes of the endpoint's slot, if it has one and outliers are looked for at all.
    fn change(&self, endpoint: &Endpoint, change: impl FnOnce(&mut Slot, Instant, &OutlierDetection)) {
        let mut book = self.book();
        let Some(config) = book.care.outlier else {
            return;
        };
        if let Some(slot) = book.slot_of(endpoint) {
            change(slot, Instant::now(), &config);
            self.publish(&book);
            self.attention.notify_one();
        }
    }
}

#[cfg(test)]
impl Pool {
    /// Shows `look` the standing of everybody in the set.
    pub(crate) fn standings(&self, mut look: impl FnMut(&Arc<Endpoint>, &Standing)) {
        for slot in self.book().slots.values() {
            look(&slot.endpoint, &slot.cared.standing);
        }
    }
}

impl Overseer for Pool {
    fn suspects(&self, endpoint: &Endpoint) {
        let mut book = self.book();
        let Some(config) = book.care.outlier else {
            return;
        };
        if may_eject(book.out_of_service(), book.slots.len(), config.max_ejection_percent)
            && let Some(slot) = book.slot_of(endpoint)
        {
            slot.eject(
                EjectionReason::ConsecutiveFailures,
                Instant::now(),
                &config,
                self.chance.share(),
            );
            self.publish(&book);
            self.attention.notify_one();
        }
    }

    fn has_proved(&self, endpoint: &Endpoint, ending: Ending) {
        self.change(endpoint, |slot, now, config| {
            slot.cared.standing = match std::mem::take(&mut slot.cared.standing) {
                Standing::Proving(proving) => match ending {
                    // Proving -> InService
                    Ending::Served => {
                        tracing::info!(address = %slot.endpoint.address, instance = %slot.endpoint.instance_id, "back in service");
                        slot.endpoint.record().clear();
                        Standing::InService(proving.proved())
                    }
                    // Proving -> Ejected. Who is overloaded by one call is not to have more of them.
                    Ending::Failed | Ending::Overloaded => {
                        slot.endpoint.further().is_ejected(EjectionReason::ProbeFailed);
                        Standing::Ejected(proving.failed(now, config, self.chance.share()))
                    }
                    // Proving -> OnProbation
                    Ending::Cancelled => {
                        slot.endpoint.record().offer();
                        Standing::OnProbation(proving.inconclusive())
                    }
                },
                other => other,
            };
        });
    }
}

impl Book {
    /// Those that can be called, ejected or not: whether a call may go to one that is out of service depends on the others that its
    /// route leads to, and is decided for each view.
    pub(super) fn members(&self, now: Instant) -> Vec<Member> {
        let slow_start = self.care.slow_start.as_ref();
        let ramping = self.is_anybody_ramping(now);
        let members = self.slots.values().filter_map(|slot| {
            if !slot.is_callable() {
                return None;
            }
            let admission = match &slot.cared.standing {
                Standing::InService(_) => Admission::All,
                Standing::OnProbation(_) => Admission::OneToProve,
                Standing::Ejected(_) | Standing::Proving(_) => Admission::Nobody,
            };
            let weight = slot.backend.weight;
            Some(Member {
                endpoint: Arc::clone(&slot.endpoint),
                connections: slot.connections.as_slice().into(),
                weight: if ramping {
                    scaled(weight, slot.cared.ramp.share(slow_start, now))
                } else {
                    weight
                },
                attributes: Arc::clone(&slot.backend.attributes),
                registry: slot.backend.registry,
                admission,
            })
        });
        members.collect()
    }

    /// See [`OutlierDetection::panic_threshold_percent`].
    pub(super) fn panic_threshold_percent(&self) -> u8 {
        self.care.outlier.map_or(0, |config| config.panic_threshold_percent)
    }

    /// Whether somebody is being called: then whoever appears is a newcomer.
    pub(super) fn is_warm(&self) -> bool {
        self.slots.values().any(Slot::is_callable)
    }

    fn slot_of(&mut self, endpoint: &Endpoint) -> Option<&mut Slot> {
        self.slots
            .values_mut()
            .find(|slot| std::ptr::eq(Arc::as_ptr(&slot.endpoint), endpoint))
    }

    fn out_of_service(&self) -> usize {
        let out = self.slots.values().filter(|slot| !slot.cared.standing.is_in_service());
        out.count()
    }

    /// Only those that can be called: who cannot takes no part.
    fn is_anybody_ramping(&self, now: Instant) -> bool {
        let slow_start = self.care.slow_start.as_ref();
        self.slots
            .values()
            .any(|slot| slot.is_callable() && slot.cared.ramp.share(slow_start, now).is_some())
    }

    /// Whether somebody has come to its full weight since the last time.
    fn settle(&mut self, now: Instant) -> bool {
        let slow_start = self.care.slow_start;
        let mut settled = false;
        for slot in self.slots.values_mut() {
            if matches!(slot.cared.ramp, Ramp::Since(_)) && slot.cared.ramp.share(slow_start.as_ref(), now).is_none() {
                slot.cared.ramp = Ramp::Full;
                settled = true;
            }
        }
        settled
    }

    /// Whether anybody was ejected. `draw` yields numbers in 0..1.
    fn sweep(&mut self, now: Instant, config: &OutlierDetection, mut draw: impl FnMut() -> f64) -> bool {
        let mut slots: Vec<&mut Slot> = self.slots.values_mut().collect();
        let hosts: Vec<Host> = slots
            .iter()
            .map(|slot| {
                let (served, failed) = slot.endpoint.record().take();
                Host {
                    served,
                    failed,
                    in_service: slot.cared.standing.is_in_service(),
                }
            })
            .collect();
        let found = sweep(&hosts, config, &mut draw);
        for slot in &mut slots {
            if let Standing::InService(in_service) = &mut slot.cared.standing {
                *in_service = std::mem::take(in_service).swept();
            }
        }
        for (index, why) in &found {
            slots[*index].eject(*why, now, config, draw());
        }
        !found.is_empty()
    }
}

impl Slot {
    /// Of an instance that has just appeared in the set, or registered anew.
    pub(super) fn begin(&mut self, care: &Care, is_newcomer: bool) {
        self.endpoint.record().clear();
        self.cared = Cared {
            standing: Standing::default(),
            ramp: Ramp::of(
                care.slow_start.as_ref(),
                self.backend.attributes.started_at,
                is_newcomer,
                SystemTime::now(),
            ),
        };
        self.watch(care);
        // Of one that is connected already: the registry was slower than the connection.
        if self.is_callable() {
            self.ready(Instant::now());
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Connected, and, where that is asked, well by its own word.
    pub(super) fn is_callable(&self) -> bool {
        self.is_connected() && self.health.is_well()
    }

    /// It can be called from here on.
    pub(super) fn ready(&mut self, now: Instant) {
        self.cared.ramp = self.cared.ramp.ready(now);
        // It may be another process by now: calls that broke off when the last one died must not keep this one waiting.
        self.cared.standing = match std::mem::take(&mut self.cared.standing) {
            // Ejected -> OnProbation
            Standing::Ejected(ejected) => {
                self.endpoint.record().offer();
                Standing::OnProbation(ejected.served())
            }
            other => other,
        };
    }

    fn watch(&mut self, care: &Care) {
        match care.outlier {
            Some(config) => self.endpoint.record().watch(config.consecutive_failures),
            None => {
                self.endpoint.record().ignore();
                self.endpoint.record().clear();
                self.cared.standing = Standing::InService(InService::default());
            }
        }
        if care.slow_start.is_none() {
            self.cared.ramp = Ramp::Full;
        }
    }

    /// `draw` is in 0..1.
    fn eject(&mut self, why: EjectionReason, now: Instant, config: &OutlierDetection, draw: f64) {
        self.cared.standing = match std::mem::take(&mut self.cared.standing) {
            // InService -> Ejected
            Standing::InService(in_service) => {
                tracing::info!(address = %self.endpoint.address, instance = %self.endpoint.instance_id, ?why, "ejected");
                self.endpoint.further().is_ejected(why);
                Standing::Ejected(in_service.eject(why, now, config, draw))
            }
            // Calls that were under way when it was ejected end later.
            other => other,
        };
    }

    /// Whether anything has changed.
    fn pass_time(&mut self, now: Instant, config: &OutlierDetection) -> bool {
        let (standing, changed) = std::mem::take(&mut self.cared.standing).at(now, config);
        self.cared.standing = standing;
        if changed {
            self.endpoint.record().offer();
        }
        changed
    }
}
