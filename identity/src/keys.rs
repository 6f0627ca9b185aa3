//! Ed25519 key pairs, public keys and sets of them. Not about what is signed.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The bytes of a signature.
pub type Signature = [u8; 64];

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("no key could be made: the system gave no random bytes")]
    NoRandomness,
    /// What was stored is no key pair, or its halves do not fit each other.
    #[error("this is no Ed25519 key pair (PKCS#8, version 2)")]
    NoKeyPair,
    /// It is not 32 bytes.
    #[error("this is no Ed25519 public key")]
    NoPublicKey,
    /// The document is no set of keys.
    #[error("this is no JSON Web Key Set of Ed25519 keys")]
    NoKeySet,
}

/// The name of a key: the first 64 bits of the SHA-256 of its public half, as 16 hexadecimal digits. Nobody chooses it, so two
/// keys have one name only by an accident of 2⁻³² among 65,536 keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(String);

/// A key pair that signs. Its private half is never printed.
pub struct KeyPair {
    /// PKCS#8, as it is stored.
    document: Vec<u8>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// What is published of a key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
    kid: Kid,
}

/// The public keys that signatures are accepted from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<PublicKey>);

impl KeyPair {
    /// Draws a new one from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::NoRandomness)?;
        Self::from_stored(document.as_ref())
    }

    /// Takes up one from what [`KeyPair::to_stored`] gave. Halves that do not fit each other are refused.
    ///
    /// # Errors
    /// [`KeyError::NoKeyPair`].
    pub fn from_stored(document: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(document).map_err(|_| KeyError::NoKeyPair)?;
        let public = PublicKey::from_bytes(pair.public_key().as_ref())?;
        Ok(Self {
            document: document.to_vec(),
            pair,
            public,
        })
    }

    /// The pair as PKCS#8, to be stored where secrets are.
    #[must_use]
    pub fn to_stored(&self) -> &[u8] {
        &self.document
    }

    /// What is published of it.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Its name.
    #[must_use]
    pub fn kid(&self) -> &Kid {
        self.public.kid()
    }

    /// Signs. Equal messages have equal signatures.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        // Ed25519 signatures have 64 bytes (RFC 8032, 5.1.6).
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

impl PublicKey {
    /// Takes the 32 bytes of a public key.
    ///
    /// # Errors
    /// [`KeyError::NoPublicKey`] when they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::NoPublicKey)?;
        let digest = Sha256::digest(bytes);
        let kid = Kid(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(Self { bytes, kid })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Its name.
    #[must_use]
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Whether this key pair's owner signed the message.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(message, signature)
            .is_ok()
    }
}

impl KeySet {
    /// A set; of equal keys one stays.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_by(|one, other| one.kid.cmp(&other.kid));
        keys.dedup();
        Self(keys)
    }

    /// The key of that name.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.kid.as_str() == kid)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, by name.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }

    /// As a JSON Web Key Set (RFC 7517, RFC 8037).
    #[must_use]
    pub fn to_jwks(&self) -> String {
        let keys = self.0.iter().map(|key| Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(key.bytes),
            kid: Some(key.kid.to_string()),
        });
        let set = Jwks { keys: keys.collect() };
        // Strings only: this cannot fail.
        serde_json::to_string_pretty(&set).unwrap_or_default()
    }

    /// From a JSON Web Key Set whose keys are all Ed25519 ones, at least one.
    ///
    /// # Errors
    /// [`KeyError::NoKeySet`]; also when a key's name is not the one that we would give it: then it was made for something else.
    pub fn from_jwks(text: &str) -> Result<Self, KeyError> {
        let set: Jwks = serde_json::from_str(text).map_err(|_| KeyError::NoKeySet)?;
        let keys: Option<Vec<_>> = set.keys.iter().map(Jwk::key).collect();
        let keys = keys.filter(|keys| !keys.is_empty()).ok_or(KeyError::NoKeySet)?;
        Ok(Self::new(keys))
    }
}

#[derive(Serialize, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    kid: Option<String>,
}

impl Jwk {
    fn key(&self) -> Option<PublicKey> {
        if self.kty != "OKP" || self.crv != "Ed25519" {
            return None;
        }
        let key = PublicKey::from_bytes(&URL_SAFE_NO_PAD.decode(&self.x).ok()?).ok()?;
        let named_so = self.kid.as_ref().is_none_or(|kid| kid == key.kid.as_str());
        named_so.then_some(key)
    }
}

