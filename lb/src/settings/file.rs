//! A service config in a file that may change while we run. What it says is for others.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// The longest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// How often it is read again. Reading and comparing a small file is cheaper than trusting time stamps to tell of a change, and
/// works with files that are renamed into place and behind links.
const EVERY: Duration = Duration::from_secs(1);

/// The file, and what was found there last.
#[derive(Debug)]
pub(crate) struct WatchedFile {
    path: PathBuf,
    last: Found,
    again: Interval,
}

/// A text, or why there is none.
pub(crate) type Found = Result<String, String>;

impl WatchedFile {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(path: PathBuf, last: Found) -> Self {
        let mut again = interval(EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { path, last, again }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is found there once that is something else than before. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Found {
        loop {
            self.again.tick().await;
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || read_file(&path).map_err(|error| error.to_string()));
            // It cannot panic, and is cancelled only with the runtime.
            let Ok(found) = read.await else { continue };
            if found != self.last {
                self.last.clone_from(&found);
                return found;
            }
        }
    }
}

/// Reads a file, bounded.
pub(crate) fn read_file(path: &Path) -> io::Result<String> {
    // A pipe would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than {MAX_FILE} bytes"),
        ));
    }
    Ok(text)
}
