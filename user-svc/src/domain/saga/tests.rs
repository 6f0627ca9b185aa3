//! The state machine in a small world where everything that can go wrong does, then nothing does any more: every purchase
//! ends, and money and seats end on the same side.

use proptest::{collection::vec, prelude::*};
use service_store::{Currency, Money};

use super::*;
use crate::domain::order::RefundRefusal;

/// What happens to one performance of a step.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// All is well.
    None,
    /// Carried out; the answer is lost.
    AnswerLost,
    /// Not carried out; no answer.
    RequestLost,
    /// Provably not carried out.
    NotSent,
    /// No answer; carried out at the very end.
    Late,
    /// The process dies before performing the step.
    CrashBefore,
    /// The process dies after performing it, before recording the next.
    CrashAfter,
    /// The hold's time runs out, then all is well.
    Expiry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HoldAt {
    Nowhere,
    Held,
    Expired,
    Confirmed,
    Released,
}

/// The ticket service, the wallet and the messages under way.
struct World {
    hold: HoldAt,
    soldout: bool,
    poor: bool,
    debits: u32,
    refunds: u32,
    late: Vec<Step>,
    /// The last release was heard to be settled.
    settled: bool,
}

fn failing(failure: Failure) -> Failing {
    Failing::new(failure, "")
}

fn held() -> Held {
    Held {
        token: 1,
        seats: Vec::new(),
        total: Money::try_new(Currency::EUR, 0).expect("nothing"),
    }
}

impl World {
    fn hold(&mut self) -> HoldOutcome {
        match self.hold {
            HoldAt::Nowhere if self.soldout => HoldOutcome::Refused(failing(Failure::SoldOut)),
            HoldAt::Released => HoldOutcome::Refused(failing(Failure::HoldExpired)),
            HoldAt::Nowhere => {
                self.hold = HoldAt::Held;
                HoldOutcome::Granted(held())
            }
            HoldAt::Held | HoldAt::Expired | HoldAt::Confirmed => HoldOutcome::Granted(held()),
        }
    }

    fn confirm(&mut self) -> ConfirmOutcome {
        match self.hold {
            HoldAt::Held | HoldAt::Confirmed => {
                self.hold = HoldAt::Confirmed;
                ConfirmOutcome::Confirmed(Vec::new())
            }
            HoldAt::Nowhere | HoldAt::Expired | HoldAt::Released => {
                ConfirmOutcome::Refused(failing(Failure::HoldExpired))
            }
        }
    }

    fn release(&mut self) {
        if self.hold != HoldAt::Confirmed {
            self.hold = HoldAt::Released;
        }
    }

    /// Carries a message out as if nobody heard the answer.
    fn unheard(&mut self, step: &Step) {
        match step {
            Step::Hold => drop(self.hold()),
            Step::Confirm => drop(self.confirm()),
            Step::Release(_) => self.release(),
            _ => {}
        }
    }

    /// Performs `step`. `None`: the process died and nothing further was recorded.
    fn perform(&mut self, step: &Step, attempts: Attempts, fault: Fault) -> Option<Next> {
        if matches!(fault, Fault::CrashBefore) {
            return None;
        }
        if matches!(fault, Fault::Expiry) && self.hold == HoldAt::Held {
            self.hold = HoldAt::Expired;
        }
        let unknown = matches!(
            fault,
            Fault::AnswerLost | Fault::RequestLost | Fault::NotSent | Fault::Late
        );
        if matches!(fault, Fault::AnswerLost) {
            self.unheard(step);
        }
        if matches!(fault, Fault::Late) {
            self.late.push(step.clone());
        }
        let next = match step {
            Step::Begin => Next::Go(Step::Hold),
            Step::Hold if matches!(fault, Fault::NotSent) => {
                after_hold(HoldOutcome::NotDone(failing(Failure::Unavailable)), attempts).0
            }
            Step::Hold if unknown => after_hold(HoldOutcome::Unknown(failing(Failure::Unavailable)), attempts).0,
            Step::Hold => after_hold(self.hold(), attempts).0,
            // Local: the crash comes before the commit, or after the next step is recorded.
            Step::Debit | Step::Refund(_) if matches!(fault, Fault::CrashAfter) => return None,
            Step::Debit if self.poor => Next::Go(after_debit(Err(failing(Failure::InsufficientFunds)))),
            Step::Debit => {
                self.debits += 1;
                Next::Go(after_debit(Ok(())))
            }
            Step::Confirm if unknown => after_confirm(ConfirmOutcome::Unknown),
            Step::Confirm => after_confirm(self.confirm()),
            Step::Refund(why) => {
                self.refunds += 1;
                Next::Go(Step::Release(why.clone()))
            }
            Step::Release(why) if unknown => after_release(why.clone(), ReleaseOutcome::Unknown, attempts),
            Step::Release(why) => {
                self.release();
                self.settled = true;
                after_release(why.clone(), ReleaseOutcome::Settled, attempts)
            }
            // Refunds are the simulation's.
            _ => return None,
        };
        (!matches!(fault, Fault::CrashAfter)).then_some(next)
    }
}

