//! The values that flags carry, each with a parser whose error says what would have been right. Whether an address can
//! be bound or reached is not known here.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl FromStr for Listen {
    type Err = String;

    /// Takes `IP:PORT`, `localhost:PORT` and `:PORT` (all interfaces).
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let host = |port: &str, ip| port.parse().ok().map(|port: u16| Self(SocketAddr::new(ip, port)));
        let named = match text.rsplit_once(':') {
            Some(("localhost", port)) => host(port, IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(("", port)) => host(port, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            _ => None,
        };
        named.ok_or_else(|| "give IP:PORT, for example 127.0.0.1:7000; port 0 takes any free one".to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where `/healthz` and `/metrics` are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admin {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

/// How far the administration port lies above the service's own.
pub(crate) const ADMIN_PORT_OFFSET: u16 = 2000;

impl Admin {
    /// The fixed place beside a service: its port + 2000, or any free port where the service takes any.
    pub(crate) fn beside(listen: SocketAddr) -> Result<Self, String> {
        let port = match listen.port() {
            0 => 0,
            port => port.checked_add(ADMIN_PORT_OFFSET).ok_or_else(|| {
                format!(
                    "there is no port {port} + {ADMIN_PORT_OFFSET}; pass --admin-listen, or listen below {}",
                    u16::MAX - ADMIN_PORT_OFFSET + 1
                )
            })?,
        };
        Ok(Self::At(SocketAddr::new(listen.ip(), port)))
    }

    /// The address, where there is one.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => Listen::from_str(text)
                .map(|listen| Self::At(listen.0))
                .map_err(|_| "give IP:PORT, for example 127.0.0.1:9000, or `off`".to_owned()),
        }
    }
}

/// Where a registry is reached: an origin such as `http://127.0.0.1:7000`, normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryUrl(String);

impl RegistryUrl {
    /// As the registry client wants it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// `HOST:PORT` of it.
    pub(crate) fn authority(&self) -> &str {
        self.0
            .split_once("://")
            .map_or(self.0.as_str(), |(_, authority)| authority)
    }
}

impl FromStr for RegistryUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        origin(text).map(Self)
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `http://HOST:PORT` from `HOST:PORT` or an `http(s)://` address.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    const RIGHT: &str = "give HOST:PORT, http://HOST:PORT or https://HOST:PORT, for example http://127.0.0.1:7000";
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: http::Uri = with_scheme.parse().map_err(|_| RIGHT.to_owned())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(RIGHT.to_owned());
    };
    if authority.port_u16().is_none_or(|port| port == 0) || authority.host().is_empty() {
        return Err(RIGHT.to_owned());
    }
    if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!("{RIGHT}, without user, path or query"));
    }
    match scheme {
        "http" | "https" => Ok(format!("{scheme}://{authority}")),
        _ => Err(RIGHT.to_owned()),
    }
}

/// An address that others can use: HOST:PORT, the port not 0.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let is_origin = !text.contains(['/', ',', ' ']) && origin(&format!("http://{text}")).is_ok();
    match is_origin {
        true => Ok(text.to_owned()),
        false => Err("give HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080".to_owned()),
    }
}

/// One pair of an instance's metadata, `KEY=VALUE`. What a key may be is the registry's to say.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE, for example owner=payments".to_owned()),
    }
}

/// A method's full name, `package.Service/Method`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MethodName {
    /// For example `tessera.ticket.v1.TicketService`.
    pub(crate) service: String,
    /// For example `ListEvents`.
    pub(crate) method: String,
}

impl FromStr for MethodName {
    type Err = String;

    /// Takes `package.Service/Method`, with a leading slash or a dot in place of the slash too, as other tools do.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let parts = text.split_once('/').or_else(|| text.rsplit_once('.'));
        match parts {
            Some((service, method)) if is_full_name(service) && is_identifier(method) => Ok(Self {
                service: service.to_owned(),
                method: method.to_owned(),
            }),
            _ => Err("give PACKAGE.SERVICE/METHOD, for example tessera.ticket.v1.TicketService/ListEvents".to_owned()),
        }
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.method)
    }
}

