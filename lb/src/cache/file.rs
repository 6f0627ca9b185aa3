//! One file: what is in it, and how it is read and replaced. When that is done is decided elsewhere.
//!
//! The first line is the mark, the version and the XXH64 of all that follows; what follows is JSON, for people who look. A file
//! that is torn, altered, of another target, of another version or too old is left alone with a warning and overwritten at the
//! next good set: it is a copy of what the registry knows, and nothing is lost with it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use crate::pool::{Attributes, Backend, Key};

const MARK: &str = "tessera-lb-set";
const VERSION: &str = "1";
/// A set of a hundred thousand instances. A larger one is not kept: it would be read at every start.
const MAX_BYTES: u64 = 32 << 20;
/// Addresses of a week ago belong to others, more likely than not.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A set as it was kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Saved {
    /// Those that could be called. Whose certificate is expected of them is not kept: that is the reader's to say.
    pub(crate) backends: Vec<Backend>,
    pub(crate) revision: i64,
    /// When the registry last stood by it.
    pub(crate) at: SystemTime,
}

/// Where the set of one target is.
#[derive(Debug)]
pub(super) struct CacheFile {
    dir: PathBuf,
    path: PathBuf,
    target: String,
    /// Trouble is told when it begins, and not every ten minutes.
    is_failing: AtomicBool,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("not a set of this version")]
    NotOurs,
    #[error("its checksum is wrong: torn or altered")]
    Corrupt,
    #[error("its content makes no sense")]
    Senseless(#[from] serde_json::Error),
    #[error("an address in it makes no sense: {0}")]
    Address(&'static str),
    #[error("of another target: {0}")]
    Foreign(String),
    #[error("{} days old", .0.as_secs() / 86_400)]
    TooOld(Duration),
}

#[derive(Serialize, Deserialize)]
struct Content {
    target: String,
    saved_at_ms: u64,
    revision: i64,
    instances: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    address: String,
    is_secured: bool,
    weight: u32,
    epoch: i64,
    version: String,
    group: String,
    zone: String,
    tag: String,
    metadata: BTreeMap<String, String>,
    started_at_ms: Option<u64>,
}

impl CacheFile {
    pub(super) fn new(dir: PathBuf, service: &str, target: String) -> Self {
        // The name is for people; what tells targets apart is the hash.
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = service.chars().take(64).map(plain).collect();
        let hash = XxHash64::oneshot(0, target.as_bytes());
        Self {
            path: dir.join(format!("{name}-{hash:016x}.set")),
            dir,
            target,
            is_failing: AtomicBool::new(false),
        }
    }

    /// The set, if there is one that is of any use. Blocks.
    pub(super) fn load(&self, now: SystemTime) -> Option<Saved> {
        match self.read().and_then(|bytes| decode(&bytes, &self.target, now)) {
            Ok(saved) => Some(saved),
            // The usual first start.
            Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the kept set of instances is ignored");
                None
            }
        }
    }

    /// Replaces the file. Blocks. A failure is a warning: it costs nothing but the next start without a registry.
    pub(super) fn store(&self, saved: &Saved) {
        self.tell(encode(saved, &self.target).and_then(|bytes| self.replace(&bytes)));
    }

    /// Says of the set in the file that the registry still stands by it. Blocks.
    pub(super) fn refresh(&self, now: SystemTime) {
        if let Some(saved) = self.load(now) {
            self.store(&Saved { at: now, ..saved });
        }
    }

    fn tell(&self, result: io::Result<()>) {
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) if !was_failing => {
                tracing::warn!(path = %self.path.display(), %error, "the set of instances cannot be kept on disk");
            }
            Ok(()) if was_failing => tracing::info!(path = %self.path.display(), "the set of instances is kept again"),
            _ => {}
        }
    }

    fn read(&self) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Unreadable::TooLarge);
        }
        Ok(bytes)
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("it is too large"));
        }
        fs::create_dir_all(&self.dir)?;
        // Of its own name: another process, or another channel of this one, may keep the same target.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let beside = self.path.with_extension(format!("{}-{count}.tmp", std::process::id()));
        let written = write_synced(&beside, bytes).and_then(|()| fs::rename(&beside, &self.path));
        if written.is_err() {
            // What is left of it is of no use; that it cannot be removed either changes nothing.
            let _ = fs::remove_file(&beside);
        }
        written?;
        // Or the rename itself may be forgotten.
        File::open(&self.dir)?.sync_all()
    }
}

