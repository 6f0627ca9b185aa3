//! Self-preservation: when too many fall silent together it is more likely that something between them and us has failed than
//! that all of them died, and to believe otherwise would take a service away from callers who can still reach it.
//!
//! The rule, for each group (a service in a zone) by itself:
//! 1. A window begins when an instance of the group is overdue and none is open. It lasts [`Protection::window`].
//! 2. A window's budget is [`Protection::share_percent`] of the instances that the group had when it began, but at least
//!    [`FLOOR`] instances, and at least one lease whatever its size: one process that dies is never held back.
//! 3. While what has lapsed in the window and what is overdue fit in the budget, what is overdue lapses at once.
//! 4. Otherwise the group trickles: overdue leases lapse in random order, as many as the budget allows for the part of the
//!    window that has passed ([`FLOOR`] at once). The rest is held back; a renewal saves it. A window that ends with some held
//!    back is followed by the next. The group stops to trickle when what is overdue fits in the budget again: because owners
//!    have come back, or because the trickle has ended the rest.
//! 5. No lease is held back for longer than [`Protection::max`]: then it lapses whatever the budget says.
//!
//! A lease counts in each group that it has instances in, with as many, and lapses as a whole: it is held back while any of them
//! trickles. What lapses at another replica counts too, what is deregistered or replaced never does. A group protects while it
//! has something held back.
//!
//! One pass over 100,000 overdue leases costs a few map look-ups each; passes while they are held back cost nothing but for the
//! groups whose next one is due.

mod pool;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use pool::Draw;
pub(crate) use window::Protection;
use window::{Left, Window};

use super::{LeaseTime, PULSE};
use crate::model::{Instance, LeaseId, ServiceKey, Zone};

/// Instances that may lapse in any window: small services would otherwise keep their dead, and a ghost in a service of two is
/// every second call.
pub(super) const FLOOR: usize = 2;

/// How many leases a group tries before it gives a place of its budget up until the next look: they may be too large for what is
/// left, or be held back by another group.
const TRIES: usize = 16;

/// How self-preservation stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProtectionStatus {
    /// Services of which something is held back in a zone.
    pub(crate) services: usize,
    /// Leases that are held back.
    pub(crate) held_back: usize,
    /// How often a service and zone began to protect since the start.
    pub(crate) begun: u64,
    /// How often one stopped because the last that was held back renewed or was deregistered.
    pub(crate) ended_recovered: u64,
    /// How often one stopped because the rest lapsed within the budget.
    pub(crate) ended_lapsed: u64,
    /// How often one stopped because its last had been held back for the longest time.
    pub(crate) ended_timed_out: u64,
}

/// A service in a zone.
pub(super) type GroupKey = (Arc<ServiceKey>, Zone);

/// Names a group while it has instances or a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u32);

/// Instances of a lease by group.
pub(super) type Parts = Vec<(GroupId, usize)>;

/// What was charged for a lease that lapsed: to which group, how many instances, in the window that began when.
pub(super) type Charges = Vec<(GroupId, usize, LeaseTime)>;

/// A lease that lapses, and what that is charged to.
pub(super) type Lapse = (LeaseId, Charges);

/// A lease whose deadline has come.
#[derive(Debug)]
pub(super) struct Due {
    /// Which.
    pub(super) id: LeaseId,
    /// Its instances.
    pub(super) parts: Parts,
    /// It has been held back for as long as may be.
    pub(super) at_last: bool,
}

/// All groups.
#[derive(Debug)]
pub(super) struct Groups {
    settings: Protection,
    by_key: HashMap<GroupKey, GroupId>,
    all: Vec<Group>,
    /// Names that no group has any more.
    free: Vec<GroupId>,
    /// The groups with a window, by when to look at them next.
    agenda: BTreeSet<(LeaseTime, GroupId)>,
    held: HashMap<LeaseId, Parts>,
    /// By service, in how many zones it protects.
    zones: BTreeMap<Arc<ServiceKey>, usize>,
    told: Arc<BTreeSet<ServiceKey>>,
    /// Something was released since the last look.
    released: BTreeSet<GroupId>,
    status: ProtectionStatus,
}

#[derive(Debug)]
struct Group {
    key: GroupKey,
    instances: usize,
    /// Boxed: most groups never have one.
    window: Option<Box<Window>>,
}

/// The group of an instance.
pub(super) fn key_of(instance: &Instance) -> GroupKey {
    (
        Arc::clone(instance.key.service_key()),
        instance.spec.labels.zone.clone(),
    )
}

impl GroupId {
    fn place(self) -> usize {
        self.0 as usize
    }
}

