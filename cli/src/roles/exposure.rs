//! Whether a role may listen where it is to: beyond this machine only with something that protects it, or when somebody has said
//! that they do without.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::failure::Failure;

/// What stands between a listener and everybody who reaches it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Protection {
    /// Connections are encrypted, which says who the server is and nothing of who calls.
    pub(super) tls: bool,
    /// Callers have to be known, by tokens or by certificates.
    pub(super) callers: bool,
    /// Somebody does without.
    pub(super) insecure: bool,
}

/// What is offered to whoever is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    /// A registry, which has tokens: whoever may call it unknown may do everything to everybody.
    Registry,
    /// A service, whose callers are its own business: some are for the public, and know their users by other means.
    Service,
    /// An administration port, which has neither TLS nor tokens of its own.
    Admin,
}

impl Protection {
    /// Whether this may be listened to.
    ///
    /// # Errors
    /// A usage failure, which ends with code 2, with the ways on.
    pub(super) fn allows(&self, flag: &str, address: SocketAddr, ways: Ways) -> Result<(), Failure> {
        let is_protected = match ways {
            Ways::Registry => self.callers,
            Ways::Service | Ways::Admin => self.tls || self.callers,
        };
        if is_here(address.ip()) || self.insecure || is_protected {
            return Ok(());
        }
        let advice = match (ways, self.tls) {
            (Ways::Registry, false) => {
                "give --tls-cert, --tls-key and --tls-ca, or --tokens FILE (`tessera token issue` makes one), or --insecure if you \
                 trust everybody who reaches it; or listen on 127.0.0.1"
            }
            (Ways::Registry, true) => {
                "give --tls-ca with the authority of your clients' certificates, or --tokens FILE (`tessera token issue` makes \
                 one), or --insecure if you trust everybody who reaches it; or listen on 127.0.0.1"
            }
            (Ways::Service | Ways::Admin, _) => {
                "give --tls-cert and --tls-key, or --insecure if you trust everybody who reaches it; or listen on 127.0.0.1"
            }
        };
        let lack = match self.tls {
            true => "its certificate says who it is and nothing of who calls: everybody may do everything",
            false => "nothing protects it",
        };
        let what = format!("{flag} {address} is open to other machines, and {lack}");
        Err(Failure::usage(what).advice(advice))
    }

    /// Beside which address the administration port goes when nobody says: it has no TLS and asks nobody who they are, so it is
    /// shown to other machines only where that was asked for.
    pub(super) fn admin_beside(&self, listen: SocketAddr) -> SocketAddr {
        if is_here(listen.ip()) || self.insecure {
            return listen;
        }
        let loopback = match listen.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        SocketAddr::new(loopback, listen.port())
    }
}

/// Whether only this machine reaches it.
fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Protection = Protection {
        tls: false,
        callers: false,
        insecure: false,
    };

    #[test]
    fn beyond_this_machine_something_protects_or_somebody_says_so() {
        let check = |address: &str, protection: Protection, expected: bool| {
            let address: SocketAddr = address.parse().expect("an address");
            let allowed = protection.allows("--listen", address, Ways::Registry);
            assert_eq!(allowed.is_ok(), expected, "{address} {protection:?}");
        };
        for here in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            check(here, NOTHING, true);
        }
        for beyond in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.7:1",
            "[fe80::1]:1",
            "[::ffff:10.0.0.7]:1",
            "169.254.1.1:1",
        ] {
            check(beyond, NOTHING, false);
            // TLS alone let everybody do everything, encrypted.
            check(beyond, Protection { tls: true, ..NOTHING }, false);
            check(
                beyond,
                Protection {
                    callers: true,
                    ..NOTHING
                },
                true,
            );
            check(
                beyond,
                Protection {
                    insecure: true,
                    ..NOTHING
                },
                true,
            );
        }
    }

    #[test]
    fn whoever_is_refused_is_told_every_way_on() {
        let address: SocketAddr = "0.0.0.0:7000".parse().expect("an address");
        let told = |ways| NOTHING.allows("--listen", address, ways).expect_err("open").to_string();
        for way in [
            "--listen 0.0.0.0:7000",
            "--tls-cert",
            "--tokens",
            "--insecure",
            "127.0.0.1",
        ] {
            assert!(told(Ways::Registry).contains(way), "{way}");
        }
        assert!(!told(Ways::Service).contains("--tokens"));
        let tls = Protection { tls: true, ..NOTHING };
        let told = tls
            .allows("--listen", address, Ways::Registry)
            .expect_err("open")
            .to_string();
        for way in ["--tls-ca", "--tokens", "--insecure", "nothing of who calls"] {
            assert!(told.contains(way), "{told}");
        }
        assert!(
            tls.allows("--listen", address, Ways::Service).is_ok(),
            "its own business"
        );
    }

    #[test]
    fn the_administration_port_stays_here_unless_it_is_asked_for() {
        let check = |listen: &str, protection: Protection, expected: &str| {
            let beside = protection.admin_beside(listen.parse().expect("an address"));
            assert_eq!(beside.to_string(), expected);
        };
        let tls = Protection { tls: true, ..NOTHING };
        check("0.0.0.0:7000", tls, "127.0.0.1:7000");
        check("[::]:7000", tls, "[::1]:7000");
        check("127.0.0.1:7000", NOTHING, "127.0.0.1:7000");
        check(
            "0.0.0.0:7000",
            Protection {
                insecure: true,
                ..NOTHING
            },
            "0.0.0.0:7000",
        );
    }
}
