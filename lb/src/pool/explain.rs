//! What the pool knows, for explanations, the event of a pick and metrics: read under the book's lock, so that the book and the
//! ready set are of the same moment. It changes nothing.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::{
    Attributes, Backend, Pool, Slot, Wish,
    ready::{Member, ReadySet},
};
use crate::{
    EjectionReason, EndpointState,
    endpoint::{Counts, Endpoint, EndpointView},
    explain::{
        Explanation, Filter, InstanceView, MOST_LISTED, Removed, described,
        note::{MOST_CANDIDATES, PickNote},
    },
    pick::Draw,
    route::Route,
};

/// An instance that the discovery knows and nobody may call, with the reason.
#[derive(Clone, Debug)]
pub(crate) struct PassedOver {
    pub(crate) instance_id: Arc<str>,
    pub(crate) address: String,
    pub(crate) weight: u32,
    pub(crate) attributes: Arc<Attributes>,
    pub(crate) removed: Removed,
}

/// The numbers of all endpoints at one moment.
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) members: Vec<Counted>,
    /// How many are known and take no calls.
    pub(crate) passed_over: usize,
}

/// Those of one.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) instance_id: Arc<str>,
    pub(crate) state: EndpointState,
    pub(crate) in_flight: u32,
    pub(crate) counts: Counts,
}

impl Pool {
    /// Whom a call could go to, and why not to the others.
    pub(crate) fn explain(&self, target: &str, route: Option<&Route>) -> Explanation {
        let book = self.book();
        let ready = self.ready.load();
        let routed = ready.view(route);
        let now = self.fleet.tick(Instant::now());
        let (members, all) = (Members::of(&routed), Members::of(ready.all()));
        let mut instances = Vec::with_capacity(book.slots.len());
        for slot in book.slots.values() {
            let member = members.get(&slot.endpoint);
            let latency = slot.endpoint.load().latency(now);
            instances.push(InstanceView {
                weight: slot.backend.weight,
                effective_weight: member.map(|member| member.weight),
                connections: slot.connections.len(),
                expected_latency_us: latency.map(|micros| micros as u64),
                removed: filter(slot, member, &all).map(|by| Removed::new(by, slot.why(by, route))),
                ejected_for_ms: slot.ejected_for_ms(),
                ..of_endpoint(slot.view(), &slot.backend.attributes)
            });
        }
        // The candidates first, and otherwise as the book has them: by id.
        instances.sort_by_key(|instance| !instance.is_candidate());
        instances.extend(book.passed_over.iter().map(|passed| InstanceView {
            instance_id: passed.instance_id.to_string(),
            address: passed.address.clone(),
            weight: passed.weight,
            removed: Some(passed.removed.clone()),
            ..of(&passed.attributes)
        }));
        instances.extend(book.leaving.iter().map(|endpoint| InstanceView {
            removed: Some(Removed::new(
                Filter::Removal,
                "no longer in the set, finishes its calls",
            )),
            ..of_endpoint(endpoint.view(), &Attributes::default())
        }));
        let candidates = instances.iter().filter(|instance| instance.is_candidate()).count();
        let more = instances.len().saturating_sub(MOST_LISTED);
        instances.truncate(MOST_LISTED);
        let (policy, criterion) = described(&book.policy);
        Explanation {
            target: target.to_owned(),
            policy: policy.to_owned(),
            criterion: criterion.to_owned(),
            discovery: (&book.origin).into(),
            route: route.map_or_else(|| Route::default().to_string(), ToString::to_string),
            known: book.known,
            candidates,
            instances,
            more,
        }
    }

