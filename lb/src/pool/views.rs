//! The ready set as calls with different routes see it. Each view is built once for each ready set, by the first call that needs it
//! (the usual one at once), and then read without a lock. What a route asks is `route`'s; who is next is `pick`'s.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::ready::{Admission, Member, ReadySet};
use crate::{
    Policy,
    outlier::panics,
    pick::Maglev,
    route::{Destination, Refine, Route, Table, Weighed, refine},
};

/// Views that are kept for one ready set, some hundred bytes each while they are not used. Those beyond are built for every call:
/// it takes 64 tags and as many destinations to get there.
const MAX_KEPT: usize = 4096;

/// Views that have a table for consistent hashing, 128 KiB each; the usual one is among them. To make one takes milliseconds, and
/// while newcomers come to their weight each is made anew ten times a second. Calls of other views are kept together all the same,
/// by a hash of every instance (rendezvous) in place of a look into the table.
const MAX_TABLES: usize = 8;

/// By what calls are routed. Changes seldom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routing {
    pub(crate) table: Arc<Table>,
    pub(crate) refine: Arc<Refine>,
}

/// What a ready set and its views are made by.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) routing: &'a Routing,
    /// How many instances should be ready.
    pub(crate) expected: usize,
    /// With fewer in service than so many percent of a view, its calls go to all of it.
    pub(crate) panic_threshold_percent: u8,
}

/// The ready set and its views: what the pool publishes.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Those out of service included.
    all: ReadySet,
    routing: Routing,
    policy: Policy,
    panic_threshold_percent: u8,
    /// Fewer than half of those that should be ready are.
    is_panic: bool,
    /// Of the ready instances, in order.
    tags: Vec<String>,
    /// By destination (0: none) and tag (0: untagged), the latter running faster. Empty when nothing distinguishes instances:
    /// then every view is the whole.
    kept: Box<[OnceLock<ReadySet>]>,
    /// How many of them have a table, and those of the set before this one.
    tables: AtomicUsize,
    former_tables: Vec<Arc<Maglev>>,
    nobody: ReadySet,
}

/// Where calls of a route go.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) view: View<'a>,
    /// Those that would have gone before it, had anybody there been in service.
    pub(crate) passed_over: Vec<View<'a>>,
}

/// A view, kept or not.
#[derive(Debug)]
pub(crate) enum View<'a> {
    Kept(&'a ReadySet),
    Made(Box<ReadySet>),
}

impl Deref for View<'_> {
    type Target = ReadySet;

    fn deref(&self) -> &ReadySet {
        match self {
            Self::Kept(view) => view,
            Self::Made(view) => view,
        }
    }
}

impl Ready {
    /// Nobody, from whom calls choose by `policy`.
    pub(crate) fn empty(policy: &Policy) -> Self {
        Self {
            policy: policy.clone(),
            ..Self::default()
        }
    }

    /// The view of calls without a route, that is of most, is built here and not by the first of them; so are those that had a table
    /// in the `former` set, since to make one may take long.
    pub(crate) fn new(all: ReadySet, terms: &Terms<'_>, former: &Self) -> Self {
        let routing = terms.routing;
        let mut tags: Vec<String> = all
            .members()
            .iter()
            .map(|member| &member.attributes.tag)
            .filter(|tag| !tag.is_empty())
            .cloned()
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let in_service = all.members().iter().filter(|member| member.admission == Admission::All);
        let in_service = in_service.count();
        let is_split = !tags.is_empty()
            || !routing.table.is_empty()
            || routing.refine.is_active()
            || in_service < all.members().len();
        let kept = if is_split {
            let views = (routing.table.len() + 1).saturating_mul(tags.len() + 1);
            std::iter::repeat_with(OnceLock::new)
                .take(views.min(MAX_KEPT))
                .collect()
        } else {
            Box::default()
        };
        let with_tables = former.kept.iter().enumerate().filter_map(|(at, cell)| {
            let table = cell.get()?.table()?;
            Some((at, Arc::clone(table)))
        });
        let with_tables: Vec<(usize, Arc<Maglev>)> = with_tables.collect();
        let mut former_tables: Vec<Arc<Maglev>> = with_tables.iter().map(|(_, table)| Arc::clone(table)).collect();
        former_tables.extend(former.all.table().cloned());
        let mut ready = Self {
            is_panic: in_service * 2 < terms.expected,
            all,
            routing: routing.clone(),
            policy: terms.policy.clone(),
            panic_threshold_percent: terms.panic_threshold_percent,
            tags,
            kept,
            tables: AtomicUsize::new(0),
            former_tables,
            nobody: ReadySet::default(),
        };
        if ready.kept.is_empty() {
            let all = std::mem::take(&mut ready.all);
            ready.all = ready.prepared(all);
            return ready;
        }
        ready.strict(None, 0);
        if Arc::ptr_eq(&ready.routing.table, &former.routing.table) && ready.tags == former.tags {
            let columns = ready.tags.len() + 1;
            for (at, _) in with_tables {
                let row = (at / columns).checked_sub(1);
                let ruled = row.map(|row| (ready.routing.table.destination(row), Some(row)));
                ready.strict(ruled, at % columns);
            }
        }
        ready
    }

