//! Who may do what: scopes, principals, and the table of what each RPC needs. Decides; asks no clock and names no status.
//!
//! `api/gate` brings the question from a request and the answer back as a status. A call passes two doors: the gate, which knows
//! the path and who calls, and the API's own check of what the body names, which is there because a gate cannot read it.

mod bounds;
mod principal;
pub(crate) mod rules;
pub(crate) mod scope;

use std::path::PathBuf;

pub(crate) use bounds::Bounds;
pub(crate) use principal::Principal;

use crate::{
    access::{
        rules::Rule,
        scope::{Kind, Need},
    },
    tokens::TokenSet,
};

/// Who may use a registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Access {
    /// Everybody may do everything: for one machine, and for networks that are trusted as a whole.
    #[default]
    Open,
    /// Whoever shows a token of the file or a certificate, and only as far as those reach; all others are refused.
    Guarded {
        /// The file of tokens that `tessera token` writes. Read again within 2 s of a change and on SIGHUP; one that cannot be
        /// read then changes nothing.
        tokens: Option<PathBuf>,
        /// Whether verified client certificates count: `…/ns/NAMESPACE/svc/SERVICE` may read its namespace and register as
        /// itself, `…/operator/NAME` may operate everywhere.
        identities: bool,
    },
}

/// What a call shows of its caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// Its token; `Some(Err)` for an `authorization` header that has none.
    pub(crate) token: Option<Result<&'a str, ()>>,
    /// Its certificate.
    pub(crate) identity: Option<&'a std::sync::Arc<tls::Identity>>,
    /// Seconds since 1970, for what ends by itself.
    pub(crate) now: u64,
}

/// What a gate decides.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nobody has to be known for this.
    Anybody,
    /// This is who calls, and it may go on; what the body names has still to be compared.
    Known(Principal),
    /// There is nothing that says who calls, or it says something wrong. Which of the two is not told.
    Unknown,
    /// There is no such method here.
    NoSuchMethod,
    /// This is who calls, and nothing of theirs is of this kind.
    Lacks(Principal, Missing),
}

/// The scope that a caller does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Any of this kind.
    Kind(Kind),
    /// This one, as `tessera token issue --scope` takes it.
    Scope(String),
}

/// Decides about a call before its body is known. What is not in the table is refused.
pub(crate) fn decide(path: &str, shown: Shown<'_>, tokens: &TokenSet) -> Verdict {
    let rule = rules::of(path);
    if rule == Some(Rule::Public) {
        return Verdict::Anybody;
    }
    // Before it is said which methods there are.
    let principal = match (shown.token, shown.identity) {
        // A token that is shown decides alone, wrong or right: else a revoked one would go on as something else.
        (Some(token), _) => token
            .ok()
            .and_then(|token| tokens.find(token, shown.now))
            .map(Principal::Token),
        // It was good when the connection began, and connections are long.
        (None, identity) => identity
            .filter(|identity| !identity.has_ended(shown.now))
            .cloned()
            .map(Principal::Identity),
    };
    let Some(principal) = principal else {
        return Verdict::Unknown;
    };
    match rule {
        None | Some(Rule::Elsewhere | Rule::Public) => Verdict::NoSuchMethod,
        Some(Rule::Any(kind) | Rule::Named(kind, _)) if principal.has(kind) => Verdict::Known(principal),
        Some(Rule::Any(kind) | Rule::Named(kind, _)) => Verdict::Lacks(principal, Missing::Kind(kind)),
        Some(Rule::Lease(_)) if principal.has(Kind::Register) => Verdict::Known(principal),
        Some(Rule::Lease(_)) => Verdict::Lacks(principal, Missing::Kind(Kind::Register)),
        Some(Rule::Everywhere) if principal.may(Need::OperateAll) => Verdict::Known(principal),
        Some(Rule::Everywhere) => {
            let missing = Missing::Scope(Need::OperateAll.to_string());
            Verdict::Lacks(principal, missing)
        }
    }
}

#[cfg(test)]
mod tests;
