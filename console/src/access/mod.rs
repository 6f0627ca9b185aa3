//! Who may do what: the table of what each RPC needs, and what a certificate covers. Decides; names no status.
//!
//! Where the monitor asks for no client certificates everybody may do everything, as with the platform's other services: its
//! network is trusted as a whole. Where it does, a service reports as itself and reads its namespace, and an operator reads.

pub(crate) mod rules;

use tls::Identity;

use self::rules::Rule;

/// What a gate decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may go on.
    Allowed,
    /// Nobody knows who calls.
    Unknown,
    /// There is no such method here.
    NoSuchMethod,
    /// This is who calls, and it may not.
    Denied(&'static str),
}

/// Decides about a call before its body is known. What is not in the table is refused. `is_guarded` says that callers are known
/// by their certificates.
pub(crate) fn decide(path: &str, identity: Option<&Identity>, now: u64, is_guarded: bool, namespace: &str) -> Verdict {
    let Some(rule) = rules::of(path) else {
        return if is_guarded && identity.is_none() {
            Verdict::Unknown
        } else {
            Verdict::NoSuchMethod
        };
    };
    if rule == Rule::Public || !is_guarded {
        return Verdict::Allowed;
    }
    // It was good when the connection began, and connections are long.
    let Some(identity) = identity.filter(|identity| !identity.has_ended(now)) else {
        return Verdict::Unknown;
    };
    let own = identity.service().is_some_and(|(of, _)| of == namespace);
    match rule {
        Rule::Public => Verdict::Allowed,
        Rule::Reporter if own => Verdict::Allowed,
        Rule::Reporter => Verdict::Denied("a service of this namespace"),
        Rule::Reader if own || identity.operator().is_some() => Verdict::Allowed,
        Rule::Reader => Verdict::Denied("a service of this namespace, or an operator"),
    }
}

/// Whether a certificate covers a report of that service. Without one nothing is compared: the gate has let it in.
pub(crate) fn may_report(identity: Option<&Identity>, service: &str) -> bool {
    let named = identity.and_then(Identity::service);
    named.is_none_or(|(_, own)| own == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "/tessera.monitor.v1.MonitorService/Report";
    const TOP: &str = "/tessera.monitor.v1.MonitorService/Top";

    fn identity(id: &str, not_after: Option<u64>) -> Identity {
        Identity {
            spiffe: Some(id.parse().expect("an id")),
            not_after,
            ..Identity::default()
        }
    }

    #[test]
    fn certificates_decide_where_they_are_asked_for() {
        let service = identity("spiffe://example/ns/default/svc/user-svc", None);
        let ended = identity("spiffe://example/ns/default/svc/user-svc", Some(99));
        let stranger = identity("spiffe://example/ns/other/svc/user-svc", None);
        let operator = identity("spiffe://example/operator/ann", None);
        let decide = |path: &str, identity| decide(path, identity, 100, true, "default");
        for path in [REPORT, TOP] {
            assert_eq!(decide(path, None), Verdict::Unknown);
            assert_eq!(decide(path, Some(&ended)), Verdict::Unknown);
            assert_eq!(decide(path, Some(&service)), Verdict::Allowed);
            assert!(matches!(decide(path, Some(&stranger)), Verdict::Denied(_)));
        }
        assert!(matches!(decide(REPORT, Some(&operator)), Verdict::Denied(_)));
        assert_eq!(decide(TOP, Some(&operator)), Verdict::Allowed);
        assert_eq!(decide("/grpc.health.v1.Health/Check", None), Verdict::Allowed);
        assert_eq!(decide("/no.Such/Method", Some(&service)), Verdict::NoSuchMethod);
        assert_eq!(decide("/no.Such/Method", None), Verdict::Unknown);
        assert!(may_report(Some(&service), "user-svc"));
        assert!(!may_report(Some(&service), "ticket-svc"));
    }

    #[test]
    fn without_certificates_the_table_still_says_what_there_is() {
        let decide = |path: &str| decide(path, None, 100, false, "default");
        assert_eq!(decide(REPORT), Verdict::Allowed);
        assert_eq!(
            decide("/tessera.monitor.v1.MonitorService/Forget"),
            Verdict::NoSuchMethod
        );
        assert_eq!(decide("/tessera.user.v1.UserService/SignIn"), Verdict::NoSuchMethod);
    }
}
