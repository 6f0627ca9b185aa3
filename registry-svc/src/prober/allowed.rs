//! Which addresses may be probed. A registry that dials what others have registered is a way into its network (SSRF): so it dials
//! back to where a registration came from, and where its operator says, and to some places never.
//!
//! Pure: addresses in, a decision out. What is decided on is the address that is dialled, never a name: see `prober`.

use std::{
    fmt,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    str::FromStr,
};

/// A range of addresses, `10.0.0.0/8` or `fd00::/8`; without a length it is one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

/// A text is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a range of addresses such as 10.0.0.0/8 or fd00::/8, or one address")]
pub struct InvalidCidr;

/// What may be probed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    /// Beyond where a registration came from.
    ranges: Vec<Cidr>,
    /// Where this registry listens itself.
    own: Vec<SocketAddr>,
}

/// Why an address may not be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nobody is to dial there, whoever asks.
    Never,
    /// This registry's own.
    Own,
    /// Neither where the registration came from, nor in a range of `--probe-allow`.
    Foreign,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "it is link-local, multicast, unspecified, or of a cloud's metadata service",
            Self::Own => "it is a port of the registry itself",
            Self::Foreign => {
                "the registration came from another address: register from where the instance runs, or have the registry \
                 started with --probe-allow for that range"
            }
        })
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (network, bits) = match text.split_once('/') {
            Some((network, bits)) => (network, Some(bits.parse::<u8>().map_err(|_| InvalidCidr)?)),
            None => (text, None),
        };
        let network: IpAddr = network.parse().map_err(|_| InvalidCidr)?;
        let widest = if network.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(widest);
        if bits > widest {
            return Err(InvalidCidr);
        }
        Ok(Self { network, bits })
    }
}