    /// What a pick that has chosen `chosen` had to choose from. The call that was picked for is counted already, and left out.
    /// `drawn` are the random bits that it was picked by.
    pub(crate) fn note(&self, chosen: &Endpoint, wish: Wish<'_>, drawn: Option<u64>) -> PickNote {
        let book = self.book();
        let ready = self.ready.load();
        let routed = ready.view(wish.route);
        let now = self.fleet.tick(Instant::now());
        let mut note = PickNote::new(&book.policy, chosen);
        let is_chosen = |member: &&Member| std::ptr::eq(Arc::as_ptr(&member.endpoint), chosen);
        // The chosen one is always among those that are listed.
        let first = routed.members().iter().filter(is_chosen);
        let others = routed.members().iter().filter(|member| !is_chosen(member));
        for member in first.chain(others).take(MOST_CANDIDATES) {
            let endpoint = &*member.endpoint;
            let own = u32::from(std::ptr::eq(endpoint, chosen));
            let in_flight = endpoint.in_flight().saturating_sub(own);
            note.considers(endpoint, member.weight, in_flight, endpoint.load().latency(now));
        }
        if let Some(bits) = drawn {
            let draw = Draw {
                bits,
                now,
                key: wish.key,
            };
            let own = routed.members().iter().position(|member| is_chosen(&member));
            for (index, cost) in ready.policy().compared(&*routed, own, draw) {
                note.compares(&routed.members()[index].endpoint, cost);
            }
        }
        let (members, all) = (Members::of(&routed), Members::of(ready.all()));
        for slot in book.slots.values() {
            match filter(slot, members.get(&slot.endpoint), &all) {
                None => note.candidates += 1,
                // Full now, perhaps by this very call.
                Some(Filter::Room) if std::ptr::eq(Arc::as_ptr(&slot.endpoint), chosen) => note.candidates += 1,
                Some(by) => note.removes(by, &slot.endpoint.instance_id),
            }
        }
        for passed in &book.passed_over {
            note.removes(passed.removed.by, &passed.instance_id);
        }
        note
    }

    pub(crate) fn views(&self) -> Vec<EndpointView> {
        let book = self.book();
        let present = book.slots.values().map(Slot::view);
        let leaving = book.leaving.iter().map(|endpoint| endpoint.view());
        present.chain(leaving).collect()
    }

    pub(crate) fn census(&self) -> Census {
        let book = self.book();
        let present = book.slots.values().map(|slot| (&slot.endpoint, slot.view().state));
        let leaving = book.leaving.iter().map(|endpoint| (endpoint, endpoint.view().state));
        let counted = present.chain(leaving).map(|(endpoint, state)| Counted {
            instance_id: Arc::clone(&endpoint.instance_id),
            state,
            in_flight: endpoint.in_flight(),
            counts: endpoint.counts(),
        });
        Census {
            passed_over: book.passed_over.len(),
            members: counted.collect(),
        }
    }
}

/// Members by endpoint.
struct Members<'a>(HashMap<*const Endpoint, &'a Member>);

impl<'a> Members<'a> {
    fn of(set: &'a ReadySet) -> Self {
        let by_endpoint = set.members().iter();
        Self(
            by_endpoint
                .map(|member| (Arc::as_ptr(&member.endpoint), member))
                .collect(),
        )
    }

    fn get(&self, endpoint: &Arc<Endpoint>) -> Option<&'a Member> {
        self.0.get(&Arc::as_ptr(endpoint)).copied()
    }
}

impl PassedOver {
    /// One that would take calls, of which this caller shall make none.
    pub(super) fn outside_subset(backend: &Backend) -> Self {
        Self {
            instance_id: Arc::clone(&backend.key.instance_id),
            address: backend.key.address.to_string(),
            weight: backend.weight,
            attributes: Arc::clone(&backend.attributes),
            removed: Removed::new(Filter::Subset, "this caller is to be connected to others"),
        }
    }
}

impl Slot {
    fn view(&self) -> EndpointView {
        let mut view = self.endpoint.view();
        view.ejection = self.cared.standing.ejection(Instant::now());
        if view.ejection.is_some() && view.state == EndpointState::Ready {
            view.state = EndpointState::Ejected;
        }
        if !self.health.is_well() && view.state != EndpointState::Idle && self.is_connected() {
            view.state = EndpointState::Unhealthy;
        }
        view
    }

