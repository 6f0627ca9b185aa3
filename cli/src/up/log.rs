//! A child's log file: opened for the child to write to by itself, so that its log goes on even when `up` is stopped or
//! killed. Bounded by moving the content aside, never by reading along.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use crate::output::plain;

/// A log may grow to this size, and there may be one older one: 32 MiB a child at most.
const LARGEST: u64 = 16 << 20;
/// A report shows so many lines: what a terminal has room for beside the rest.
pub(crate) const LAST_LINES: usize = 12;
/// The last lines are looked for in so many bytes.
const TAIL: u64 = 16 << 10;

/// A child's log file.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// The log at `path`; a former run's is kept as `….log.1`.
    pub(crate) fn begin(path: PathBuf) -> io::Result<Self> {
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
            fs::rename(&path, older(&path))?;
        }
        let log = Self { path };
        log.open()?;
        Ok(log)
    }

    /// For a child's stderr. Appending, so that several lives of a child and a cut go together.
    pub(crate) fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How much is in it now: where a new life's lines begin.
    pub(crate) fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Moves the content aside when it has become too much. What is written between the two steps is lost; the
    /// alternative, a rename, would leave the child writing to the old file.
    pub(crate) fn bound(&self) -> io::Result<()> {
        if self.size() <= LARGEST {
            return Ok(());
        }
        fs::copy(&self.path, older(&self.path))?;
        self.open()?.set_len(0)
    }

    /// The last lines after `start`, oldest first; none when the file cannot be read.
    pub(crate) fn last_lines(&self, start: u64) -> Vec<String> {
        self.tail(start).map_or_else(|_| Vec::new(), |text| last_lines(&text))
    }

    fn tail(&self, start: u64) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let len = file.metadata()?.len();
        // A cut since then makes the file shorter than where the life began.
        let start = if start > len { 0 } else { start };
        file.seek(SeekFrom::Start(start.max(len.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn last_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(LAST_LINES);
    // A log is not trusted with our terminal: what could steer it is left out.
    lines[first..].iter().map(|line| plain(line)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_report_has_the_last_lines_of_this_life_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::begin(folder.path().join("a.log")).expect("a log");
        writeln!(log.open().expect("open"), "of the first life").expect("written");
        let second = log.size();
        let mut file = log.open().expect("open");
        for number in 0..100 {
            writeln!(file, "line {number}").expect("written");
        }
        let lines = log.last_lines(second);
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines.last().map(String::as_str), Some("line 99"));
        writeln!(file, "\u{1b}[31mred\u{1b}[0m").expect("written");
        assert_eq!(log.last_lines(second).last().map(String::as_str), Some("red"));
    }

    #[test]
    fn a_former_run_is_kept_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        fs::write(&path, "old\n").expect("written");
        let log = Log::begin(path).expect("a log");
        assert_eq!(log.size(), 0);
        assert_eq!(
            fs::read_to_string(folder.path().join("a.log.1")).expect("kept"),
            "old\n"
        );
    }

    #[test]
    fn a_log_is_cut_when_it_is_too_large_and_its_writer_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::begin(folder.path().join("a.log")).expect("a log");
        let mut writer = log.open().expect("open");
        writer.set_len(LARGEST + 1).expect("grown");
        log.bound().expect("cut");
        assert_eq!(log.size(), 0);
        writeln!(writer, "after").expect("written");
        assert_eq!(log.last_lines(LARGEST), ["after"]);
    }
}