impl Cidr {
    fn contains(&self, address: IpAddr) -> bool {
        // 128 bits shifted by all of them would be an overflow.
        let same = |one: u128, other: u128, width: u32| {
            let rest = width.saturating_sub(self.bits.into());
            rest >= width || one >> rest == other >> rest
        };
        match (self.network, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

impl Allowed {
    /// Of a registry that listens at `own`.
    pub(crate) fn new(ranges: Vec<Cidr>, own: impl IntoIterator<Item = SocketAddr>) -> Self {
        let own = own.into_iter().collect();
        Self { ranges, own }
    }

    /// Whether `target` may be dialled for a registration that came `from` there. The address that comes back is the one to dial.
    pub(crate) fn check(&self, target: SocketAddr, from: Option<IpAddr>) -> Result<SocketAddr, Refused> {
        self.decide(target, from, is_of_this_machine)
    }

    fn decide(
        &self,
        target: SocketAddr,
        from: Option<IpAddr>,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Result<SocketAddr, Refused> {
        // ::ffff:127.0.0.1 is 127.0.0.1 to the kernel, and to us.
        let address = target.ip().to_canonical();
        if is_never(address) {
            return Err(Refused::Never);
        }
        // Whoever translates sends it on to where the IPv4 address within belongs.
        let reached = [Some(address), carried(address).map(IpAddr::V4)];
        let is_here = |own: &SocketAddr| {
            let mut reached = reached.into_iter().flatten();
            reached.any(|address| own.ip().to_canonical() == address || is_local(address))
        };
        let is_own = |own: &SocketAddr| own.port() == target.port() && is_here(own);
        if self.own.iter().any(is_own) {
            return Err(Refused::Own);
        }
        let is_allowed = from == Some(address) || self.ranges.iter().any(|range| range.contains(address));
        match is_allowed {
            true => Ok(SocketAddr::new(address, target.port())),
            false => Err(Refused::Foreign),
        }
    }
}

/// Where nobody has a service to offer, and somebody else may have secrets.
fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_never_v4(address),
        IpAddr::V6(address) => is_never_v6(address),
    }
}

fn is_never_v4(address: Ipv4Addr) -> bool {
    // Metadata services and their like that are not link-local: Alibaba Cloud, Oracle Cloud, Azure.
    const METADATA: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(192, 0, 0, 192),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    address.octets()[0] == 0
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA.contains(&address)
}

fn is_never_v6(address: Ipv6Addr) -> bool {
    // AWS and Google Cloud have theirs among unique local addresses.
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    let carries_never = carried(IpAddr::V6(address)).is_some_and(is_never_v4);
    address.is_unspecified()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || METADATA.contains(&address)
        || (carries_never && !address.is_loopback())
}

/// NAT64 and 6to4 carry an IPv4 address to where it belongs; ::a.b.c.d, which nobody has used for long, did too.
fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [first, second, third, .., last_but_one, last] = address.segments();
    let bits = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (first, second) {
        (0x64, 0xff9b) | (0, 0) => Some(bits(last_but_one, last)),
        (0x2002, _) => Some(bits(second, third)),
        _ => None,
    }
}

/// Only an address of this machine can be bound; port 0 takes any, and a UDP socket sends nothing by it. What cannot be told, for
/// want of files for example, is taken for ours.
fn is_of_this_machine(address: IpAddr) -> bool {
    let is_foreign = |error: std::io::Error| error.kind() == ErrorKind::AddrNotAvailable;
    address.is_loopback() || !UdpSocket::bind((address, 0)).is_err_and(is_foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u16 = 7000;

    fn check(target: &str, from: &str, expected: Result<&str, Refused>) {
        let ranges = ["10.1.0.0/16", "fd12::/16", "169.254.0.0/16", "0.0.0.0/0"];
        let some = &ranges[..3];
        let listen: SocketAddr = format!("0.0.0.0:{OWN}").parse().expect("an address");
        let is_local = |address: IpAddr| address.is_loopback() || address == IpAddr::from([10, 1, 0, 1]);
        let target: SocketAddr = target.parse().expect("an address");
        let ranges = |ranges: &[&str]| ranges.iter().map(|range| range.parse().expect("a range")).collect();
        let allowed = Allowed::new(ranges(some), [listen]);
        let decided = allowed.decide(target, from.parse().ok(), is_local);
        assert_eq!(
            decided,
            expected.map(|address| address.parse().expect("an address")),
            "{target} from {from}"
        );
        // What is never allowed, or ours, no range makes allowed.
        if let Err(never @ (Refused::Never | Refused::Own)) = decided {
            let all = Allowed::new(ranges(&["0.0.0.0/0", "::/0"]), [listen]);
            assert_eq!(all.decide(target, Some(target.ip()), is_local), Err(never), "{target}");
        }
    }

    #[test]
    fn one_may_be_probed_where_one_is() {
        check("192.0.2.7:80", "192.0.2.7", Ok("192.0.2.7:80"));
        check("[::ffff:192.0.2.7]:80", "192.0.2.7", Ok("192.0.2.7:80"));
        check("[2001:db8::7]:80", "2001:db8::7", Ok("[2001:db8::7]:80"));
        check("127.0.0.1:7101", "127.0.0.1", Ok("127.0.0.1:7101"));
        check("[::1]:7101", "::1", Ok("[::1]:7101"));
        check("192.0.2.8:80", "192.0.2.7", Err(Refused::Foreign));
        check("127.0.0.1:22", "192.0.2.7", Err(Refused::Foreign));
        check("127.0.0.2:22", "127.0.0.1", Err(Refused::Foreign));
        check("192.0.2.7:80", "nobody knows", Err(Refused::Foreign));
    }

    #[test]
    fn and_where_the_operator_says() {
        check("10.1.255.255:80", "192.0.2.7", Ok("10.1.255.255:80"));
        check("10.2.0.0:80", "192.0.2.7", Err(Refused::Foreign));
        check("[fd12::1]:80", "192.0.2.7", Ok("[fd12::1]:80"));
    }

    #[test]
    fn and_to_some_places_never() {
        for target in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[2002:a9fe:a9fe::]:80",
            "168.63.129.16:80",
            "[fd20:ce::254]:80",
            "[::a9fe:a9fe]:80",
            "100.100.100.200:80",
            "192.0.0.192:80",
            "[fd00:ec2::254]:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::]:80",
            "255.255.255.255:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "[fe80::1]:80",
        ] {
            let from = target.parse::<SocketAddr>().expect("an address").ip().to_string();
            check(target, &from, Err(Refused::Never));
        }
    }

    #[test]
    fn nor_to_the_registry_itself() {
        for target in [
            "127.0.0.1:7000",
            "[::ffff:127.0.0.1]:7000",
            "[::1]:7000",
            "10.1.0.1:7000",
            "127.9.9.9:7000",
            "[64:ff9b::7f00:1]:7000",
            "[2002:a01:1::]:7000",
        ] {
            let from = target.parse::<SocketAddr>().expect("an address").ip().to_string();
            check(target, &from, Err(Refused::Own));
        }
        // The same port of another machine is somebody else's.
        check("10.1.0.2:7000", "10.1.0.2", Ok("10.1.0.2:7000"));
    }

    #[test]
    fn ranges_are_read() {
        for right in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "10.0.0.1", "fd00::/8", "::1/128"] {
            assert!(right.parse::<Cidr>().is_ok(), "{right}");
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "a/8",
            "10.0.0.0/-1",
        ] {
            assert_eq!(wrong.parse::<Cidr>(), Err(InvalidCidr), "{wrong}");
        }
    }
}
