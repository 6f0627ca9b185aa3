//! ListServices, ListInstances, GetInstance: reading the durable state.

use std::{ops::Bound, sync::Arc};

use prost::Message as _;
use proto::registry::v1 as wire;

use super::{
    caller::Caller,
    error::ApiError,
    instance,
    page::{self, Page},
    validate::Violations,
};
use crate::{
    access::scope::Need,
    catalog::CatalogError,
    hub::{Hub, Listing, Scope, Selection, ServiceView, within},
    limits,
    model::{Instance, InstanceId, Label, Moment, Namespace, ServiceName, Version, Zone},
};

/// Answers ListServices.
pub(super) fn services(
    hub: &Hub,
    now: Moment,
    caller: &Caller,
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
    caller.needs(Need::Read(&namespace))?;

    let scope = Scope {
        namespace,
        service: None,
    };
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    // One more than the page: whether there is a next one.
    let Listing {
        revision,
        confidence,
        mut found,
    } = hub.list(&scope, now, |view| view.services(&scope, from, page.size + 1));
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

/// Answers ListInstances.
pub(super) fn instances(
    hub: &Hub,
    now: Moment,
    caller: &Caller,
    request: &wire::ListInstancesRequest,
) -> Result<wire::ListInstancesResponse, ApiError> {
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
    caller.needs(Need::Read(&scope.namespace))?;

    let listing = hub.list(scope, now, |view| {
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
    let (instances, last) = match &listing.found {
        Candidates::Page(found) => fill(found.iter(), page.size),
        Candidates::Narrow(services) => {
            let rest = services
                .iter()
                .flat_map(|(name, view)| view.after(within(name, after.as_ref())));
            fill(rest.filter(|instance| selection.holds(instance)), page.size)
        }
    };
    let next = last.map(|last| page::token(&selection, vec![last.key.service.to_string(), last.key.id.to_string()]));
    Ok(wire::ListInstancesResponse {
        instances,
        next_page_token: next.unwrap_or_default(),
        revision: instance::number(listing.revision),
        confidence: Some(instance::confidence(listing.confidence)),
    })
}

/// What a page of instances is made of, cut as far as that is quick: the state is locked meanwhile.
enum Candidates {
    /// All that was asked for.
    Page(Vec<Arc<Instance>>),
    /// Where the selected ones are to be looked for, which may be anywhere.
    Narrow(Vec<(ServiceName, Arc<ServiceView>)>),
}

/// Answers GetInstance.
pub(super) fn get(
    hub: &Hub,
    now: Moment,
    caller: &Caller,
    request: &wire::GetInstanceRequest,
) -> Result<wire::GetInstanceResponse, ApiError> {
    let mut violations = Violations::default();
    let key = instance::key(&mut violations, "", &request.namespace, &request.service, &request.id);
    let Some(key) = key else {
        return Err(violations.into_error());
    };
    caller.needs(Need::Read(&key.namespace))?;
    let scope = Scope {
        namespace: key.namespace.clone(),
        service: Some(key.service.clone()),
    };
    let listing = hub.list(&scope, now, |view| view.get(&key));
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

/// Fills a page; the last entry is returned too when there is more to come.
fn fill<'a>(
    rest: impl Iterator<Item = &'a Arc<Instance>>,
    size: usize,
) -> (Vec<wire::Instance>, Option<&'a Arc<Instance>>) {
    let mut page = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for instance in rest {
        // Full by count or by bytes, and here is one more. A single instance always fits.
        if page.len() == size || bytes > limits::PAGE_BYTES {
            return (page, last);
        }
        let told = instance::to_wire(instance);
        bytes += told.encoded_len();
        page.push(told);
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
