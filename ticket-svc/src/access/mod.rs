//! Who may call what: `rules` is the table by RPC, `keys` what tokens are checked with. That an event is the caller's own is
//! compared by the API, once the body is read.

pub(crate) mod keys;
pub(crate) mod rules;

use std::{path::PathBuf, sync::Arc};

use identity::{KeySet, Refused, gate::Shown};

use self::keys::Keys;

/// How this service knows who calls.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// By tokens, checked with the keys that the user service publishes: it is looked for in the registry.
    #[default]
    Discovered,
    /// By tokens, checked with the keys in this file: a JSON Web Key Set, read again when it changes.
    KeyFile(PathBuf),
    /// By tokens, checked with these keys.
    Keys(KeySet),
    /// Not at all: whoever reaches it may do everything.
    Open,
}

/// Decides about calls.
#[derive(Debug, Clone)]
pub(crate) enum Gatekeeper {
    /// By the table and these keys.
    Guarded(Arc<Keys>),
    /// Everybody may call what is in the table.
    Open,
}

impl Gatekeeper {
    /// Who calls, if they may call `path`. Blocks on nothing.
    pub(crate) fn decide(&self, path: &str, shown: Shown<'_>) -> Result<identity::Caller, Refused> {
        match self {
            Self::Guarded(keys) => {
                let decided = identity::gate::decide(rules::TABLE, path, shown, &keys.verifier(), keys::now());
                if let Err(refused) = &decided {
                    keys.noticed(refused);
                }
                decided
            }
            Self::Open => identity::gate::rule(rules::TABLE, path)
                .map(|_| identity::Caller::Anyone)
                .ok_or(Refused::NoSuchMethod),
        }
    }
}
