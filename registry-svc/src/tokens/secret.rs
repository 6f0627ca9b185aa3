//! A token's text: drawn, taken apart, hashed.

use std::fmt;

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

/// What every token begins with, so that scanners find those that got where they should not be.
const PREFIX: &str = "tsr_";
/// Characters of an id: 60 bits, so that two in one file are not alike by accident.
const ID_CHARS: usize = 12;
const ID_LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters of a secret: 258 bits.
const SECRET_CHARS: usize = 43;
/// RFC 4648, section 5.
const SECRET_LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The whole of a token as its holder sends it. Shown once; its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Draws one, from a generator fit for keys that the operating system has seeded.
    pub(crate) fn draw() -> Self {
        let mut rng = rand::rng();
        let mut text = String::with_capacity(PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS);
        text.push_str(PREFIX);
        text.extend((0..ID_CHARS).map(|_| char::from(ID_LETTERS[rng.random_range(0..ID_LETTERS.len())])));
        text.push('_');
        text.extend((0..SECRET_CHARS).map(|_| char::from(SECRET_LETTERS[rng.random_range(0..SECRET_LETTERS.len())])));
        Self(text)
    }

    /// The text, to be handed to its holder.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The id within.
    pub(crate) fn id(&self) -> &str {
        id(&self.0).unwrap_or_default()
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// The id of what has the form of a token.
pub(crate) fn id(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_id = is_id(id);
    let is_secret = secret.len() == SECRET_CHARS && secret.bytes().all(|byte| SECRET_LETTERS.contains(&byte));
    (is_id && is_secret).then_some(id)
}

/// Whether that could be an id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(|byte| ID_LETTERS.contains(&byte))
}

/// Of the whole text: an id and a secret of different tokens do not go together.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// What somebody gave for an id, fit for a message: a secret given by mistake is not repeated.
pub(crate) fn shortened(text: &str) -> String {
    match text {
        text if text.starts_with(PREFIX) => {
            "a whole token (give its id alone: the part between the underscores)".to_owned()
        }
        text => format!("{:?}", text.chars().take(32).collect::<String>()),
    }
}
