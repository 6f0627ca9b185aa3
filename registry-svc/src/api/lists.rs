//! ListServices, ListInstances, GetInstance: reading the durable state.

use std::{ops::Bound, sync::Arc};

use proto::registry::v1 as wire;

use super::{
    Api,
    caller::Caller,
    error::ApiError,
    instance,
    lanes::Effort,
    page::{self, Page},
    served::Encoded,
    told,
    validate::Violations,
};
use crate::{
    access::scope::Need,
    catalog::CatalogError,
    hub::{Listing, Scope, Selection, ServiceView, within},
    limits,
    model::{Instance, InstanceId, Label, Namespace, PeerKey, ServiceName, Version, Zone},
    protobuf::Writer,
};

/// What a read without a turn may look at: 0.1 ms, or some ten heartbeats.
const SHORT: usize = limits::PAGE_DEFAULT;
/// What a read looks at in one go; then it lets others have its thread first.
const AT_ONCE: usize = 1_024;

/// Who reads.
#[derive(Debug)]
pub(super) struct Reader {
    /// For what may be read.
    pub(super) caller: Caller,
    /// For its turn.
    pub(super) peer: PeerKey,
}

/// Answers ListServices.
pub(super) async fn services(
    api: &Api,
    reader: &Reader,
    request: &wire::ListServicesRequest,
) -> Result<wire::ListServicesResponse, ApiError> {
    let mut violations = Violations::default();
    let namespace = violations.check("namespace", Namespace::try_new(&request.namespace));
    let page = Page::parse(
        &mut violations,
        request.page_size,
        &request.page_token,
        namespace.as_ref(),
        1,
    );
    let after = match page.as_ref().and_then(|page| page.after.as_deref()) {
        Some([service]) => violations.check("page_token", ServiceName::try_new(service)),
        _ => None,
    };
    let (Some(namespace), Some(page)) = (namespace, page) else {
        return Err(violations.into_error());
    };
    violations.finish()?;
    reader.caller.needs(Need::Read(&namespace))?;

    let scope = Scope {
        namespace,
        service: None,
    };
    let _turn = api.lanes.read(reader.peer, effort(page.size <= SHORT)).await?;
    let now = api.clock.now().moment;
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    // One more than the page: whether there is a next one.
    let Listing {
        revision,
        confidence,
        mut found,
    } = api
        .hub
        .list(&scope, now, |view| view.services(&scope, from, page.size + 1));
    let has_more = found.len() > page.size;
    found.truncate(page.size);
    let next = found
        .last()
        .filter(|_| has_more)
        .map(|(name, _)| page::token(&scope.namespace, vec![name.to_string()]));
    Ok(wire::ListServicesResponse {
        services: found.iter().map(|(name, view)| summary(name, view)).collect(),
        next_page_token: next.unwrap_or_default(),
        revision: instance::number(revision),
        confidence: Some(instance::confidence(confidence)),
    })
}

/// Answers ListInstances, with a `ListInstancesResponse` that is encoded already.
pub(super) async fn instances(
    api: &Api,
    reader: &Reader,
    request: &wire::ListInstancesRequest,
) -> Result<Encoded, ApiError> {
    let mut violations = Violations::default();
    let selection = selection(
        &mut violations,
        &request.namespace,
        &request.service,
        request.selector.as_ref(),
    );
    let page = Page::parse(
        &mut violations,
        request.page_size,
        &request.page_token,
        selection.as_ref(),
        2,
    );
    let after = match page.as_ref().and_then(|page| page.after.as_deref()) {
        Some([service, id]) => violations
            .check("page_token", ServiceName::try_new(service))
            .zip(violations.check("page_token", InstanceId::try_new(id))),
        _ => None,
    };
    let (Some(selection), Some(page)) = (selection, page) else {
        return Err(violations.into_error());
    };
    violations.finish()?;
    let scope = &selection.scope;
    reader.caller.needs(Need::Read(&scope.namespace))?;

    let is_short = if selection.is_narrowed() {
        api.hub.look(|view| view.has_at_most(scope, SHORT))
    } else {
        page.size <= SHORT
    };
    let _turn = api.lanes.read(reader.peer, effort(is_short)).await?;
    let now = api.clock.now().moment;
    let listing = api.hub.list(scope, now, |view| {
        if selection.is_narrowed() {
            // The service of the last entry is in again: the page may have ended in the middle of it.
            let from = after
                .as_ref()
                .map_or(Bound::Unbounded, |(service, _)| Bound::Included(service));
            Candidates::Narrow(view.services(scope, from, usize::MAX))
        } else {
            // One more than the page: whether there is a next one.
            Candidates::Page(view.instances(scope, after.as_ref(), page.size + 1))
        }
    });
    let (mut to, last) = match &listing.found {
        Candidates::Page(found) => fill(found.iter().map(Some), page.size).await,
        Candidates::Narrow(services) => {
            let rest = services
                .iter()
                .flat_map(|(name, view)| view.after(within(name, after.as_ref())));
            fill(
                rest.map(|instance| selection.holds(instance).then_some(instance)),
                page.size,
            )
            .await
        }
    };
    if let Some(last) = last {
        let last = vec![last.key.service.to_string(), last.key.id.to_string()];
        to.text(field::NEXT_PAGE_TOKEN, &page::token(&selection, last));
    }
    to.number(field::REVISION, listing.revision.get());
    told::generated(&mut to, field::CONFIDENCE, &instance::confidence(listing.confidence));
    Ok(Encoded(to.finish()))
}

