//! Where records are kept, and in whose dialect of SQL. Read once, and never shown with a password. Opens nothing.

use std::{
    fmt,
    fmt::Write as _,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use sqlx::{any::AnyConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use super::OpenError;

/// Where a service keeps its records, as it was configured: a path or an `sqlite:` URL, or a `postgres://` URL.
///
/// Whatever shows it leaves out what may be a secret: `Debug` and `Display` tell a server and a database, or a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(String);

/// Whose SQL a statement is read by. Statements are written once; this is for the few that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A file. A write has it alone.
    Sqlite,
    /// A server. Writes run at once, at READ COMMITTED.
    Postgres,
}

/// A location that was read.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The file, and how it is opened.
    File { path: PathBuf, options: AnyConnectOptions },
    /// The server and the database, for messages, and how they are reached.
    Server {
        name: String,
        options: AnyConnectOptions,
        /// At most so many connections of this process.
        connections: u32,
    },
}

/// Connections of one process to a server, in all, unless its URL says `max_connections`. PostgreSQL takes 100 by default,
/// and a process is rarely alone.
const CONNECTIONS: u32 = 10;

/// Our own parameter of a URL.
const OURS: &str = "max_connections";

/// Those of sqlx 0.9 (`sqlx-postgres`, options/parse.rs).
const KNOWN: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// So much of a name that nobody knows is shown.
const LONGEST_NAME: usize = 40;

impl Dialect {
    /// As spans call it: `db.system.name`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgresql",
        }
    }
}

/// What ends a SELECT of rows that the transaction is about to decide on: on PostgreSQL they stay as they are until it ends.
/// Always in one order, or two transactions wait for each other. On SQLite the whole file stays as it is.
///
/// Not `FOR UPDATE`: that would make those wait who only refer to the row by a foreign key.
#[must_use]
pub const fn for_update(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR NO KEY UPDATE",
    }
}

impl Location {
    /// Whose SQL is spoken there.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.0.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Dialect::Postgres,
            _ => Dialect::Sqlite,
        }
    }

    /// The file, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        let file = match (self.dialect(), self.0.strip_prefix("sqlite:")) {
            (Dialect::Postgres, _) => return None,
            (Dialect::Sqlite, Some(url)) => url.strip_prefix("//").unwrap_or(url).split('?').next()?,
            (Dialect::Sqlite, None) => &self.0,
        };
        (!file.is_empty() && file != ":memory:").then(|| Path::new(file))
    }

    pub(super) fn place(&self) -> Result<Place, OpenError> {
        match self.dialect() {
            Dialect::Sqlite => file(&self.0),
            Dialect::Postgres => server(&self.0),
        }
    }
}

fn file(location: &str) -> Result<Place, OpenError> {
    if location.is_empty() || location.contains(":memory:") || location.contains("mode=memory") {
        return Err(OpenError::NoFile);
    }
    let invalid = |source| OpenError::Location { source };
    let (path, parameters) = if location.starts_with("sqlite:") {
        let options = SqliteConnectOptions::from_str(location).map_err(invalid)?;
        let parameters = location.split_once('?').map_or("", |(_, parameters)| parameters);
        (options.get_filename().to_path_buf(), parameters)
    } else if location.contains("://") {
        return Err(OpenError::Scheme);
    } else {
        (PathBuf::from(location), "")
    };
    let whole = whole(&path).map_err(|source| OpenError::File {
        path: path.clone(),
        source: sqlx::Error::Io(source),
    })?;
    let made = if parameters.contains("mode=") { "" } else { "mode=rwc&" };
    let url = format!("sqlite://{}?{made}{parameters}", escaped(&whole));
    let options = AnyConnectOptions::from_str(url.trim_end_matches(['&', '?'])).map_err(invalid)?;
    Ok(Place::File { path, options })
}

/// From the root, through real folders: a URL is read without regard to links, so that `a/../b` could be another file.
fn whole(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok(folder.canonicalize()?.join(name)),
        _ => Ok(path),
    }
}

/// As a part of a URL. sqlx does that too, but leaves '%' as it is, and reads another name then.
fn escaped(path: &Path) -> String {
    let mut escaped = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(*byte))
            }
            // Writing to a string does not fail.
            other => drop(write!(escaped, "%{other:02X}")),
        }
    }
    escaped
}

fn server(location: &str) -> Result<Place, OpenError> {
    let mut options = AnyConnectOptions::from_str(location).map_err(|source| OpenError::Location { source })?;
    let connections = connections(&mut options)?;
    let read = PgConnectOptions::from_str(options.database_url.as_str());
    let read = read.map_err(|source| OpenError::Location { source })?;
    Ok(Place::Server {
        name: server_name(&read),
        options,
        connections,
    })
}

/// Takes our own parameter out of a URL, in which it stands because it is a limit of that database as much as of this process, and
/// refuses what neither we nor sqlx know. sqlx would go on without them, and log their values: whoever writes `passwrod=` has
/// their password in the log, and `sslmod=verify-full` would be a connection that nobody has verified.
fn connections(options: &mut AnyConnectOptions) -> Result<u32, OpenError> {
    let mut connections = CONNECTIONS;
    let mut others = Vec::new();
    for (name, value) in options.database_url.query_pairs() {
        if name == OURS {
            let number = value.parse().ok().filter(|number| (2..=1_000).contains(number));
            connections = number.ok_or(OpenError::Connections)?;
        } else if is_known(&name) {
            others.push((name.into_owned(), value.into_owned()));
        } else {
            // A name without a value may be anything, also what was meant to be one.
            let shown = (!value.is_empty()).then(|| name.chars().take(LONGEST_NAME).collect());
            return Err(OpenError::Parameter { name: shown });
        }
    }
    options.database_url.set_query(None);
    if !others.is_empty() {
        options.database_url.query_pairs_mut().extend_pairs(others);
    }
    Ok(connections)
}

fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || (name.starts_with("options[") && name.ends_with(']'))
}

/// Who is asked for what, without the password.
fn server_name(options: &PgConnectOptions) -> String {
    let at = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{database} at {at}")
}

impl From<&str> for Location {
    fn from(location: &str) -> Self {
        Self(location.to_owned())
    }
}

impl From<String> for Location {
    fn from(location: String) -> Self {
        Self(location)
    }
}

impl From<&Path> for Location {
    /// A path that is not UTF-8 names no store.
    fn from(path: &Path) -> Self {
        Self(path.to_string_lossy().into_owned())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dialect() {
            Dialect::Sqlite => formatter.write_str(&self.0),
            // As it is opened: sqlx would log what it does not know of it.
            Dialect::Postgres => match self.place() {
                Ok(Place::Server { name, .. }) => write!(formatter, "postgres: {name}"),
                _ => formatter.write_str("postgres: a URL that cannot be read"),
            },
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_tells_its_dialect_and_its_file() {
        for (location, dialect, file) in [
            ("users.db", Dialect::Sqlite, Some("users.db")),
            ("/data/users.db", Dialect::Sqlite, Some("/data/users.db")),
            ("sqlite:users.db", Dialect::Sqlite, Some("users.db")),
            (
                "sqlite:///data/users.db?mode=rwc",
                Dialect::Sqlite,
                Some("/data/users.db"),
            ),
            ("sqlite::memory:", Dialect::Sqlite, None),
            ("postgres://h/users", Dialect::Postgres, None),
            ("postgresql://h/users", Dialect::Postgres, None),
        ] {
            let read = Location::from(location);
            assert_eq!(
                (read.dialect(), read.file()),
                (dialect, file.map(Path::new)),
                "{location}"
            );
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for location in [
            "postgres://ada:secret@db.example:5433/users",
            "postgres://ada@db.example:5433/users?password=secret",
            "postgres://ada:secret@db.example:port/users",
            "postgresql://ada:secret@/users?host=/run/postgresql",
            "postgres://ada:secret@db.example/users?sslmode=nonsense",
            "postgres://ada@db.example/users?passwrod=secret",
            "postgres://ada@db.example/users?secret",
        ] {
            let read = Location::from(location);
            let shown = format!("{read} {read:?} {:?}", read.place().map(|_| "read"));
            assert!(!shown.contains("secret"), "{shown}");
        }
        let read = Location::from("postgres://ada:secret@db.example:5433/users");
        assert_eq!(read.to_string(), "postgres: users at db.example:5433");
    }

    #[test]
    fn a_url_can_say_how_many_connections() {
        for (location, expected) in [
            ("postgres://h/users", Some(10)),
            (
                "postgres://h/users?sslmode=disable&max_connections=25&application_name=a%20b",
                Some(25),
            ),
            ("postgres://h/users?max_connections=1", None),
            ("postgres://h/users?max_connections=many", None),
        ] {
            match (Location::from(location).place(), expected) {
                (
                    Ok(Place::Server {
                        connections, options, ..
                    }),
                    Some(expected),
                ) => {
                    assert_eq!(connections, expected, "{location}");
                    let left = options.database_url.as_str().to_owned();
                    assert!(!left.contains("max_connections"), "PostgreSQL does not know it: {left}");
                    assert_eq!(
                        left.contains("application_name=a"),
                        location.contains("application"),
                        "{left}"
                    );
                }
                (Err(OpenError::Connections), None) => {}
                (other, _) => panic!("{location}: {other:?}"),
            }
        }
    }

    /// sqlx went on without what it did not know, and logged its value.
    #[test]
    fn what_a_url_says_is_known_or_refused_by_name() {
        for (parameter, named) in [
            ("passwrod=secret", Some("passwrod")),
            ("sslmod=verify-full", Some("sslmod")),
            ("connect_timeout=5", Some("connect_timeout")),
            ("Sslmode=require", Some("Sslmode")),
            ("secret", None),
            ("=secret", Some("")),
        ] {
            let read = Location::from(format!("postgres://ada@h/users?sslmode=require&{parameter}"));
            match read.place() {
                Err(error @ OpenError::Parameter { .. }) => {
                    let said = error.to_string();
                    assert!(!said.contains("secret"), "{said}");
                    assert!(said.contains("sslrootcert"), "those there are: {said}");
                    assert!(named.is_none_or(|name| said.contains(name)), "{said}");
                }
                other => panic!("{parameter}: {other:?}"),
            }
        }
        for name in KNOWN {
            let value = match name {
                "sslmode" | "ssl-mode" => "require",
                "port" | "statement-cache-capacity" => "5",
                "hostaddr" => "127.0.0.1",
                _ => "x",
            };
            let read = Location::from(format!("postgres://h/users?{name}={value}&options[a]=b"));
            read.place().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    /// sqlx makes a URL of a path and leaves '%' in it, so that `a%20b.db` was the file `a b.db`.
    #[test]
    fn a_file_may_be_called_anything() {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        for name in ["a b.db", "a%20b.db", "ä.db", "a?b#c.db", "a:b|c.db"] {
            let path = folder.path().join(name);
            let Place::File { options, .. } = Location::from(path.as_path()).place().expect("a place") else {
                panic!("{name} is a file")
            };
            let read = SqliteConnectOptions::from_str(options.database_url.as_str()).expect("a URL");
            let whole = folder.path().canonicalize().expect("a folder").join(name);
            assert_eq!(read.get_filename(), whole);
        }
    }
}
