//! Who registers, as far as quotas care.

use std::num::NonZeroU64;

use sha2::{Digest as _, Sha256};

/// Names a principal: a token, a certificate, or the address of a peer that shows neither. 64 bits of a hash of that, since every
/// lease has one; that two are alike among a million is one in 40 million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Registrant(NonZeroU64);

impl Registrant {
    /// Of what it is known by.
    pub(crate) fn of(name: &str) -> Self {
        let hash = Sha256::digest(name.as_bytes());
        let bits = hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MAX))
    }

    /// As it is stored; 0 is nobody.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    /// As it is stored.
    pub(crate) fn bits(self) -> u64 {
        self.0.get()
    }
}
