//! Tells whether a repeated request has the same body as the first one. Not a secret and not a signature.

use sha2::{Digest as _, Sha256};

/// SHA-256 over the fields of a request that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Collects the fields of one request.
#[derive(Debug)]
pub struct FingerprintBuilder(Sha256);

impl Fingerprint {
    /// Begins with what is asked, so that equal fields of two methods differ.
    #[must_use]
    pub fn of(method: &'static str) -> FingerprintBuilder {
        FingerprintBuilder(Sha256::new()).text(method)
    }

    /// Is it the one that was stored?
    #[must_use]
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.0 == stored
    }

    /// To be stored.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl FingerprintBuilder {
    /// Adds text. Its length goes first: without it "ab"+"c" and "a"+"bc" would be one request.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: i128) -> Self {
        self.0.update(number.to_be_bytes());
        self
    }

    /// The fingerprint of what was added.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_character_between_fields_is_another_body() {
        let one = Fingerprint::of("M").text("ab").text("c").finish();
        let other = Fingerprint::of("M").text("a").text("bc").finish();
        assert_ne!(one, other);
        assert_eq!(one, Fingerprint::of("M").text("ab").text("c").finish());
    }
}
