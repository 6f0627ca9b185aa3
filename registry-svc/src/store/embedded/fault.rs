//! What can go wrong inside the store, before it is known at what.

use std::path::Path;

use super::tables::FORMAT;
use crate::store::{StoreError, record::RecordError};

/// See the module.
#[derive(Debug)]
pub(super) enum Fault {
    /// redb's, and what the disk said to it.
    Engine(redb::Error),
    /// A record of something does not decode.
    Record(String, RecordError),
    /// A record of something is not what was written.
    Damaged(String, String),
    /// Written by a version that knows more.
    NewerFormat(u64),
}

impl Fault {
    pub(super) fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged(what.into(), why.into())
    }

    /// As what happened at an action in a directory.
    pub(super) fn at(self, action: &'static str, directory: &Path) -> StoreError {
        let path = directory.to_owned();
        match self {
            Self::Engine(source) => StoreError::Engine {
                path,
                action,
                source: Box::new(source),
            },
            Self::Record(what, why) => StoreError::Damaged {
                path,
                what,
                why: why.to_string(),
            },
            Self::Damaged(what, why) => StoreError::Damaged { path, what, why },
            Self::NewerFormat(found) => StoreError::NewerFormat {
                path,
                found,
                known: FORMAT,
            },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Record(what, why) => write!(f, "the record of {what} is damaged: {why}"),
            Self::Damaged(what, why) => write!(f, "the record of {what} is damaged: {why}"),
            Self::NewerFormat(found) => write!(f, "it has format {found}, this registry reads {FORMAT}"),
        }
    }
}

/// redb has an error type for each of its steps.
macro_rules! from_redb {
    ($($error:ident),*) => {
        $(
            impl From<redb::$error> for Fault {
                fn from(error: redb::$error) -> Self {
                    Self::Engine(error.into())
                }
            }
        )*
    };
}

from_redb!(Error, StorageError, TableError, TransactionError, CommitError);