fn is_full_name(text: &str) -> bool {
    text.split('.').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// An instance as an operator names it: `SERVICE/ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceName {
    /// For example `ticket-svc`.
    pub(crate) service: String,
    /// For example `ticket-2`.
    pub(crate) id: String,
}

impl FromStr for InstanceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((service, id)) if !service.is_empty() && !id.is_empty() && !id.contains('/') => Ok(Self {
                service: service.to_owned(),
                id: id.to_owned(),
            }),
            _ => Err("give SERVICE/ID, for example ticket-svc/ticket-2; `tessera instances` lists them".to_owned()),
        }
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

/// When a decision ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// After so long.
    After(Duration),
    /// Then.
    At(jiff::Timestamp),
}

impl Until {
    /// The moment, counted from `now`.
    pub(crate) fn moment(self, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
        match self {
            Self::After(time) => now.checked_add(time).ok(),
            Self::At(moment) => Some(moment),
        }
    }
}

impl FromStr for Until {
    type Err = String;

    /// Takes `90m`, `12h`, `7d`, and moments as RFC 3339 has them.
    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "give a time from now such as 90m, 12h or 7d, or a moment such as 2026-01-31T18:00:00Z; \
                             at most 366 days ahead";
        const DAY: u64 = 24 * 60 * 60;
        let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok());
        let after = match days {
            Some(days) => Some(Duration::from_secs(u64::from(days) * DAY)),
            None => text
                .parse::<jiff::SignedDuration>()
                .ok()
                .and_then(|duration| Duration::try_from(duration).ok()),
        };
        let after = after.filter(|after| (1..=366 * DAY).contains(&after.as_secs()));
        let moment = || text.parse::<jiff::Timestamp>().ok().map(Self::At);
        after.map(Self::After).or_else(moment).ok_or_else(|| RIGHT.to_owned())
    }
}

/// A flag without a value, whose environment twin takes `1`, `true` or `yes` (and `0`, `false`, `no` or nothing for
/// off).
pub(crate) fn switch() -> clap::builder::FalseyValueParser {
    clap::builder::FalseyValueParser::new()
}

/// A duration such as `300ms`, `10s` or `2m`; never negative, at most a day.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const RIGHT: &str = "give a number with a unit, for example 300ms, 10s or 2m; at most 24h";
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| *duration <= Duration::from_secs(24 * 60 * 60))
        .ok_or_else(|| RIGHT.to_owned())
}

/// A duration as above that is not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0, for example 5s".to_owned()),
        duration => Ok(duration),
    }
}

/// How long to wait for those who acknowledge: as long as the registry does at the most.
pub(crate) fn ack_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout <= Duration::from_secs(300) => Ok(timeout),
        _ => Err("a registry waits 5m at the most".to_owned()),
    }
}

/// How long seats are held: what the ticket service takes.
pub(crate) fn hold_ttl(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        ttl if (Duration::from_secs(1)..=Duration::from_secs(900)).contains(&ttl) => Ok(ttl),
        _ => Err("seats are held for 1s to 15m".to_owned()),
    }
}

/// How long a purchase is claimed: longer than a write of the store takes, shorter than anybody waits for what nobody drives.
pub(crate) fn purchase_lease(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        lease if (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&lease) => Ok(lease),
        _ => Err("a purchase is claimed for 100ms to 10m".to_owned()),
    }
}

