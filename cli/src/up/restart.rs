//! When a child that died is started again, and on which port. Decisions only: no clock, no process.

use std::time::Duration;

/// The first wait: long enough to read the report, short enough that nobody reaches for the keyboard.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait: a child that cannot start costs no processor, and one whose cause went away is back soon.
const LONGEST: Duration = Duration::from_secs(10);
/// A child that lived so long has recovered from whatever killed the one before.
const RECOVERED: Duration = Duration::from_secs(30);

/// Waits that double from 500 ms to 10 s, and begin anew after 30 s of life.
#[derive(Debug)]
pub(crate) struct Restart {
    next: Duration,
}

impl Restart {
    /// As after a long life.
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// A child died after it had lived for so long: how long to wait before the next one.
    pub(crate) fn wait_after(&mut self, lived: Duration) -> Duration {
        if lived >= RECOVERED {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        wait
    }
}

/// What a port means to those who know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortRole {
    /// The others were told this port and will not look for another one.
    Fixed,
    /// Callers find it by discovery, whatever it is.
    Discovered,
}

/// Both ports of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Where it serves; 0 for any free one.
    pub(crate) listen: u16,
    /// Where its administration is; 0 for any free one.
    pub(crate) admin: u16,
}

/// Both ports to listen on when starting once more; `asked` and `learnt` as for [`port_for`]. Nobody depends on an
/// administration port, whoever's it is.
pub(crate) fn ports_for(role: PortRole, asked: Ports, learnt: Option<Ports>, refused: bool) -> Ports {
    let learnt_admin = learnt.map(|ports| ports.admin);
    Ports {
        listen: port_for(role, asked.listen, learnt.map(|ports| ports.listen), refused),
        admin: port_for(PortRole::Discovered, asked.admin, learnt_admin, refused),
    }
}

/// The port to listen on when starting once more. `asked` is 0 where any will do, `learnt` is what the last life that
/// served listened on, and `refused` says that the last life ended before it served.
///
/// A learnt port is kept, so that what `up` printed stays true; one that somebody else took meanwhile must not keep the
/// child down for ever, unless others depend on it.
fn port_for(role: PortRole, asked: u16, learnt: Option<u16>, refused: bool) -> u16 {
    match (asked, learnt) {
        (0, Some(port)) if role == PortRole::Fixed || !refused => port,
        _ => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds() {
        let mut restart = Restart::new();
        let waits: Vec<u128> = (0..7).map(|_| restart.wait_after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn a_long_life_is_forgiven() {
        let mut restart = Restart::new();
        for _ in 0..5 {
            restart.wait_after(Duration::ZERO);
        }
        assert_eq!(restart.wait_after(Duration::from_secs(29)), LONGEST);
        assert_eq!(restart.wait_after(Duration::from_secs(30)), FIRST);
        assert_eq!(restart.wait_after(Duration::ZERO), FIRST * 2);
    }

    #[test]
    fn ports_stay_what_they_were() {
        let check =
            |role, asked, learnt, refused, expected| assert_eq!(port_for(role, asked, learnt, refused), expected);
        check(PortRole::Discovered, 7101, None, false, 7101);
        check(PortRole::Discovered, 7101, Some(7101), true, 7101);
        check(PortRole::Discovered, 0, None, false, 0);
        check(PortRole::Discovered, 0, Some(40_001), false, 40_001);
        check(PortRole::Discovered, 0, Some(40_001), true, 0);
        check(PortRole::Fixed, 0, Some(40_001), true, 40_001);
    }

    /// The second life of a registry on any port took its administration port for the learnt port + 2000: another one
    /// than `up` had printed, and one that nobody had found to be free.
    #[test]
    fn both_ports_are_remembered() {
        let any = Ports { listen: 0, admin: 0 };
        let learnt = Ports {
            listen: 40_001,
            admin: 50_002,
        };
        assert_eq!(ports_for(PortRole::Fixed, any, None, false), any);
        assert_eq!(ports_for(PortRole::Fixed, any, Some(learnt), false), learnt);
        let elsewhere = Ports { admin: 0, ..learnt };
        assert_eq!(ports_for(PortRole::Fixed, any, Some(learnt), true), elsewhere);
        let asked = Ports {
            listen: 7000,
            admin: 9000,
        };
        assert_eq!(ports_for(PortRole::Fixed, asked, Some(asked), true), asked);
    }
}
