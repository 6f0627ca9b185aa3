//! The file of tokens: JSON for people to read, written whole or not at all.
//!
//! Others may read it (it has hashes of random secrets) but must not be able to write it: whoever can adds a token of their own.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{secret, set::Token};
use crate::access::scope::Scope;

/// The version of the format.
const VERSION: u32 = 1;
/// Tokens of a file. One for each service and person of a large firm; more is a mistake of a script.
const MOST: usize = 10_000;
/// Bytes of a file: so many tokens of 1.6 KiB.
const MOST_BYTES: u64 = 16 << 20;

/// Why a file of tokens cannot be used. One line, with what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokensError {
    /// There is none.
    #[error("there is no token file {path}; make one with `tessera token issue --file {path} --name NAME --scope SCOPE`", path = .0.display())]
    Absent(PathBuf),
    /// The operating system refused.
    #[error("the token file {} cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its content is not that of one.
    #[error("the token file {} cannot be used: {problem}; tokens are made and revoked with `tessera token`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A token cannot be as it is wanted.
    #[error("{0}")]
    Wanted(String),
    /// The id is none of the file's.
    #[error("no token has the id {0}; `tessera token list` shows them")]
    NoSuchToken(String),
}

/// What a missing file means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The first token makes it.
    IsEmpty,
    /// There is nothing to change.
    IsAnError,
}

#[derive(Serialize, Deserialize)]
// A field that is misspelt is not read over: without its `not_after` a token would never end.
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    tokens: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    /// 64 hexadecimal digits.
    sha256: String,
    scopes: Vec<String>,
    /// RFC 3339, as everything that people read; likewise the end.
    issued_at: String,
    not_after: Option<String>,
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Token>, TokensError> {
    let io = |source| failed(path, source);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TokensError::Absent(path.to_owned())),
        Err(error) => return Err(io(error)),
    };
    let wrong = |problem: String| TokensError::Content {
        path: path.to_owned(),
        problem,
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(wrong("it is no file".to_owned()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(wrong(format!(
            "others than its owner may write it (mode {:04o}), and so make tokens of their own: chmod 600 it",
            metadata.mode() & 0o7777
        )));
    }
    let mut text = String::new();
    let read = (&mut file).take(MOST_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if read as u64 > MOST_BYTES {
        return Err(wrong(format!("it has more than {MOST_BYTES} bytes")));
    }
    parse(&text).map_err(wrong)
}

/// The tokens of a file's text.
pub(super) fn parse(text: &str) -> Result<Vec<Token>, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| {
        // Never with what stands there: somebody may have put a secret into it.
        format!(
            "it is no JSON of tokens (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    if document.version != VERSION {
        return Err(format!(
            "it is of version {}, and this is the tessera of version {VERSION}",
            document.version
        ));
    }
    if document.tokens.len() > MOST {
        return Err(format!("it has more than {MOST} tokens"));
    }
    let tokens: Result<Vec<Token>, String> = document.tokens.into_iter().enumerate().map(token).collect();
    let tokens = tokens?;
    let mut ids: Vec<&str> = tokens.iter().map(Token::id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two of its tokens have the same id".to_owned());
    }
    Ok(tokens)
}

fn token((number, entry): (usize, Entry)) -> Result<Token, String> {
    let at = |problem: &str| format!("tokens[{number}]: {problem}");
    if !secret::is_id(&entry.id) {
        return Err(at("its id is none that `tessera token issue` makes"));
    }
    let hash = unhex(&entry.sha256)
        .ok_or_else(|| at("its sha256 must be 64 hexadecimal digits, the hash of a token that was made at random"))?;
    if entry.scopes.is_empty() || entry.scopes.len() > super::SCOPES {
        return Err(at(&format!("it must have 1 to {} scopes", super::SCOPES)));
    }
    let scopes: Result<Vec<Scope>, _> = entry.scopes.iter().map(|scope| scope.parse()).collect();
    let scopes = scopes.map_err(|error| at(&error.to_string()))?;
    let seconds = |text: &str| {
        let time: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(time.as_second()).ok()
    };
    let time = |text: &str| seconds(text).ok_or_else(|| at("its times must be like 2026-01-31T12:00:00Z"));
    let not_after = entry.not_after.as_deref().map(time).transpose()?;
    let issued_at = time(&entry.issued_at)?;
    Ok(Token::restored(
        &entry.id,
        &entry.name,
        hash,
        scopes,
        issued_at,
        not_after,
    ))
}

/// Reads, changes and writes a file. Two of these at the same time are done one after the other, so that neither is lost.
pub(super) fn change(
    path: &Path,
    absent: Absent,
    change: impl FnOnce(&mut Vec<Token>) -> Result<(), TokensError>,
) -> Result<(), TokensError> {
    let io = |source| failed(path, source);
    if absent == Absent::IsAnError && !path.exists() {
        return Err(TokensError::Absent(path.to_owned()));
    }
    // Beside it and not itself: the file is exchanged for another one.
    let lock = private()
        .create(true)
        .truncate(false)
        .open(beside(path, "lock"))
        .map_err(io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
    let mut tokens = match read(path) {
        Err(TokensError::Absent(_)) if absent == Absent::IsEmpty => Vec::new(),
        tokens => tokens?,
    };
    change(&mut tokens)?;
    if tokens.len() > MOST {
        return Err(TokensError::Wanted(format!(
            "{} has {MOST} tokens, the most there may be; revoke those that are not used",
            path.display()
        )));
    }
    write(path, &tokens).map_err(io)
}

/// After this the file is the new one, also after a power cut, or still the old one.
fn write(path: &Path, tokens: &[Token]) -> io::Result<()> {
    let temporary = beside(path, "new");
    // Left by somebody who was killed; nobody else writes one while we have the lock.
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = private().create_new(true).open(&temporary)?;
        file.write_all(text(tokens)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn text(tokens: &[Token]) -> io::Result<String> {
    let time = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_second(seconds).map_err(io::Error::other)?;
        io::Result::Ok(time.to_string())
    };
    let entry = |token: &Token| -> io::Result<Entry> {
        Ok(Entry {
            id: token.id().to_owned(),
            name: token.name().to_owned(),
            sha256: token.hash().iter().map(|byte| format!("{byte:02x}")).collect(),
            scopes: token.scopes().iter().map(ToString::to_string).collect(),
            issued_at: time(token.issued_at())?,
            not_after: token.not_after().map(time).transpose()?,
        })
    };
    let document = Document {
        version: VERSION,
        tokens: tokens.iter().map(entry).collect::<io::Result<_>>()?,
    };
    Ok(serde_json::to_string_pretty(&document).map_err(io::Error::other)? + "\n")
}

/// Opens for writing, for the owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn failed(path: &Path, source: io::Error) -> TokensError {
    TokensError::Io {
        path: path.to_owned(),
        source,
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(hash)
}