/// A name by the wire's rule: 1 to 63 of a-z, 0-9 and '-', starting with a letter.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let right = (1..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
    if right {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 63 of a-z, 0-9 and '-' and starts with a letter, for example ticket-svc".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_where_it_is_told() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = text.parse::<Listen>().ok().map(|listen| listen.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("127.0.0.1:7000", Some("127.0.0.1:7000"));
        check("localhost:0", Some("127.0.0.1:0"));
        check(":7000", Some("0.0.0.0:7000"));
        check("[::1]:7000", Some("[::1]:7000"));
        check("7000", None);
        check("127.0.0.1", None);
        check("127.0.0.1:70000", None);
        check("tickets:7000", None);
    }

    #[test]
    fn the_administration_port_lies_2000_above() {
        let beside = |text: &str| Admin::beside(text.parse().expect("an address")).map(Admin::address);
        assert_eq!(
            beside("127.0.0.1:7000"),
            Ok(Some("127.0.0.1:9000".parse().expect("an address")))
        );
        assert_eq!(
            beside("127.0.0.1:0"),
            Ok(Some("127.0.0.1:0".parse().expect("an address")))
        );
        assert!(beside("127.0.0.1:64000").is_err());
        assert_eq!("off".parse(), Ok(Admin::Off));
    }

    #[test]
    fn origins_are_normalised_and_nothing_else_is_taken() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(origin(text).ok().as_deref(), expected, "{text}");
        check("localhost:7000", Some("http://localhost:7000"));
        check("http://localhost:7000/", Some("http://localhost:7000"));
        check("http://[::1]:7000", Some("http://[::1]:7000"));
        check("localhost", None);
        check("http://localhost", None);
        check("localhost:0", None);
        check("ftp://localhost:7000", None);
        check("https://localhost:7000/", Some("https://localhost:7000"));
        check("http://user@localhost:7000", None);
        check("http://localhost:7000/v1", None);
        check("", None);
        check(" ", None);
    }

    #[test]
    fn addresses_have_a_host_and_a_port_and_nothing_else() {
        let check = |text: &str, right: bool| assert_eq!(address(text).is_ok(), right, "{text}");
        for text in ["127.0.0.1:8080", "tickets:80", "[::1]:8080"] {
            check(text, true);
        }
        for text in [
            "",
            "tickets",
            ":80",
            "tickets:0",
            "tickets:70000",
            "http://tickets:80",
            "a@b:80",
            "a:80/b",
            "a:80,b:80",
        ] {
            check(text, false);
        }
    }

    #[test]
    fn pairs_have_a_key() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn methods_are_full_names() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = text.parse::<MethodName>().ok().map(|method| method.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("a.v1.B/C", Some("a.v1.B/C"));
        check("/a.v1.B/C", Some("a.v1.B/C"));
        check("a.v1.B.C", Some("a.v1.B/C"));
        check("B/C", Some("B/C"));
        check("a.v1.B/", None);
        check("a..B/C", None);
        check("a.v1.B/C/D", None);
        check("ListEvents", None);
        check("", None);
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "-1s", "25h", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(positive_duration("0s").is_err());
        assert_eq!(purchase_lease("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(purchase_lease("10m"), Ok(Duration::from_secs(600)));
        assert!(purchase_lease("99ms").is_err() && purchase_lease("601s").is_err());
    }

    #[test]
    fn an_end_is_a_time_from_now_or_a_moment() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let check = |text: &str, expected: Option<&str>| {
            let until = text.parse::<Until>().ok().and_then(|until| until.moment(now));
            assert_eq!(until.map(|until| until.to_string()).as_deref(), expected, "{text}");
        };
        check("90m", Some("1970-01-01T01:30:00Z"));
        check("2d", Some("1970-01-03T00:00:00Z"));
        check("1h 30m", Some("1970-01-01T01:30:00Z"));
        check("2026-01-31T19:00:00+01:00", Some("2026-01-31T18:00:00Z"));
        for wrong in ["", "0s", "5", "-1h", "367d", "tomorrow", "2026-01-31"] {
            check(wrong, None);
        }
    }

    #[test]
    fn instances_are_named_with_their_service() {
        let parsed: InstanceName = "ticket-svc/ticket-2".parse().expect("well formed");
        assert_eq!(parsed.to_string(), "ticket-svc/ticket-2");
        for wrong in ["ticket-2", "/a", "a/", "a/b/c", ""] {
            assert!(wrong.parse::<InstanceName>().is_err(), "{wrong}");
        }
    }
}