fn write_synced(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Who runs where is nobody else's business.
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(saved: &Saved, target: &str) -> io::Result<Vec<u8>> {
    let row = |backend: &Backend| {
        let is = &backend.attributes;
        Row {
            id: backend.key.instance_id.to_string(),
            address: backend.key.address.to_string(),
            is_secured: backend.key.is_secured,
            weight: backend.weight,
            epoch: backend.epoch,
            version: is.version.clone(),
            group: is.group.clone(),
            zone: is.zone.clone(),
            tag: is.tag.clone(),
            metadata: is.metadata.clone(),
            started_at_ms: is.started_at.map(to_ms),
        }
    };
    let content = Content {
        target: target.to_owned(),
        saved_at_ms: to_ms(saved.at),
        revision: saved.revision,
        instances: saved.backends.iter().map(row).collect(),
    };
    let body = serde_json::to_vec(&content)?;
    let mut bytes = format!("{MARK} {VERSION} {:016x}\n", XxHash64::oneshot(0, &body)).into_bytes();
    bytes.extend(body);
    Ok(bytes)
}

fn decode(bytes: &[u8], target: &str, now: SystemTime) -> Result<Saved, Unreadable> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(Unreadable::NotOurs)?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| Unreadable::NotOurs)?;
    let sum = head
        .strip_prefix(MARK)
        .and_then(|rest| rest.strip_prefix(' ')?.strip_prefix(VERSION)?.strip_prefix(' '))
        .ok_or(Unreadable::NotOurs)?;
    if sum != format!("{:016x}", XxHash64::oneshot(0, body)) {
        return Err(Unreadable::Corrupt);
    }
    let content: Content = serde_json::from_slice(body)?;
    if content.target != target {
        return Err(Unreadable::Foreign(content.target));
    }
    let at = from_ms(content.saved_at_ms);
    // A clock that was set back since makes it new, which is the best guess.
    let age = now.duration_since(at).unwrap_or_default();
    if age > MAX_AGE {
        return Err(Unreadable::TooOld(age));
    }
    let backends: Result<Vec<Backend>, Unreadable> = content.instances.into_iter().map(backend_of).collect();
    Ok(Saved {
        backends: backends?,
        revision: content.revision,
        at,
    })
}

fn backend_of(row: Row) -> Result<Backend, Unreadable> {
    let (address, authority) = crate::target::parse_address(&row.address).map_err(Unreadable::Address)?;
    Ok(Backend {
        key: Key {
            instance_id: row.id.into(),
            address: address.into(),
            is_secured: row.is_secured,
        },
        authority,
        secured: None,
        weight: row.weight.clamp(1, 1000),
        attributes: Arc::new(Attributes {
            semver: row.version.parse().ok(),
            version: row.version,
            group: row.group,
            zone: row.zone,
            tag: row.tag,
            metadata: row.metadata,
            started_at: row.started_at_ms.map(from_ms),
        }),
        epoch: row.epoch,
        registry: 0,
    })
}

/// Since 1970; earlier times are 1970.
fn to_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn from_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(port: u16) -> Backend {
        backend_of(Row {
            id: format!("i-{port}"),
            address: format!("[::1]:{port}"),
            is_secured: port.is_multiple_of(2),
            weight: u32::from(port),
            epoch: 9,
            version: "1.2.3".to_owned(),
            group: "g".to_owned(),
            zone: "z".to_owned(),
            tag: "t".to_owned(),
            metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            started_at_ms: Some(5),
        })
        .expect("an address")
    }

    fn saved() -> Saved {
        Saved {
            backends: vec![backend(1), backend(2)],
            revision: 77,
            at: from_ms(1_000_000),
        }
    }

    const NOW: SystemTime = UNIX_EPOCH;

    #[test]
    fn what_was_kept_is_found_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = CacheFile::new(dir.path().join("deeper"), "ticket-svc", "default/ticket-svc".to_owned());
        assert_eq!(file.load(NOW), None, "nothing yet, and no warning about it");
        file.store(&saved());
        assert_eq!(file.load(NOW), Some(saved()));
        let later = saved().at + Duration::from_secs(60);
        file.refresh(later);
        assert_eq!(file.load(NOW).expect("still there").at, later);
        let names: Vec<_> = fs::read_dir(&file.dir).expect("there").filter_map(Result::ok).collect();
        assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    }

    #[test]
    fn a_torn_or_altered_file_is_never_believed() {
        let bytes = encode(&saved(), "t").expect("encodes");
        assert_eq!(decode(&bytes, "t", NOW).expect("whole"), saved());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], "t", NOW).is_err(), "cut after {end} bytes");
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(decode(&altered, "t", NOW).is_err(), "byte {at} is another one");
        }
    }

    #[test]
    fn files_of_others_and_old_ones_are_not_believed() {
        let bytes = encode(&saved(), "t").expect("encodes");
        assert!(matches!(decode(&bytes, "u", NOW), Err(Unreadable::Foreign(_))));
        let late = saved().at + MAX_AGE + Duration::from_secs(1);
        assert!(matches!(decode(&bytes, "t", late), Err(Unreadable::TooOld(_))));
        assert!(decode(&bytes, "t", saved().at + MAX_AGE).is_ok());
    }
}