/// Runs a purchase to its end.
fn run(faults: Vec<Fault>, soldout: bool, poor: bool) -> (Step, World) {
    let mut world = World {
        hold: HoldAt::Nowhere,
        soldout,
        poor,
        debits: 0,
        refunds: 0,
        late: Vec::new(),
        settled: false,
    };
    let bound = faults.len() + 20;
    let mut faults = faults.into_iter();
    let (mut step, mut attempts) = (Step::Begin, Attempts::FIRST);
    for _ in 0..bound {
        if matches!(step, Step::Succeeded(_) | Step::Failed(_)) {
            for late in std::mem::take(&mut world.late) {
                world.unheard(&late);
            }
            return (step, world);
        }
        match world.perform(&step, attempts, faults.next().unwrap_or(Fault::None)) {
            Some(Next::Go(next)) => (step, attempts) = (next, Attempts::FIRST),
            Some(Next::Again { in_doubt }) => attempts = attempts.another(in_doubt),
            None => attempts = Attempts::RESUMED,
        }
    }
    panic!("no end after {bound} steps; stuck at {step:?}");
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        2 => Just(Fault::AnswerLost),
        2 => Just(Fault::RequestLost),
        2 => Just(Fault::NotSent),
        1 => Just(Fault::Late),
        1 => Just(Fault::CrashBefore),
        1 => Just(Fault::CrashAfter),
        1 => Just(Fault::Expiry),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn money_and_seats_end_on_the_same_side(faults in vec(any_fault(), 0..30), soldout: bool, poor: bool) {
        let (end, world) = run(faults, soldout, poor);
        match end {
            Step::Succeeded(_) => {
                prop_assert_eq!((world.debits, world.refunds, world.hold), (1, 0, HoldAt::Confirmed));
            }
            Step::Failed(_) => {
                prop_assert_eq!(world.debits, world.refunds, "every cent is back, once");
                prop_assert!(world.debits <= 1);
                prop_assert_ne!(world.hold, HoldAt::Confirmed, "no seat was sold");
                if world.settled {
                    prop_assert_eq!(world.hold, HoldAt::Released, "a late request finds the release");
                }
            }
            other => prop_assert!(false, "{:?} is no end", other),
        }
    }
}

#[test]
fn without_faults_the_way_is_straight() {
    assert!(matches!(run(vec![], false, false).0, Step::Succeeded(_)));
    let (end, world) = run(vec![], true, false);
    assert_eq!(
        (end, world.hold),
        (Step::Failed(failing(Failure::SoldOut)), HoldAt::Nowhere)
    );
    let (end, world) = run(vec![], false, true);
    assert_eq!(
        (end, world.hold),
        (Step::Failed(failing(Failure::InsufficientFunds)), HoldAt::Released)
    );
}

#[test]
fn a_confirmation_is_never_given_up_and_a_hold_is() {
    assert_eq!(after_confirm(ConfirmOutcome::Unknown), Next::Again { in_doubt: true });
    let last = Attempts {
        count: MAX_ATTEMPTS,
        in_doubt: false,
    };
    let unavailable = failing(Failure::Unavailable);
    let (next, _) = after_hold(HoldOutcome::Unknown(unavailable.clone()), last);
    assert_eq!(next, Next::Go(Step::Release(unavailable)));
}

#[test]
fn what_provably_came_to_nothing_needs_no_release() {
    let unavailable = failing(Failure::Unavailable);
    let last = Attempts {
        count: MAX_ATTEMPTS,
        in_doubt: false,
    };
    let (next, _) = after_hold(HoldOutcome::NotDone(unavailable.clone()), last);
    assert_eq!(next, Next::Go(Step::Failed(unavailable.clone())));
    let (next, _) = after_hold(
        HoldOutcome::NotDone(unavailable.clone()),
        Attempts { in_doubt: true, ..last },
    );
    assert_eq!(next, Next::Go(Step::Release(unavailable)));
}

#[test]
fn a_hold_that_is_not_ours_is_not_released() {
    let failing = failing(Failure::Unavailable);
    let (next, _) = after_hold(HoldOutcome::NotOurs(failing.clone()), Attempts::RESUMED);
    assert_eq!(next, Next::Go(Step::Failed(failing)));
}

#[test]
fn only_what_has_succeeded_is_refunded() {
    let tickets = vec![Uuid::from_u128(1)];
    let why = failing(Failure::SoldOut);
    for step in [
        Step::Begin,
        Step::Hold,
        Step::Debit,
        Step::Confirm,
        Step::Refund(why.clone()),
        Step::Release(why.clone()),
        Step::Failed(why),
        Step::Revoke(tickets.clone()),
        Step::Repay(tickets.clone()),
        Step::Refunded(tickets.clone()),
    ] {
        assert_eq!(refund_asked(&step), None, "{step:?}");
    }
    let succeeded = Step::Succeeded(tickets.clone());
    assert_eq!(refund_asked(&succeeded), Some(Step::Revoke(tickets)));
}

#[test]
fn a_revocation_is_never_given_up_and_only_a_refusal_leads_back() {
    let tickets = vec![Uuid::from_u128(1)];
    let after = |outcome| after_revoke(tickets.clone(), outcome);
    let refused = RefundRefused {
        why: RefundRefusal::Closed,
        detail: "too late".into(),
    };
    assert_eq!(after(RevokeOutcome::Unknown), (Next::Again { in_doubt: true }, None));
    assert_eq!(
        after(RevokeOutcome::Revoked),
        (Next::Go(Step::Repay(tickets.clone())), None)
    );
    assert_eq!(
        after(RevokeOutcome::Refused(refused.clone())),
        (Next::Go(Step::Succeeded(tickets.clone())), Some(refused))
    );
    let done = after_repay(tickets.clone());
    assert!(done.is_final() && done == Step::Refunded(tickets));
}
