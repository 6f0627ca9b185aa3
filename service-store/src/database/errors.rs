//! What an error of the store means to those who asked: it passes by itself, it wants the whole transaction again, or neither.

use sqlx::error::DatabaseError;

use super::{Dialect, group::NotCommitted};

/// An error of a service's store that knows whether its transaction met another one and only has to be made again. See
/// [`Database::retried`](super::Database::retried).
pub trait Conflict {
    /// Would the same transaction, made again, find out what the other one did?
    fn is_conflict(&self) -> bool;
}

impl Conflict for sqlx::Error {
    fn is_conflict(&self) -> bool {
        is_conflict(self)
    }
}

/// Primary result codes of SQLite.
const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;

/// States of PostgreSQL (Appendix A of its manual) that say: not now. 53300 too many connections, 55P03 a lock was not to be
/// had in time, 57014 the statement took too long, 57P01-57P03 the server stops or starts, 57P05 and 25P03 the session or its
/// transaction was idle for too long.
const NOT_NOW: [&str; 8] = ["53300", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "25P03"];

/// States of PostgreSQL that undo the transaction because of another one: a serialization failure, a deadlock, and a row that
/// another one has made since this one looked for it.
const MET_ANOTHER: [&str; 3] = ["40001", "40P01", "23505"];

/// Is the store only busy, or away for a moment? Then a retry may help. Where a commit was under way, it may have been made.
#[must_use]
pub fn is_busy(error: &sqlx::Error) -> bool {
    match NotCommitted::cause(error) {
        // Connections end when the server does, or the network; the pool makes new ones.
        sqlx::Error::PoolTimedOut => true,
        // But a server that proves to be another one (rustls says so by this kind) does not become the right one.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        sqlx::Error::Database(database) => match state_of(database.as_ref()) {
            State::Sqlite(Some(code)) => matches!(code, SQLITE_BUSY | SQLITE_LOCKED),
            State::Sqlite(None) => false,
            // Class 08: the connection.
            State::Postgres(code) => code.starts_with("08") || NOT_NOW.contains(&code.as_str()),
        },
        _ => false,
    }
}

/// Was the transaction undone because it met another one? Made again, it sees what the other one did. Never on SQLite, where
/// a write has the file alone.
#[must_use]
pub fn is_conflict(error: &sqlx::Error) -> bool {
    let Some(database) = error.as_database_error() else {
        return false;
    };
    match state_of(database) {
        State::Postgres(code) => MET_ANOTHER.contains(&code.as_str()),
        State::Sqlite(_) => false,
    }
}

/// What an error is called in spans: a code of the database, or the name of what else there is. Never its text.
pub(super) fn kind_of(error: &sqlx::Error) -> String {
    match NotCommitted::cause(error) {
        sqlx::Error::Database(database) => match state_of(database.as_ref()) {
            State::Sqlite(_) => {
                let code = database.code();
                code.map_or_else(|| Dialect::Sqlite.name().into(), |code| format!("sqlite {code}"))
            }
            State::Postgres(code) => format!("postgresql {code}"),
        },
        sqlx::Error::PoolTimedOut => "timeout".into(),
        sqlx::Error::Io(_) => "io".into(),
        _ => "_OTHER".into(),
    }
}

enum State {
    /// The primary result code.
    Sqlite(Option<i64>),
    /// Five characters.
    Postgres(String),
}

/// By the error's own type: "25P03" is a state, but "23505" could be either's by its looks.
fn state_of(error: &dyn DatabaseError) -> State {
    let code = error.code();
    match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        Some(error) => State::Postgres(error.code().to_owned()),
        // The low byte of an extended code is the primary one.
        None => State::Sqlite(code.and_then(|code| code.parse::<i64>().ok()).map(|code| code & 0xff)),
    }
}
