//! In whose quota a registration counts.

use std::net::IpAddr;

use http::Extensions;

use super::error::ApiError;
use crate::{access::Principal, catalog::CatalogError, driver::SubmitError, model::Registrant};

/// What it is known by: its token, its certificate, or where it comes from; `None` for one of this machine itself who shows
/// neither, which is whoever tries things out, and for one of whom nothing is known.
pub(super) fn name(extensions: &Extensions) -> Option<String> {
    match extensions.get::<Principal>() {
        // By its id: names need not be unique.
        Some(Principal::Token(token)) => Some(format!("token:{}", token.id())),
        Some(Principal::Identity(identity)) => Some(format!("certificate:{}", identity.name())),
        None => {
            let address = extensions.get::<service_host::Peer>()?.address.ip();
            address_of(address)
        }
    }
}

fn address_of(address: IpAddr) -> Option<String> {
    let is_own = address.to_canonical().is_loopback();
    (!is_own).then(|| format!("address:{}", service_host::whose(address)))
}

/// Who it is for the catalog.
pub(super) fn key(name: Option<&str>) -> Option<Registrant> {
    name.map(Registrant::of)
}

/// A refusal for somebody's quota names them.
pub(super) fn named(error: ApiError, name: Option<String>) -> ApiError {
    match error {
        ApiError::Submit(SubmitError::Refused(refusal @ CatalogError::QuotaExceeded { .. })) => {
            ApiError::Quota(refusal, name.unwrap_or_default())
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn who_has_its_quota_is_told_so_by_name() {
        let refusal = CatalogError::QuotaExceeded { limit: 2, held: 2 };
        let status = Status::from(named(refusal.into(), Some("token:4f2a".into())));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(
            details.error_info().expect("says why").reason,
            "INSTANCE_QUOTA_EXCEEDED"
        );
        let violations = &details.quota_failure().expect("a quota").violations;
        assert_eq!(violations[0].subject, "token:4f2a");
        assert!(violations[0].description.contains("2 instances"), "{violations:?}");
        assert!(details.retry_info().is_none(), "waiting does not help");
    }

    #[test]
    fn a_peer_is_known_by_its_network_and_loopback_by_nothing() {
        for (address, expected) in [
            ("127.0.0.1", None),
            ("::1", None),
            ("::ffff:127.0.0.2", None),
            ("192.0.2.1", Some("address:192.0.2.1")),
            ("::ffff:192.0.2.1", Some("address:192.0.2.1")),
            ("2001:db8::1", Some("address:2001:db8::")),
            ("2001:db8::ffff:1", Some("address:2001:db8::")),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(address_of(address).as_deref(), expected, "{address}");
        }
    }
}
