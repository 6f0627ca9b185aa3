//! Where the pool's randomness comes from: the thread's generator, or a seeded one where a history shall be played again.

use rand::Rng as _;

/// A source of random bits.
#[derive(Debug)]
pub(super) enum Chance {
    /// Nothing is shared between callers.
    Thread,
    #[cfg(test)]
    Seeded(Box<std::sync::Mutex<rand::rngs::StdRng>>),
}

impl Chance {
    #[cfg(test)]
    pub(super) fn seeded(seed: u64) -> Self {
        Self::Seeded(Box::new(std::sync::Mutex::new(rand::SeedableRng::seed_from_u64(seed))))
    }

    /// In 0..1.
    pub(super) fn share(&self) -> f64 {
        // As many bits as a number below one has.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn bits(&self) -> u64 {
        match self {
            Self::Thread => rand::rng().next_u64(),
            #[cfg(test)]
            Self::Seeded(rng) => rng.lock().expect("not poisoned").next_u64(),
        }
    }
}
