//! The rules as a caller needs them: those that can concern it, and the destinations that they name, numbered. It decides where a
//! call goes; who is there is not known here.

use std::sync::Arc;

use http::HeaderMap;

use super::{
    destination::Subset,
    rule::{RouteRule, Routes},
};

/// Who calls: what rules about callers are compared with, and whose zone is near.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) service: Option<String>,
    pub(crate) zone: Option<String>,
}

/// See the module's documentation. Immutable.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Each with the number of its first destination; those of a rule are consecutive.
    rules: Vec<(RouteRule, usize)>,
    destinations: Vec<Destination>,
}

/// One part of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Destination {
    /// The rule's name.
    pub(crate) rule: Arc<str>,
    pub(crate) subset: Subset,
    pub(crate) is_forced: bool,
}

impl Table {
    pub(crate) fn new(routes: &Routes, caller: &Caller) -> Self {
        let mut table = Self::default();
        let (service, zone) = (caller.service.as_deref(), caller.zone.as_deref());
        for rule in routes.rules().iter().filter(|rule| rule.is_for(service, zone)) {
            table.rules.push((rule.clone(), table.destinations.len()));
            let name: Arc<str> = rule.name().into();
            table.destinations.extend(rule.to().subsets().map(|subset| Destination {
                rule: Arc::clone(&name),
                subset: subset.clone(),
                is_forced: rule.is_forced(),
            }));
        }
        table
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many destinations there are.
    pub(crate) fn len(&self) -> usize {
        self.destinations.len()
    }

    /// Destination `index`, which is below [`Table::len`].
    pub(crate) fn destination(&self, index: usize) -> &Destination {
        &self.destinations[index]
    }

    /// The number of the same destination here.
    pub(crate) fn position(&self, destination: &Destination) -> Option<usize> {
        self.destinations.iter().position(|other| other == destination)
    }

    /// Which destination a call goes to, by the first rule that matches it.
    pub(crate) fn decide(&self, path: &str, headers: &HeaderMap, draw: u64) -> Option<usize> {
        let (rule, first) = self.rules.iter().find(|(rule, _)| rule.matches(path, headers))?;
        Some(first + rule.to().choose(headers, draw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MethodMatch, Split};

    #[test]
    fn the_first_rule_that_matches_decides_and_others_callers_rules_are_not_there() {
        let group = |name: &str| Subset::every().group(name);
        let split = Split::try_new([(group("b1"), 0), (group("b2"), 1)]).expect("good");
        let routes = Routes::try_new([
            RouteRule::new("not ours", group("x")).caller_service("other"),
            RouteRule::new("a", group("a")).method(MethodMatch::Exact("/s/A".to_owned())),
            RouteRule::new("b", split)
                .method(MethodMatch::Prefix("/s/".to_owned()))
                .forced(),
        ])
        .expect("good rules");
        let table = Table::new(&routes, &Caller::default());
        let decided = |path| {
            let index = table.decide(path, &HeaderMap::new(), 1 << 40)?;
            let destination = table.destination(index);
            assert_eq!(table.position(destination), Some(index));
            Some((
                &*destination.rule,
                destination.subset.to_string(),
                destination.is_forced,
            ))
        };
        assert_eq!(decided("/s/A"), Some(("a", "group \"a\"".to_owned(), false)));
        assert_eq!(decided("/s/B"), Some(("b", "group \"b2\"".to_owned(), true)));
        assert_eq!(decided("/t/A"), None);
    }
}
