//! The address that callers are told when none was given. Where the service listens on one address, that is it; where
//! it listens on all, it is the one from which this machine reaches the registry.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::{
    args::{Listen, MemberArgs},
    failure::Failure,
};

/// What to advertise of what was `given`; `None` leaves it to the service: where it listens.
pub(crate) fn address(given: Option<&str>, member: &MemberArgs, listen: Listen) -> Result<Option<String>, Failure> {
    if let Some(address) = given {
        let reachable = |port: u16| port != 0;
        let port = address
            .rsplit_once(':')
            .and_then(|(host, port)| if host.is_empty() { None } else { port.parse().ok() });
        return match port.is_some_and(reachable) {
            true => Ok(Some(address.to_owned())),
            false => Err(
                Failure::usage(format!("{address} is no address that callers could use"))
                    .advice("pass --advertise HOST:PORT, for example 10.0.0.7:7101"),
            ),
        };
    }
    if !listen.0.ip().is_unspecified() || member.registry.is_empty() {
        return Ok(None);
    }
    let port = listen.0.port();
    let local = member
        .registry
        .iter()
        .find_map(|registry| towards(registry.authority()));
    match local {
        Some(local) if port != 0 => Ok(Some(SocketAddr::new(local.ip(), port).to_string())),
        _ => Err(
            Failure::usage(format!("listening on {listen} does not tell where callers find it"))
                .advice("pass --advertise HOST:PORT"),
        ),
    }
}

/// The local address of the way to `peer`. Connecting a UDP socket sends nothing; the kernel only chooses the way.
fn towards(peer: &str) -> Option<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().filter(|local| !local.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn check(flags: &[&str], expected: Result<Option<&str>, ()>) {
        let Command::Ticket(args) = Cli::parse_from(["tessera", "ticket"].iter().chain(flags)).command else {
            panic!("another command");
        };
        let found = address(args.advertise.as_deref(), &args.member, args.listen).map_err(drop);
        assert_eq!(
            found.as_ref().map(Option::as_deref),
            expected.as_ref().map(|it| *it),
            "{flags:?}"
        );
    }

    #[test]
    fn what_callers_are_told() {
        check(&["--listen", "127.0.0.1:7101"], Ok(None));
        check(&["--advertise", "tickets:7101"], Ok(Some("tickets:7101")));
        check(&["--advertise", "tickets"], Err(()));
        check(&["--advertise", "tickets:0"], Err(()));
        check(&["--advertise", ":7101"], Err(()));
        check(
            &["--listen", ":7101", "--registry", "127.0.0.1:7000"],
            Ok(Some("127.0.0.1:7101")),
        );
        check(&["--listen", ":0", "--registry", "127.0.0.1:7000"], Err(()));
    }
}