impl Kid {
    /// A name that was read somewhere; `None` if it cannot be one. There need be no key of that name.
    #[must_use]
    pub fn try_new(text: &str) -> Option<Self> {
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 16 && text.as_bytes().iter().all(is_hex)).then(|| Self(text.to_owned()))
    }

    /// Its 16 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Its name, never what it signs with.
impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("KeyPair").field(self.kid()).finish()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PublicKey").field(&self.kid).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_verified_and_nothing_else() {
        let pair = KeyPair::generate().expect("a pair");
        let other = KeyPair::generate().expect("a pair");
        let signature = pair.sign(b"a message");
        assert!(pair.public_key().verify(b"a message", &signature));
        assert!(!pair.public_key().verify(b"another", &signature));
        assert!(!other.public_key().verify(b"a message", &signature));
        assert!(!pair.public_key().verify(b"a message", &signature[..63]));
        let mut bent = signature;
        bent[7] ^= 1;
        assert!(!pair.public_key().verify(b"a message", &bent));
    }

    #[test]
    fn a_pair_comes_back_from_the_store_and_from_nothing_else() {
        let pair = KeyPair::generate().expect("a pair");
        let again = KeyPair::from_stored(pair.to_stored()).expect("the same pair");
        assert_eq!(again.public_key(), pair.public_key());
        assert_eq!(again.sign(b"x"), pair.sign(b"x"));
        for bad in [&b""[..], &pair.to_stored()[1..], b"not a key"] {
            assert_eq!(KeyPair::from_stored(bad).err(), Some(KeyError::NoKeyPair));
        }
        // The last bytes are the public half.
        let mut unfitting = pair.to_stored().to_vec();
        *unfitting.last_mut().expect("bytes") ^= 1;
        assert_eq!(KeyPair::from_stored(&unfitting).err(), Some(KeyError::NoKeyPair));
    }

    /// RFC 8032, 7.1, test 1, so that a key is what others call an Ed25519 key.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let public = [
            0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1,
            0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
        ];
        let signature = [
            0xe5, 0x56, 0x43, 0x00, 0xc3, 0x60, 0xac, 0x72, 0x90, 0x86, 0xe2, 0xcc, 0x80, 0x6e, 0x82, 0x8a, 0x84, 0x87,
            0x7f, 0x1e, 0xb8, 0xe5, 0xd9, 0x74, 0xd8, 0x73, 0xe0, 0x65, 0x22, 0x49, 0x01, 0x55, 0x5f, 0xb8, 0x82, 0x15,
            0x90, 0xa3, 0x3b, 0xac, 0xc6, 0x1e, 0x39, 0x70, 0x1c, 0xf9, 0xb4, 0x6b, 0xd2, 0x5b, 0xf5, 0xf0, 0x59, 0x5b,
            0xbe, 0x24, 0x65, 0x51, 0x41, 0x43, 0x8e, 0x7a, 0x10, 0x0b,
        ];
        let key = PublicKey::from_bytes(&public).expect("32 bytes");
        assert!(key.verify(b"", &signature));
        // sha256sum of the 32 bytes.
        assert_eq!(key.kid().as_str(), "21fe31dfa154a261");
    }

    #[test]
    fn a_set_comes_back_from_its_document() {
        let keys = [1, 2].map(|_| KeyPair::generate().expect("a pair").public_key().clone());
        let set = KeySet::new(keys.clone());
        assert_eq!(KeySet::from_jwks(&set.to_jwks()), Ok(set.clone()));
        assert_eq!(set.get(keys[0].kid().as_str()), Some(&keys[0]));
        assert_eq!(set.get("0000000000000000"), None);
        let x = URL_SAFE_NO_PAD.encode(keys[0].as_bytes());
        for bad in [
            String::new(),
            "{}".to_owned(),
            r#"{"keys":[]}"#.to_owned(),
            format!(r#"{{"keys":[{{"kty":"RSA","crv":"Ed25519","x":"{x}"}}]}}"#),
            format!(r#"{{"keys":[{{"kty":"OKP","crv":"X25519","x":"{x}"}}]}}"#),
            format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"mine"}}]}}"#),
            format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}="}}]}}"#),
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}"#.to_owned(),
        ] {
            assert_eq!(KeySet::from_jwks(&bad), Err(KeyError::NoKeySet), "{bad}");
        }
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let pair = KeyPair::generate().expect("a pair");
        assert_eq!(format!("{pair:?}"), format!("KeyPair({})", pair.kid()));
    }
}
