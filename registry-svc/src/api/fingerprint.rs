//! Telling whether two requests say the same.

use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};

/// SHA-256 over what a value hashes, so that nobody can make two bodies that pass for one. The same within one process of one
/// build, which is as long as request ids are remembered.
pub(super) fn fingerprint(value: &impl Hash) -> [u8; 32] {
    let mut hasher = Sha256Hasher(Sha256::new());
    value.hash(&mut hasher);
    hasher.0.finalize().into()
}

struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not what is wanted of it; the first 8 bytes of the digest are as good as any.
    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_bodies_apart() {
        assert_eq!(fingerprint(&("a", 1)), fingerprint(&("a", 1)));
        assert_ne!(fingerprint(&("a", 1)), fingerprint(&("a", 2)));
        // Text that moves from one field to the next is another body.
        assert_ne!(fingerprint(&("ab", "c")), fingerprint(&("a", "bc")));
        assert_ne!(
            fingerprint(&(Some(""), None::<&str>)),
            fingerprint(&(None::<&str>, Some("")))
        );
    }
}
