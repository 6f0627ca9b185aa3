//! Random histories of a registry, its network and its disk, and that the believed set follows the real one.

use proptest::prelude::*;

use super::*;

/// A registry as simple as it can be, beside the reducer under test.
#[derive(Debug, Default)]
struct Model {
    state: BTreeMap<char, i64>,
    revision: i64,
    /// How often it has begun anew; told to the client if `named`.
    history: u32,
    named: bool,
    log: Vec<(i64, char, bool)>,
    /// Revisions up to here are no longer in the log.
    compacted: i64,
    /// Where the client's watch is; `None` while it has none.
    cursor: Option<i64>,
}

#[derive(Debug, Clone)]
enum Op {
    Put(char),
    Remove(char),
    /// The network carries so many deltas.
    Deliver(usize),
    Break,
    Connect,
    Compact,
    /// The registry restarts on an empty disk.
    LoseEverything,
    /// So many seconds.
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let id = || prop::sample::select(vec!['a', 'b', 'c', 'd']);
    prop_oneof![
        5 => id().prop_map(Op::Put),
        4 => id().prop_map(Op::Remove),
        6 => (0..4_usize).prop_map(Op::Deliver),
        2 => Just(Op::Break),
        3 => Just(Op::Connect),
        1 => Just(Op::Compact),
        1 => Just(Op::LoseEverything),
        2 => (0..40_u64).prop_map(Op::Pass),
    ]
}

impl Model {
    fn change(&mut self, id: char, put: bool) {
        if put || self.state.contains_key(&id) {
            self.revision += 1;
            self.log.push((self.revision, id, put));
            if put {
                self.state.insert(id, self.revision);
            } else {
                self.state.remove(&id);
            }
        }
    }

    fn connect(&mut self, world: &mut World) {
        let Resume { after, history } = world.reducer.resume();
        world.history = if self.named {
            format!("h{}", self.history)
        } else {
            String::new()
        };
        let changed = !history.is_empty() && history != world.history;
        if after > self.revision && !changed {
            world.reducer.broken(world.now, "REVISION_IN_FUTURE", true);
            return self.connect(world);
        }
        world.reducer.opened(world.now);
        self.cursor = Some(after);
        if after == 0 || after < self.compacted || changed {
            let step = WatchStep::Snapshot {
                revision: self.revision,
                instances: self
                    .state
                    .iter()
                    .map(|(id, revision)| instance(*id, *revision))
                    .collect(),
                cause: if changed {
                    SnapshotCause::HistoryChanged
                } else {
                    SnapshotCause::Initial
                },
                confidence: Confidence::Fresh,
            };
            world.step(step);
            self.cursor = Some(self.revision);
        }
    }

    /// The next delta that the watch is owed, as an event of one instance.
    fn deliver(&mut self, world: &mut World) -> bool {
        let Some(cursor) = self.cursor else { return false };
        let Some(&(revision, id, put)) = self.log.iter().find(|(revision, ..)| *revision > cursor) else {
            return false;
        };
        self.cursor = Some(revision);
        if put {
            world.put(revision, id);
        } else {
            world.removed(revision, &id.to_string());
        }
        true
    }

    fn run(&mut self, op: &Op, world: &mut World) {
        match *op {
            Op::Put(id) => self.change(id, true),
            Op::Remove(id) => self.change(id, false),
            Op::Deliver(n) => {
                for _ in 0..n {
                    self.deliver(world);
                }
            }
            Op::Break => {
                self.cursor = None;
                world.broken();
            }
            Op::Connect if self.cursor.is_none() => self.connect(world),
            // A watch that is open has seen, or will see, all there is: it may be behind the compaction no longer.
            Op::Compact if self.cursor.is_none_or(|cursor| cursor == self.revision) => {
                self.compacted = self.revision;
                self.log.clear();
            }
            Op::Connect | Op::Compact => {}
            Op::LoseEverything => {
                *self = Self {
                    history: self.history + 1,
                    named: self.named,
                    ..Self::default()
                };
                world.broken();
                // At once: once a history without a name has overtaken the old revision, nothing tells them apart.
                if !self.named {
                    self.connect(world);
                }
            }
            Op::Pass(seconds) => {
                world.pass(seconds);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: what is confirmed is what the registry had at the revision that the client has reached; a set never
    /// becomes empty by a mere snapshot; and once the network holds and the grace is over, the two agree.
    #[test]
    fn random_histories_end_in_the_models_set(named in any::<bool>(), ops in prop::collection::vec(op(), 0..60)) {
        let mut world = World::new();
        let mut model = Model { named, ..Model::default() };
        for op in &ops {
            let before = world.shows();
            model.run(op, &mut world);
            let after = world.shows();

            if !before.is_empty() && after.is_empty() {
                let told = matches!(op, Op::Deliver(_));
                let grace_over = matches!(op, Op::Pass(_)) && before.contains('?');
                prop_assert!(told || grace_over, "{op:?} emptied {before}");
            }
            if model.cursor == Some(model.revision) {
                let confirmed: String = world.reducer.held.iter()
                    .filter(|(_, held)| held.confirmed)
                    .map(|((_, id), _)| id.as_str())
                    .collect();
                let expected: String = model.state.keys().collect();
                prop_assert_eq!(confirmed, expected, "after {:?}", op);
            }
            let unconfirmed = world.reducer.snapshot().unconfirmed > 0;
            prop_assert_eq!(unconfirmed, world.reducer.doubt_ends.is_some());
        }

        model.run(&Op::Break, &mut world);
        model.run(&Op::Connect, &mut world);
        while model.deliver(&mut world) {}
        // Once for the watch to settle, once for the grace.
        world.pass(1);
        world.pass(GRACE.as_secs());
        let expected: String = model.state.keys().collect();
        prop_assert_eq!(world.shows(), expected);
        prop_assert!(world.is_fresh());
        let revisions: Vec<i64> = world.reducer.snapshot().instances.iter().map(|i| i.revision).collect();
        prop_assert_eq!(revisions, model.state.values().copied().collect::<Vec<_>>());
    }
}
