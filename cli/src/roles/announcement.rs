//! The one line that a role prints on stdout once it serves, written and read in one place: `up` and scripts wait for
//! it.

use std::{fmt, net::SocketAddr};

/// `tessera ROLE listening on ADDR (admin ADDR)`; without the parenthesis where there is no administration port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// `registry`, `ticket`, `user` or `console`.
    pub(crate) role: String,
    /// Where the service listens.
    pub(crate) listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are.
    pub(crate) admin: Option<SocketAddr>,
}

impl Announcement {
    /// Reads the line; `None` for any other line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (role, rest) = line.trim_end().strip_prefix("tessera ")?.split_once(" listening on ")?;
        let (listen, admin) = match rest.split_once(" (admin ") {
            Some((listen, admin)) => (listen, Some(admin.strip_suffix(')')?.parse().ok()?)),
            None => (rest, None),
        };
        Some(Self {
            role: role.to_owned(),
            listen: listen.parse().ok()?,
            admin,
        })
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tessera {} listening on {}", self.role, self.listen)?;
        match self.admin {
            Some(admin) => write!(f, " (admin {admin})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Announcement;

    #[test]
    fn what_is_written_is_read() {
        for line in [
            "tessera registry listening on 127.0.0.1:7000 (admin 127.0.0.1:9000)",
            "tessera user listening on [::1]:7200",
        ] {
            assert_eq!(Announcement::parse(line).expect("well formed").to_string(), line);
        }
    }

    #[test]
    fn other_lines_are_not_taken() {
        for line in [
            "",
            "tessera",
            "tessera user listening on",
            "listening on 127.0.0.1:7000",
            "tessera user listening on 127.0.0.1:7000 (admin",
        ] {
            assert_eq!(Announcement::parse(line), None, "{line}");
        }
    }
}
