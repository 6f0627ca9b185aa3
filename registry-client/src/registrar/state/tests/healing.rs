//! Random faults, and that the state machine heals from all of them.

use proptest::prelude::*;

use super::*;

/// A registry that forgets, loses and refuses.
#[derive(Default)]
struct Model {
    /// The lease that holds the instance, its epoch, and what it says.
    live: Option<(String, i64, Says)>,
    answered: BTreeMap<String, (Says, Granted)>,
    revision: i64,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// The call never arrives.
    Lost,
    /// The call takes effect, the answer does not arrive.
    AnswerLost,
    /// The lease lapses before the call.
    Lapsed,
    /// Another process registers the id before the call.
    Taken,
    /// The registry restarts on an empty disk before the call.
    Wiped,
    /// The owner changes its mind after the call.
    Drains,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop::sample::select(vec![
        Fault::None,
        Fault::None,
        Fault::Lost,
        Fault::AnswerLost,
        Fault::Lapsed,
        Fault::Taken,
        Fault::Wiped,
        Fault::Drains,
    ])
}

impl Model {
    fn perform(&mut self, action: Action) -> Outcome {
        match action {
            Action::Register { request_id, says } => Outcome::Registered(match self.answered.get(&request_id) {
                Some((before, granted)) if *before == says => Ok(granted.clone()),
                Some(_) => Err(answer(Code::AlreadyExists, "REQUEST_ID_REUSED", None)),
                None => {
                    self.revision += 1;
                    let granted = granted(self.revision);
                    self.live = Some((granted.lease.id.clone(), granted.epoch, says.clone()));
                    self.answered.insert(request_id, (says, granted.clone()));
                    Ok(granted)
                }
            }),
            Action::Renew { lease, .. } => Outcome::Renewed(self.owned(&lease).map(|_| Some(TTL))),
            Action::Update {
                lease,
                epoch,
                field,
                says,
                ..
            } => Outcome::Updated(match self.owned(&lease) {
                Ok(live) if live.1 == epoch => {
                    live.2.take(field, says);
                    self.revision += 1;
                    Ok(self.revision)
                }
                Ok(_) => Err(stale_epoch()),
                Err(error) => Err(error),
            }),
            other => panic!("{other:?}"),
        }
    }

    fn owned(&mut self, lease: &Lease) -> Result<&mut (String, i64, Says), Error> {
        match &mut self.live {
            Some(live) if live.0 == lease.id => Ok(live),
            Some(_) => Err(stale_epoch()),
            None => Err(lease_unknown(Some(1))),
        }
    }
}

fn lost(action: &Action) -> Outcome {
    match action {
        Action::Register { .. } => Outcome::Registered(Err(unreachable())),
        Action::Renew { .. } => Outcome::Renewed(Err(unreachable())),
        _ => Outcome::Updated(Err(unreachable())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever went wrong before: a minute after the faults are gone, the registry holds the instance under the lease that
    /// the machine renews, and says of it what the owner wants.
    #[test]
    fn it_heals(seed in any::<u64>(), is_replicated in any::<bool>(), faults in prop::collection::vec(fault(), 0..40)) {
        let mut world = World::new(seed);
        world.machine = Machine::new(INTERVAL, 3, is_replicated, world.now);
        let mut model = Model::default();
        for fault in &faults {
            let (_, action) = world.next();
            match fault {
                Fault::Lapsed => model.live = None,
                Fault::Taken => {
                    model.revision += 1;
                    model.live = Some(("of-another".into(), model.revision, world.desired.says.clone()));
                }
                Fault::Wiped => model = Model::default(),
                _ => {}
            }
            let outcome = match fault {
                Fault::Lost => lost(&action),
                Fault::AnswerLost => {
                    let outcome = lost(&action);
                    model.perform(action);
                    outcome
                }
                _ => model.perform(action),
            };
            world.apply(outcome);
            if let Fault::Drains = fault {
                let says = &mut world.desired.says;
                says.weight += 1;
                says.status = InstanceStatus::Draining;
            }
        }

        let healed_by = world.now + Duration::from_secs(60);
        while world.now < healed_by {
            let (_, action) = world.next();
            let outcome = model.perform(action);
            world.apply(outcome);
        }
        prop_assert!(!matches!(world.machine.status(), RegistrarStatus::Retrying { .. }), "{:?}", world.machine);
        let (_, action) = world.next();
        let Action::Renew { lease, .. } = action else { panic!("{action:?}") };
        let (owner, _, says) = model.live.expect("the instance is there");
        prop_assert_eq!(owner, lease.id);
        prop_assert_eq!(says, world.desired.says);
    }
}
