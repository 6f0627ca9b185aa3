//! Which instances a reader means.

use crate::model::{Instance, InstanceKey, Label, Labels, Namespace, ServiceName, Version, Zone};

/// A service, or all services of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// Always one namespace.
    pub(crate) namespace: Namespace,
    /// `None`: all of the namespace.
    pub(crate) service: Option<ServiceName>,
}

/// A scope, narrowed. `None` selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Selection {
    /// Where.
    pub(crate) scope: Scope,
    /// An exact version.
    pub(crate) version: Option<Version>,
    /// A group.
    pub(crate) group: Option<Label>,
    /// A zone.
    pub(crate) zone: Option<Zone>,
    /// A tag.
    pub(crate) tag: Option<Label>,
}

impl Scope {
    /// Whether the name is within.
    pub(crate) fn holds(&self, key: &InstanceKey) -> bool {
        self.namespace == key.namespace && self.service.as_ref().is_none_or(|service| *service == key.service)
    }
}

impl Selection {
    /// Everything of a scope.
    #[cfg(test)]
    pub(crate) fn all(scope: Scope) -> Self {
        Self {
            scope,
            version: None,
            group: None,
            zone: None,
            tag: None,
        }
    }

    /// Whether it may leave out something of its scope.
    pub(crate) fn is_narrowed(&self) -> bool {
        let Self {
            scope: _,
            version,
            group,
            zone,
            tag,
        } = self;
        version.is_some() || group.is_some() || zone.is_some() || tag.is_some()
    }

    /// Whether an instance of the scope with these labels is meant.
    pub(crate) fn takes(&self, labels: &Labels) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        fits(self.version.as_ref(), &labels.version)
            && fits(self.group.as_ref(), &labels.group)
            && fits(self.zone.as_ref(), &labels.zone)
            && fits(self.tag.as_ref(), &labels.tag)
    }

    /// Whether the instance is meant.
    pub(crate) fn holds(&self, instance: &Instance) -> bool {
        self.scope.holds(&instance.key) && self.takes(&instance.spec.labels)
    }
}