    fn prepared(&self, set: ReadySet) -> ReadySet {
        set.prepared_for(&self.policy, |of| {
            if self.tables.fetch_add(1, Relaxed) >= MAX_TABLES {
                return None;
            }
            let former = self.former_tables.iter().find(|table| table.is_of(&of));
            former.cloned().or_else(|| Maglev::new(of).map(Arc::new))
        })
    }

    /// Whatever their routes, and those out of service.
    pub(crate) fn all(&self) -> &ReadySet {
        &self.all
    }

    /// How calls choose from any of the views.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.routing.table
    }

    /// Those that a call of that route may go to. Empty when the route has nobody.
    pub(crate) fn view(&self, route: Option<&Route>) -> View<'_> {
        self.find(route).view
    }

    /// As [`Ready::view`], with what was passed over.
    pub(crate) fn find(&self, route: Option<&Route>) -> Found<'_> {
        match route.filter(|route| !route.is_plain()) {
            None => Found {
                view: self.strict(None, 0),
                passed_over: Vec::new(),
            },
            Some(route) => self.routed(route),
        }
    }

    fn routed(&self, route: &Route) -> Found<'_> {
        let tag = match route.tag().filter(|tag| !tag.is_empty()) {
            None => Some(0),
            Some(tag) => self
                .tags
                .binary_search_by(|is| is.as_str().cmp(tag))
                .ok()
                .map(|at| at + 1),
        };
        let ruled = route
            .ruled()
            .map(|(table, index)| (table.destination(index), self.number(table, index)));
        let untagged = (tag != Some(0) && !route.is_tag_forced()).then_some(0);
        // Where nobody is in service: a call that may go elsewhere does so.
        let mut last_resorts: Vec<View<'_>> = Vec::new();
        // The narrowest first: by rule and tag, by rule alone, by tag alone, by neither.
        for ruled in [ruled, None] {
            for tag in [tag, untagged].into_iter().flatten() {
                let view = self.strict(ruled, tag);
                if view.is_last_resort() {
                    last_resorts.push(view);
                } else if !view.members().is_empty() {
                    return Found {
                        view,
                        passed_over: last_resorts,
                    };
                }
            }
            if ruled.is_none() || route.is_rule_forced() {
                break;
            }
        }
        let view = match last_resorts.is_empty() {
            true => View::Kept(&self.nobody),
            // The narrowest.
            false => last_resorts.remove(0),
        };
        Found {
            view,
            passed_over: last_resorts,
        }
    }

    /// The number of a destination here, if it has one: rules may have changed since the route was decided.
    fn number(&self, table: &Arc<Table>, index: usize) -> Option<usize> {
        if Arc::ptr_eq(table, &self.routing.table) {
            return Some(index);
        }
        self.routing.table.position(table.destination(index))
    }

    /// Those of exactly that destination and tag.
    fn strict(&self, ruled: Option<(&Destination, Option<usize>)>, tag: usize) -> View<'_> {
        if self.kept.is_empty() && ruled.is_none() {
            return View::Kept(&self.all);
        }
        let row = match ruled {
            None => Some(0),
            Some((_, number)) => number.map(|number| number + 1),
        };
        let cell = row.and_then(|row| self.kept.get(row * (self.tags.len() + 1) + tag));
        let build = || {
            let tag = tag.checked_sub(1).map_or("", |at| self.tags[at].as_str());
            self.build(ruled.map(|(destination, _)| destination), tag)
        };
        match cell {
            Some(cell) => View::Kept(cell.get_or_init(|| self.prepared(build()))),
            None => View::Made(Box::new(build())),
        }
    }

    fn build(&self, destination: Option<&Destination>, tag: &str) -> ReadySet {
        let is_in = |member: &&Member| {
            let admitted = destination.is_none_or(|destination| destination.subset.admits(&member.attributes));
            admitted && member.attributes.tag == tag
        };
        let members: Vec<&Member> = self.all.members().iter().filter(is_in).collect();
        let in_service = members
            .iter()
            .filter(|member| member.admission == Admission::All)
            .count();
        // Of those that a call may go to: a rule whose instances are all ejected has nobody else, however many others are well.
        let everybody = panics(in_service, members.len(), self.panic_threshold_percent);
        let admission = |member: &Member| match (member.admission, everybody) {
            (Admission::Nobody, false) => None,
            (Admission::Nobody, true) => Some(Admission::All),
            (Admission::OneToProve, true) => Some(Admission::AllAndOneToProve),
            (as_it_is, _) => Some(as_it_is),
        };
        let admitted = members.iter().filter_map(|member| {
            let admission = admission(member)?;
            Some(Member {
                admission,
                ..(*member).clone()
            })
        });
        let admitted: Vec<Member> = admitted.collect();
        let weighed: Vec<Weighed<'_>> = admitted.iter().map(Member::weighed).collect();
        let set = match refine(&self.routing.refine, &weighed, self.is_panic) {
            None => self.all.narrowed(admitted.into_iter()),
            Some(weights) => {
                let shifted = admitted.into_iter().zip(weights);
                self.all
                    .narrowed(shifted.map(|(member, weight)| Member { weight, ..member }))
            }
        };
        set.marked_last_resort(in_service == 0 && !members.is_empty())
    }
}
