//! The ready set as calls with different routes see it. Each view is built once for each ready set, by the first call that needs it
//! (the usual one at once), and then read without a lock. What a route asks is `route`'s; who is next is `pick`'s.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::ready::{Member, ReadySet};
use crate::{
    Policy,
    route::{Destination, Refine, Route, Table, Weighed, refine},
};

/// Views that are kept for one ready set, some hundred bytes each while they are not used. Those beyond are built for every call:
/// it takes 64 tags and as many destinations to get there.
const MAX_KEPT: usize = 4096;

/// By what calls are routed. Changes seldom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routing {
    pub(crate) table: Arc<Table>,
    pub(crate) refine: Arc<Refine>,
}

/// The ready set and its views: what the pool publishes.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    all: ReadySet,
    routing: Routing,
    policy: Policy,
    /// Fewer than half of those that should be ready are.
    is_panic: bool,
    /// Of the ready instances, in order.
    tags: Vec<String>,
    /// By destination (0: none) and tag (0: untagged), the latter running faster. Empty when nothing distinguishes instances:
    /// then every view is the whole.
    kept: Box<[OnceLock<ReadySet>]>,
    nobody: ReadySet,
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

    /// `expected`: how many instances should be ready. The view of calls without a route, that is of most, is built here and not
    /// by the first of them; it is the one that is prepared for `policy`, which may take long.
    pub(crate) fn new(all: ReadySet, routing: &Routing, expected: usize, policy: &Policy, former: &Self) -> Self {
        let mut tags: Vec<String> = all
            .members()
            .iter()
            .map(|member| &member.attributes.tag)
            .filter(|tag| !tag.is_empty())
            .cloned()
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let is_split = !tags.is_empty() || !routing.table.is_empty() || routing.refine.is_active();
        let kept = if is_split {
            let views = (routing.table.len() + 1).saturating_mul(tags.len() + 1);
            std::iter::repeat_with(OnceLock::new)
                .take(views.min(MAX_KEPT))
                .collect()
        } else {
            Box::default()
        };
        let mut ready = Self {
            is_panic: all.members().len() * 2 < expected,
            all,
            routing: routing.clone(),
            policy: policy.clone(),
            tags,
            kept,
            nobody: ReadySet::default(),
        };
        let former = former.view(None);
        match ready.kept.first() {
            None => ready.all = ready.all.prepared_for(policy, &former),
            // Nobody else can have set it yet.
            Some(usual) => drop(usual.set(ready.build(None, "").prepared_for(policy, &former))),
        }
        ready
    }

    /// Whatever their routes.
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
        match route.filter(|route| !route.is_plain()) {
            None => self.strict(None, 0),
            Some(route) => self.routed(route),
        }
    }

    fn routed(&self, route: &Route) -> View<'_> {
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
        // The narrowest first: by rule and tag, by rule alone, by tag alone, by neither.
        for ruled in [ruled, None] {
            if let Some(tag) = tag {
                let view = self.strict(ruled, tag);
                if !view.members().is_empty() {
                    return view;
                }
            }
            if tag != Some(0) && !route.is_tag_forced() {
                let view = self.strict(ruled, 0);
                if !view.members().is_empty() {
                    return view;
                }
            }
            if ruled.is_none() || route.is_rule_forced() {
                break;
            }
        }
        View::Kept(&self.nobody)
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
            Some(cell) => View::Kept(cell.get_or_init(build)),
            None => View::Made(Box::new(build())),
        }
    }

    fn build(&self, destination: Option<&Destination>, tag: &str) -> ReadySet {
        let is_in = |member: &&Member| {
            let admitted = destination.is_none_or(|destination| destination.subset.admits(&member.attributes));
            admitted && member.attributes.tag == tag
        };
        let members: Vec<&Member> = self.all.members().iter().filter(is_in).collect();
        let weighed: Vec<Weighed<'_>> = members.iter().map(|member| member.weighed()).collect();
        let members = members.into_iter().cloned();
        match refine(&self.routing.refine, &weighed, self.is_panic) {
            None => self.all.narrowed(members),
            Some(weights) => {
                let shifted = members.zip(weights);
                self.all
                    .narrowed(shifted.map(|(member, weight)| Member { weight, ..member }))
            }
        }
    }
}
