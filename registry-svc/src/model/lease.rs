//! What a lease is made of. Its life (deadlines, expiry) is the catalog's.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::ValueError;
use crate::limits;

/// Names a lease: 128 random bits, 32 hexadecimal digits on the wire. Kept as bytes: an integer of this size would want to lie
/// at multiples of 16, and every instance has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseId([u8; 16]);

/// A map of leases that were granted. Their ids are drawn here and nowhere else, so nobody can choose any that collide, and they
/// are as good as hashed: each renewal looks up two.
pub(crate) type ByLease<V> = HashMap<LeaseId, V, BuildHasherDefault<AsDrawn>>;

/// Takes what was drawn for a hash of it.
#[derive(Debug, Default)]
pub(crate) struct AsDrawn(u64);

/// Proves ownership of a lease: 128 random bits, known to the owner alone. Neither displayed nor stored.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct LeaseSecret(u128);

/// SHA-256 of a secret as it is on the wire. A slow hash would add nothing: the secret has full entropy.
#[derive(Clone, Copy)]
pub(crate) struct SecretHash([u8; 32]);

/// How often the owner renews and how often it may fail to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Heartbeat {
    /// In nanoseconds: at most an hour, and a duration is twice as large.
    interval: u64,
    misses: u32,
}

/// What a registrant asks for in a [`Heartbeat`]; what it leaves out is filled in from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Terms {
    /// How often it will renew.
    pub(crate) interval: Option<Duration>,
    /// How many renewals may fail to come.
    pub(crate) misses: Option<u32>,
}

impl Hasher for AsDrawn {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, drawn: u64) {
        self.0 ^= drawn;
    }

    /// No id is written so; as good as any for what is.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

impl Hash for LeaseId {
    /// Half of the bits, which are random.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        state.write_u64(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl LeaseId {
    /// From its random bits.
    pub(crate) fn from_random(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }

    /// The bits.
    pub(crate) fn bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// `None` for what we cannot have granted.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let text: &[u8; 32] = text.as_bytes().try_into().ok()?;
        let mut id = [0; 16];
        for (byte, digits) in id.iter_mut().zip(text.as_chunks().0) {
            let [high, low]: [u8; 2] = *digits;
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(id))
    }

    /// Its text.
    pub(crate) fn digits(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (digits, byte) in text.as_chunks_mut().0.iter_mut().zip(self.0) {
            *digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        text
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.bits())
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl LeaseSecret {
    /// From its random bits.
    pub(crate) fn from_random(bits: u128) -> Self {
        Self(bits)
    }

    /// The text that only its owner may see.
    pub(crate) fn reveal(&self) -> String {
        format!("{:032x}", self.0)
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash::of(&self.reveal())
    }
}

impl fmt::Debug for LeaseSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseSecret(..)")
    }
}

impl SecretHash {
    /// Of a secret's text, right or wrong.
    pub(crate) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// As it was stored.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To store it.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// In constant time, so that answering tells nothing about how much of a guess was right.
impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl Terms {
    /// The heartbeat that these make of `own`.
    pub(crate) fn over(self, own: Heartbeat) -> Result<Heartbeat, ValueError> {
        if self == Self::default() {
            return Ok(own);
        }
        Heartbeat::try_new(
            self.interval.unwrap_or(own.interval()),
            self.misses.unwrap_or(own.misses),
        )
    }
}

impl Heartbeat {
    /// Of a registrant that says nothing.
    pub(crate) const DEFAULT: Self = Self {
        interval: nanos(limits::HEARTBEAT_DEFAULT),
        misses: limits::MISSES_DEFAULT,
    };
    /// The longest there is: whatever is wrong over it is wrong over any.
    pub(crate) const LONGEST: Self = Self {
        interval: nanos(limits::HEARTBEAT_MAX),
        misses: limits::MISSES_MAX,
    };

    /// An interval of 100 ms to 1 h, 1 to 100 misses, and a time to live (their product) of at least 500 ms.
    pub(crate) fn try_new(interval: Duration, misses: u32) -> Result<Self, ValueError> {
        let (min, max) = (limits::HEARTBEAT_MIN, limits::HEARTBEAT_MAX);
        if !(min..=max).contains(&interval) {
            return Err(ValueError::DurationOutOfRange {
                min,
                max,
                found: interval,
            });
        }
        if !(1..=limits::MISSES_MAX).contains(&misses) {
            return Err(ValueError::OutOfRange {
                min: 1,
                max: limits::MISSES_MAX.into(),
                found: misses.into(),
            });
        }
        let ttl = interval * misses;
        if ttl < limits::TTL_MIN {
            return Err(ValueError::TimeToLiveTooShort {
                min: limits::TTL_MIN,
                found: ttl,
            });
        }
        Ok(Self {
            interval: nanos(interval),
            misses,
        })
    }

    /// How often the owner renews.
    pub(crate) fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How many renewals may fail to come.
    pub(crate) fn misses(self) -> u32 {
        self.misses
    }

    /// How long the lease lives without a renewal.
    pub(crate) fn ttl(self) -> Duration {
        self.interval() * self.misses
    }
}

/// Of at most an hour.
#[allow(clippy::cast_possible_truncation, reason = "584 years fit")]
const fn nanos(interval: Duration) -> u64 {
    interval.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_nothing_else_does() {
        let id = LeaseId::from_random(0xabc);
        assert_eq!(LeaseId::parse(&id.to_string()), Some(id));
        assert_eq!(LeaseId::parse("00000000000000000000000000000abc"), Some(id));
        assert_eq!(id.digits(), *id.to_string().as_bytes());
        for bad in [
            "",
            "abc",
            "+0000000000000000000000000000abc",
            "0000000000000000000000000000ABCD",
            &"0".repeat(33),
        ] {
            assert_eq!(LeaseId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = LeaseSecret::from_random(0xfeed_beef);
        assert!(!format!("{secret:?} {:?}", secret.hash()).contains("feed"));
        assert_eq!(SecretHash::of(&secret.reveal()), secret.hash());
        assert_ne!(SecretHash::of("guess"), secret.hash());
    }

    #[test]
    fn the_constants_follow_the_rules() {
        for heartbeat in [Heartbeat::DEFAULT, Heartbeat::LONGEST] {
            assert_eq!(
                Heartbeat::try_new(heartbeat.interval(), heartbeat.misses).ok(),
                Some(heartbeat)
            );
        }
    }

    #[test]
    fn heartbeats_are_bounded() {
        let ms = Duration::from_millis;
        for (interval, misses, fits) in [
            (ms(100), 5, true),
            (ms(99), 6, false),
            (ms(100), 4, false),
            (ms(500), 1, true),
            (ms(3_600_000), 100, true),
            (ms(3_600_001), 1, false),
            (ms(5_000), 0, false),
            (ms(5_000), 101, false),
        ] {
            assert_eq!(
                Heartbeat::try_new(interval, misses).is_ok(),
                fits,
                "{interval:?} x {misses}"
            );
        }
    }
}