/// The fields of `ListInstancesResponse`, which is written by hand.
mod field {
    pub(super) const INSTANCES: u64 = 1;
    pub(super) const NEXT_PAGE_TOKEN: u64 = 2;
    pub(super) const REVISION: u64 = 3;
    pub(super) const CONFIDENCE: u64 = 4;
}

/// What a page of instances is made of, cut as far as that is quick: the state is locked meanwhile.
enum Candidates {
    /// All that was asked for.
    Page(Vec<Arc<Instance>>),
    /// Where the selected ones are to be looked for, which may be anywhere.
    Narrow(Vec<(ServiceName, Arc<ServiceView>)>),
}

/// Answers GetInstance.
pub(super) async fn get(
    api: &Api,
    reader: &Reader,
    request: &wire::GetInstanceRequest,
) -> Result<wire::GetInstanceResponse, ApiError> {
    let mut violations = Violations::default();
    let key = instance::key(&mut violations, "", &request.namespace, &request.service, &request.id);
    let Some(key) = key else {
        return Err(violations.into_error());
    };
    reader.caller.needs(Need::Read(&key.namespace))?;
    let _turn = api.lanes.read(reader.peer, Effort::Short).await?;
    let now = api.clock.now().moment;
    let scope = Scope {
        namespace: key.namespace.clone(),
        service: Some(key.service.clone()),
    };
    let listing = api.hub.list(&scope, now, |view| view.get(&key));
    let found = listing
        .found
        .ok_or_else(|| CatalogError::InstanceUnknown(key.to_string()))?;
    Ok(wire::GetInstanceResponse {
        instance: Some(instance::to_wire(&found)),
        revision: instance::number(listing.revision),
        confidence: Some(instance::confidence(listing.confidence)),
    })
}

/// What a list or a watch selects.
pub(super) fn selection(
    violations: &mut Violations,
    namespace: &str,
    service: &str,
    selector: Option<&wire::Selector>,
) -> Option<Selection> {
    let nothing = wire::Selector::default();
    let selector = selector.unwrap_or(&nothing);
    let namespace = violations.check("namespace", Namespace::try_new(namespace));
    let service = optional(violations, "service", service, ServiceName::try_new);
    let version = optional(violations, "selector.version", &selector.version, Version::try_new);
    let group = optional(violations, "selector.group", &selector.group, Label::try_new);
    let zone = optional(violations, "selector.zone", &selector.zone, Zone::try_new);
    let tag = optional(violations, "selector.tag", &selector.tag, Label::try_new);
    Some(Selection {
        scope: Scope {
            namespace: namespace?,
            service: service?,
        },
        version: version?,
        group: group?,
        zone: zone?,
        tag: tag?,
    })
}

/// Empty selects everything; `None` is a violation.
fn optional<T, E: std::fmt::Display>(
    violations: &mut Violations,
    field: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<Option<T>> {
    if text.is_empty() {
        return Some(None);
    }
    violations.check(field, parse(text)).map(Some)
}

/// Of a read that looks at no more than [`SHORT`], or may.
fn effort(is_short: bool) -> Effort {
    if is_short { Effort::Short } else { Effort::Long }
}

/// Fills a page with what is to be told of the candidates; the last entry is returned too when there is more to come.
async fn fill<'a>(
    candidates: impl Iterator<Item = Option<&'a Arc<Instance>>>,
    size: usize,
) -> (Writer, Option<&'a Arc<Instance>>) {
    let mut page = Writer::default();
    let mut entries = 0;
    let mut last = None;
    for (looked_at, candidate) in candidates.enumerate() {
        if looked_at % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let Some(instance) = candidate else { continue };
        // Full by count or by bytes, and here is one more. A single instance always fits.
        if entries == size || page.len() > limits::PAGE_BYTES {
            return (page, last);
        }
        told::put(&mut page, field::INSTANCES, instance);
        entries += 1;
        last = Some(instance);
    }
    (page, None)
}

fn summary(service: &ServiceName, view: &ServiceView) -> wire::ServiceSummary {
    let versions = view.versions().map(Version::as_str);
    wire::ServiceSummary {
        service: service.to_string(),
        instances: u32::try_from(view.len()).unwrap_or(u32::MAX),
        callable: u32::try_from(view.callable()).unwrap_or(u32::MAX),
        versions: versions
            .filter(|version| !version.is_empty())
            .take(limits::SERVICE_VERSIONS)
            .map(str::to_owned)
            .collect(),
    }
}