impl Groups {
    pub(super) fn new(settings: Protection) -> Self {
        Self {
            settings,
            by_key: HashMap::new(),
            all: Vec::new(),
            free: Vec::new(),
            agenda: BTreeSet::new(),
            held: HashMap::new(),
            zones: BTreeMap::new(),
            told: Arc::default(),
            released: BTreeSet::new(),
            status: ProtectionStatus::default(),
        }
    }

    pub(super) fn protecting(&self) -> Arc<BTreeSet<ServiceKey>> {
        Arc::clone(&self.told)
    }

    pub(super) fn status(&self) -> ProtectionStatus {
        ProtectionStatus {
            services: self.zones.len(),
            held_back: self.held.len(),
            ..self.status
        }
    }

    /// How long a lease may be held back.
    pub(super) fn longest(&self) -> Duration {
        self.settings.max
    }

    /// An instance has come.
    pub(super) fn came(&mut self, instance: &Instance) {
        if !self.settings.enabled {
            return;
        }
        let key = key_of(instance);
        if let Some(id) = self.by_key.get(&key) {
            self.all[id.place()].instances += 1;
            return;
        }
        let group = Group {
            key: key.clone(),
            instances: 1,
            window: None,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.all[id.place()] = group;
                id
            }
            None => {
                // There are no more groups than instances, of which there are a million at the most.
                let id = GroupId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
                self.all.push(group);
                id
            }
        };
        self.by_key.insert(key, id);
    }

    /// An instance has gone.
    pub(super) fn went(&mut self, instance: &Instance) {
        if let Some(id) = self.by_key.get(&key_of(instance)).copied() {
            self.all[id.place()].instances -= 1;
            self.forget_if_empty(id);
        }
    }

    fn forget_if_empty(&mut self, id: GroupId) {
        let group = &self.all[id.place()];
        if group.instances == 0 && group.window.is_none() {
            self.by_key.remove(&group.key);
            self.free.push(id);
        }
    }

    /// How many of these instances, all of one lease, are in which group.
    pub(super) fn parts(&self, instances: &[Arc<Instance>]) -> Parts {
        let ids = instances
            .iter()
            .filter_map(|instance| self.by_key.get(&key_of(instance)));
        let mut ids: Vec<GroupId> = ids.copied().collect();
        ids.sort_unstable();
        let mut parts = Parts::new();
        for id in ids {
            match parts.last_mut() {
                Some((last, instances)) if *last == id => *instances += 1,
                _ => parts.push((id, 1)),
            }
        }
        parts
    }

    /// An instance is about to go because it lapsed at another replica.
    pub(super) fn lapsed_elsewhere(&mut self, instance: &Instance, now: LeaseTime) {
        if let Some(id) = self.by_key.get(&key_of(instance)).copied() {
            self.open(id, now).lapsed += 1;
        }
    }

    /// A lease that was held back is not any more: its owner is alive, or it is somebody else's business.
    pub(super) fn release(&mut self, id: LeaseId) {
        self.leave(id, Left::Recovered);
    }

    /// What lapsed was taken back. It was overdue all the same: the window that began with it goes on.
    pub(super) fn discharge(&mut self, charges: &Charges) {
        for (id, instances, start) in charges {
            // By its begin too: the group may be another one by now.
            if let Some(window) = self.window(*id)
                && window.start == *start
            {
                window.lapsed = window.lapsed.saturating_sub(*instances);
            }
        }
    }

    /// When there may be something to do though no lease is due.
    pub(super) fn next_look(&self) -> Option<LeaseTime> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// Says which leases lapse now, of those that are due and of those that were held back, and what each is charged to. Those
    /// of the due that do not lapse are held back from here on: the second list.
    pub(super) fn judge(&mut self, due: Vec<Due>, now: LeaseTime, draw: u64) -> (Vec<Lapse>, Vec<LeaseId>) {
        if !self.settings.enabled {
            let all = due.into_iter().map(|due| (due.id, Charges::new()));
            return (all.collect(), Vec::new());
        }
        let mut lapses = Vec::new();
        let mut groups = self.turn_over(now);
        groups.append(&mut self.released);
        let mut fresh = Vec::with_capacity(due.len());
        for due in due {
            groups.extend(due.parts.iter().map(|(id, _)| *id));
            if due.at_last {
                self.leave(due.id, Left::TimedOut);
                lapses.push((due.id, self.charge(&due.parts, now)));
            } else {
                for (id, instances) in &due.parts {
                    let window = self.open(*id, now);
                    window.overdue += instances;
                    window.overdue_leases += 1;
                }
                fresh.push(due);
            }
        }
        // All of them before anybody lapses: who is held back is so because of the whole.
        let settings = self.settings;
        for id in &groups {
            if let Some(window) = self.window(*id) {
                window.trickles = window.overdue > 0 && !window.has_room_for_all(&settings);
            }
        }
        let mut held_back = Vec::new();
        for due in fresh {
            if self.is_free(&due.parts) {
                self.settle(&due.parts);
                lapses.push((due.id, self.charge(&due.parts, now)));
            } else {
                held_back.push(due.id);
                self.hold(due.id, due.parts);
            }
        }
        let mut draw = Draw(draw);
        for id in &groups {
            self.let_go(*id, now, &mut lapses);
            self.trickle(*id, now, &mut draw, &mut lapses);
        }
        groups.append(&mut self.released);
        for id in groups {
            self.plan(id, now);
        }
        self.tell();
        (lapses, held_back)
    }

    /// Takes from the agenda what is due, and turns windows over whose time is up.
    fn turn_over(&mut self, now: LeaseTime) -> BTreeSet<GroupId> {
        let mut groups = BTreeSet::new();
        while let Some((at, id)) = self.agenda.pop_first() {
            if at > now {
                self.agenda.insert((at, id));
                break;
            }
            let length = self.settings.window;
            let group = &mut self.all[id.place()];
            let Some(window) = &mut group.window else { continue };
            window.next = None;
            if now.since(window.start) >= length {
                if window.held.is_empty() {
                    group.window = None;
                    self.forget_if_empty(id);
                    continue;
                }
                window.start = now;
                window.base = group.instances;
                window.lapsed = 0;
            }
            groups.insert(id);
        }
        groups
    }

    /// The window of a group; one begins if none is open.
    fn open(&mut self, id: GroupId, now: LeaseTime) -> &mut Window {
        let end = now.plus(self.settings.window);
        let group = &mut self.all[id.place()];
        let (agenda, instances) = (&mut self.agenda, group.instances);
        group.window.get_or_insert_with(|| {
            let mut window = Window::new(now, instances);
            window.next = Some(end);
            agenda.insert((end, id));
            Box::new(window)
        })
    }

    fn window(&mut self, id: GroupId) -> Option<&mut Window> {
        self.all.get_mut(id.place())?.window.as_deref_mut()
    }

    /// Whether none of the groups trickles.
    fn is_free(&self, parts: &Parts) -> bool {
        parts.iter().all(|(id, _)| {
            let window = self.all[id.place()].window.as_deref();
            !window.is_some_and(|window| window.trickles)
        })
    }

    /// Whether each of the groups that trickle has room for its part.
    fn has_room(&self, parts: &Parts, now: LeaseTime) -> bool {
        parts.iter().all(|(id, instances)| {
            let window = self.all[id.place()].window.as_deref();
            window.is_none_or(|window| !window.trickles || window.has_room_for(*instances, &self.settings, now))
        })
    }

    fn hold(&mut self, id: LeaseId, parts: Parts) {
        for (group, _) in &parts {
            let group = &mut self.all[group.place()];
            let Some(window) = &mut group.window else { continue };
            if window.held.is_empty() {
                self.status.begun += 1;
                *self.zones.entry(Arc::clone(&group.key.0)).or_default() += 1;
            }
            window.held.insert(id);
        }
        self.held.insert(id, parts);
    }

    /// One that was held back is not any more. Returns its parts, if it was.
    fn leave(&mut self, id: LeaseId, left: Left) -> Option<Parts> {
        let parts = self.held.remove(&id)?;
        self.settle(&parts);
        for (group_id, _) in &parts {
            let group = &mut self.all[group_id.place()];
            let Some(window) = &mut group.window else { continue };
            window.held.remove(id);
            self.released.insert(*group_id);
            if !window.held.is_empty() {
                continue;
            }
            window.trickles = false;
            match left {
                Left::Recovered => self.status.ended_recovered += 1,
                Left::Lapsed => self.status.ended_lapsed += 1,
                Left::TimedOut => self.status.ended_timed_out += 1,
            }
            if let Some(zones) = self.zones.get_mut(&group.key.0) {
                *zones -= 1;
                if *zones == 0 {
                    self.zones.remove(&group.key.0);
                }
            }
        }
        Some(parts)
    }

    /// These are not overdue any more.
    fn settle(&mut self, parts: &Parts) {
        for (id, instances) in parts {
            if let Some(window) = self.window(*id) {
                window.overdue -= instances;
                window.overdue_leases -= 1;
            }
        }
    }

    fn charge(&mut self, parts: &Parts, now: LeaseTime) -> Charges {
        let mut charges = Charges::with_capacity(parts.len());
        for (id, instances) in parts {
            let window = self.open(*id, now);
            window.lapsed += instances;
            charges.push((*id, *instances, window.start));
        }
        charges
    }

    /// A group that trickles no more ends what it held back, but for what another group holds back too.
    fn let_go(&mut self, group: GroupId, now: LeaseTime, lapses: &mut Vec<Lapse>) {
        let Some(window) = self.window(group).filter(|window| !window.trickles) else {
            return;
        };
        for id in window.held.all().to_vec() {
            if self.held.get(&id).is_some_and(|parts| self.is_free(parts))
                && let Some(parts) = self.leave(id, Left::Lapsed)
            {
                lapses.push((id, self.charge(&parts, now)));
            }
        }
    }

    /// A group that trickles ends as many of those it holds back as it may by now.
    fn trickle(&mut self, group: GroupId, now: LeaseTime, draw: &mut Draw, lapses: &mut Vec<Lapse>) {
        let mut failed = 0;
        while failed < TRIES {
            let settings = self.settings;
            let drawn = self
                .window(group)
                .filter(|window| window.trickles && window.has_room_for(1, &settings, now))
                .and_then(|window| window.held.draw(draw));
            let Some(id) = drawn else { return };
            if !self.held.get(&id).is_some_and(|parts| self.has_room(parts, now)) {
                failed += 1;
                continue;
            }
            if let Some(parts) = self.leave(id, Left::Lapsed) {
                lapses.push((id, self.charge(&parts, now)));
            }
        }
    }

    /// Puts a group on the agenda for its next look.
    fn plan(&mut self, id: GroupId, now: LeaseTime) {
        let settings = self.settings;
        let Some(window) = self.window(id) else { return };
        // Not before the next pulse: what is allowed by then goes together.
        let next = window.next_room(&settings).max(now.plus(PULSE));
        let former = window.next.replace(next);
        if let Some(former) = former.filter(|former| *former != next) {
            self.agenda.remove(&(former, id));
        }
        self.agenda.insert((next, id));
    }

    fn tell(&mut self) {
        let services = || self.zones.keys().map(|service| &**service);
        if !self.told.iter().eq(services()) {
            self.told = Arc::new(services().cloned().collect());
        }
    }

    /// Panics where the sums are not what a recount gives.
    #[cfg(test)]
    pub(super) fn check_invariants<'a>(&self, instances: impl Iterator<Item = &'a Instance>) {
        let mut counts: HashMap<GroupKey, usize> = HashMap::new();
        for instance in instances.filter(|_| self.settings.enabled) {
            *counts.entry(key_of(instance)).or_default() += 1;
        }
        let mut windows = 0;
        let mut zones: BTreeMap<Arc<ServiceKey>, usize> = BTreeMap::new();
        for (key, id) in &self.by_key {
            let group = &self.all[id.place()];
            assert_eq!(group.key, *key);
            assert_eq!(
                group.instances,
                counts.remove(key).unwrap_or_default(),
                "{key:?}: the count of instances"
            );
            let Some(window) = &group.window else {
                assert!(group.instances > 0, "{key:?} is forgotten when it is empty");
                continue;
            };
            windows += 1;
            let next = window.next.expect("a window is on the agenda");
            assert!(self.agenda.contains(&(next, *id)), "{key:?} is on the agenda");
            let held = window.held.all();
            let overdue: usize = held
                .iter()
                .flat_map(|lease| &self.held[lease])
                .filter(|(part, _)| part == id)
                .map(|(_, instances)| instances)
                .sum();
            assert_eq!(
                (window.overdue, window.overdue_leases),
                (overdue, held.len()),
                "{key:?}: what is overdue"
            );
            assert!(!window.trickles || !held.is_empty(), "{key:?} trickles without need");
            if !held.is_empty() {
                *zones.entry(key.0.clone()).or_default() += 1;
            }
        }
        assert!(counts.is_empty(), "every group is known");
        assert_eq!(
            self.by_key.len() + self.free.len(),
            self.all.len(),
            "every name is used or free"
        );
        assert_eq!(self.agenda.len(), windows, "nothing else is on the agenda");
        assert_eq!(self.zones, zones, "what protects");
        let listed: usize = self
            .all
            .iter()
            .filter_map(|group| group.window.as_ref())
            .map(|w| w.held.all().len())
            .sum();
        assert_eq!(
            listed,
            self.held.values().map(Vec::len).sum::<usize>(),
            "who is held back"
        );
    }

    /// What may have lapsed and what has, in the present window of each group.
    #[cfg(test)]
    pub(super) fn budgets(&self) -> Vec<(GroupKey, LeaseTime, usize, usize)> {
        let windows = self
            .all
            .iter()
            .filter_map(|group| Some((group, group.window.as_ref()?)));
        windows
            .map(|(group, window)| {
                let budget = self.settings.budget(window.base);
                (group.key.clone(), window.start, budget, window.lapsed)
            })
            .collect()
    }
}
