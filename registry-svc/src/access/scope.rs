//! What somebody may do: scopes, and whether one covers what is asked for. Pure.
//!
//! Names are compared as a whole. `*` stands for every name and is nothing else's prefix: a grant on `a` says nothing about `ab`,
//! and there are no ranges whose end could be misjudged (etcd's advisories of 2026 are about those).

use std::{fmt, str::FromStr};

use crate::model::{Namespace, ServiceName};

/// The namespace that is meant where a scope names none: the same as everywhere else.
const DEFAULT_NAMESPACE: &str = "default";

/// One thing that may be done, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// See every service of a namespace: list, get, watch.
    Read(Names<Namespace>),
    /// Register instances of a service, and keep, change and end those whose lease secret one has.
    Register(Names<Namespace>, Names<ServiceName>),
    /// Lay decisions over instances of a namespace. Includes reading it: who decides has to see.
    Operate(Names<Namespace>),
}

/// One name, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Names<N> {
    /// This one.
    One(N),
    /// `*`
    All,
}

/// What a call needs, with what its body named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need<'a> {
    /// To read a namespace.
    Read(&'a Namespace),
    /// To act as a service.
    Register(&'a Namespace, &'a ServiceName),
    /// To decide about a namespace.
    Operate(&'a Namespace),
    /// To decide about everything.
    OperateAll,
}

/// What kind of scope a call needs, before its body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// [`Scope::Read`], or what includes it.
    Read,
    /// [`Scope::Register`].
    Register,
    /// [`Scope::Operate`].
    Operate,
}

impl<N: PartialEq> Names<N> {
    fn covers(&self, name: &N) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::All => true,
        }
    }
}

impl Scope {
    /// Whether it allows what is needed.
    pub(crate) fn covers(&self, need: Need<'_>) -> bool {
        match (self, need) {
            (Self::Read(namespaces) | Self::Operate(namespaces), Need::Read(namespace)) => namespaces.covers(namespace),
            (Self::Register(namespaces, services), Need::Register(namespace, service)) => {
                namespaces.covers(namespace) && services.covers(service)
            }
            (Self::Operate(namespaces), Need::Operate(namespace)) => namespaces.covers(namespace),
            (Self::Operate(namespaces), Need::OperateAll) => *namespaces == Names::All,
            _ => false,
        }
    }

    /// Whether it allows anything of that kind anywhere.
    pub(crate) fn is_of(&self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Self::Read(_) | Self::Operate(_), Kind::Read)
                | (Self::Register(..), Kind::Register)
                | (Self::Operate(_), Kind::Operate)
        )
    }
}

/// The scope that would do, as `tessera token issue --scope` takes it.
impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(namespace) => write!(f, "read:{namespace}"),
            Self::Register(namespace, service) => write!(f, "register:{namespace}/{service}"),
            Self::Operate(namespace) => write!(f, "operate:{namespace}"),
            Self::OperateAll => f.write_str("operate:*"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Register => "register",
            Self::Operate => "operate",
        })
    }
}

impl<N: fmt::Display> fmt::Display for Names<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => name.fmt(f),
            Self::All => f.write_str("*"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(namespaces) => write!(f, "read:{namespaces}"),
            Self::Register(namespaces, services) => write!(f, "register:{namespaces}/{services}"),
            Self::Operate(namespaces) => write!(f, "operate:{namespaces}"),
        }
    }
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no scope: give read, read:NAMESPACE, register:NAMESPACE/SERVICE, operate or operate:NAMESPACE; `*` is every \
     namespace or service, and without a namespace `default` is meant"
)]
pub struct ScopeError(String);

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let wrong = || ScopeError(text.chars().take(128).collect());
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        let namespace = |name: &str| names(name, Namespace::try_new).ok_or_else(wrong);
        match kind {
            "read" => Ok(Self::Read(namespace(rest.unwrap_or(DEFAULT_NAMESPACE))?)),
            "operate" => Ok(Self::Operate(namespace(rest.unwrap_or(DEFAULT_NAMESPACE))?)),
            "register" => {
                let (in_namespace, service) = rest.and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
                let service = names(service, ServiceName::try_new).ok_or_else(wrong)?;
                Ok(Self::Register(namespace(in_namespace)?, service))
            }
            _ => Err(wrong()),
        }
    }
}

fn names<N, E>(text: &str, parse: impl Fn(&str) -> Result<N, E>) -> Option<Names<N>> {
    match text {
        "*" => Some(Names::All),
        // The model reads an empty namespace as the default one; in a grant it is more likely a mistake.
        "" => None,
        name => parse(name).ok().map(Names::One),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Namespace {
        Namespace::try_new(name).expect("a namespace")
    }

    fn service(name: &str) -> ServiceName {
        ServiceName::try_new(name).expect("a service")
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        for (text, full) in [
            ("read", "read:default"),
            ("read:a", "read:a"),
            ("read:*", "read:*"),
            ("register:a/b", "register:a/b"),
            ("register:*/b", "register:*/b"),
            ("register:a/*", "register:a/*"),
            ("operate", "operate:default"),
            ("operate:*", "operate:*"),
        ] {
            let scope: Scope = text.parse().expect(text);
            assert_eq!(scope.to_string(), full);
            assert_eq!(full.parse(), Ok(scope));
        }
        for wrong in [
            "",
            "admin",
            "READ",
            "read:",
            "read:A",
            "read:a*",
            "read:**",
            "read:a/b",
            "register",
            "register:a",
            "register:a/",
            "register:/b",
            "register:a/b/c",
            "register:a/b*",
            "operate:a,b",
            " read",
        ] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_scope_covers_what_it_names_and_nothing_beside_it() {
        let (a, ab, b) = (namespace("a"), namespace("ab"), namespace("b"));
        let (x, xy) = (service("x"), service("xy"));
        let check = |scope: &str, need: Need<'_>, expected: bool| {
            let parsed: Scope = scope.parse().expect(scope);
            assert_eq!(parsed.covers(need), expected, "{scope} {need:?}");
        };
        check("read:a", Need::Read(&a), true);
        check("read:a", Need::Read(&ab), false);
        check("read:ab", Need::Read(&a), false);
        check("read:*", Need::Read(&ab), true);
        check("read:a", Need::Register(&a, &x), false);
        check("read:*", Need::Operate(&a), false);
        check("read:*", Need::OperateAll, false);
        check("register:a/x", Need::Register(&a, &x), true);
        check("register:a/x", Need::Register(&a, &xy), false);
        check("register:a/xy", Need::Register(&a, &x), false);
        check("register:a/x", Need::Register(&ab, &x), false);
        check("register:a/*", Need::Register(&a, &xy), true);
        check("register:a/*", Need::Register(&b, &xy), false);
        check("register:*/x", Need::Register(&b, &x), true);
        check("register:*/x", Need::Register(&b, &xy), false);
        // A registrant sees nothing by that.
        check("register:*/*", Need::Read(&a), false);
        check("register:*/*", Need::OperateAll, false);
        check("operate:a", Need::Operate(&a), true);
        check("operate:a", Need::Operate(&ab), false);
        check("operate:a", Need::Read(&a), true);
        check("operate:a", Need::Read(&ab), false);
        check("operate:*", Need::OperateAll, true);
        check("operate:a", Need::OperateAll, false);
        // Nor does an operator act as a service.
        check("operate:*", Need::Register(&a, &x), false);
    }
}