    fn ejected_for_ms(&self) -> Option<u64> {
        let ejection = self.cared.standing.ejection(Instant::now())?;
        u64::try_from(ejection.remaining.as_millis()).ok()
    }

    /// What there is to say of the filter that removes it.
    fn why(&self, by: Filter, route: Option<&Route>) -> String {
        match by {
            Filter::Route => {
                let tag = &self.backend.attributes.tag;
                let wanted = route.and_then(Route::tag).unwrap_or_default();
                match route {
                    _ if !tag.is_empty() && tag != wanted => format!("it is tagged {tag:?}, and the call is not"),
                    Some(route) => format!("the call goes by {route}"),
                    None => "the zones and the registries of the others go before its own".to_owned(),
                }
            }
            Filter::Room => format!(
                "{} calls under way, and its {} connections allow no more",
                self.endpoint.in_flight(),
                self.connections.len()
            ),
            Filter::Connection => {
                let view = self.endpoint.view();
                let state = match view.state {
                    EndpointState::Idle => "not dialled while nobody calls",
                    EndpointState::Connecting => "a connect is under way",
                    EndpointState::BackingOff => "will be dialled again after a pause",
                    // The driver is about to show something else.
                    EndpointState::Ready
                    | EndpointState::Ejected
                    | EndpointState::Unhealthy
                    | EndpointState::Draining => "its connection has just ended",
                };
                match view.last_error {
                    Some(error) => format!("{state}: {error}"),
                    None => state.to_owned(),
                }
            }
            Filter::Health => self
                .health
                .why_not()
                .unwrap_or_else(|| "it has just become well".to_owned()),
            Filter::Ejection => match self.cared.standing.ejection(Instant::now()) {
                Some(ejection) => {
                    let why = match ejection.why {
                        EjectionReason::ConsecutiveFailures => "it failed several times in a row",
                        EjectionReason::SuccessRate => "it has far less success than the others",
                        EjectionReason::FailurePercentage => "it fails too large a share of its calls",
                        EjectionReason::ProbeFailed => "it failed the call that it was to prove itself by",
                    };
                    match ejection.remaining.as_secs_f32() {
                        0.0 => format!("{why}; waits to prove itself by one call"),
                        seconds => format!("{why}; for {seconds:.0} s more"),
                    }
                }
                None => "out of service".to_owned(),
            },
            _ => "not in the ready set".to_owned(),
        }
    }
}

/// What keeps the next call from a slot, if anything does.
fn filter(slot: &Slot, member: Option<&Member>, all: &Members<'_>) -> Option<Filter> {
    match member {
        Some(member) if !member.is_open() => Some(Filter::Ejection),
        Some(member) if member.has_room() => None,
        Some(_) => Some(Filter::Room),
        None if slot.connections.is_empty() => Some(Filter::Connection),
        None if !slot.is_callable() => Some(Filter::Health),
        None if all.get(&slot.endpoint).is_some_and(Member::is_open) => Some(Filter::Route),
        // Connected, and not even in the whole of the ready set.
        None if slot.backend.weight > 0 => Some(Filter::Ejection),
        None => Some(Filter::Weight),
    }
}

fn of_endpoint(view: EndpointView, attributes: &Attributes) -> InstanceView {
    InstanceView {
        instance_id: view.instance_id,
        address: view.address,
        state: Some(view.state),
        in_flight: view.in_flight,
        served: view.served,
        failed: view.failed,
        last_error: view.last_error,
        ..of(attributes)
    }
}

fn of(attributes: &Attributes) -> InstanceView {
    InstanceView {
        version: attributes.version.clone(),
        zone: attributes.zone.clone(),
        group: attributes.group.clone(),
        tag: attributes.tag.clone(),
        ..InstanceView::default()
    }
}
