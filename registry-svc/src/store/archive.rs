//! What a backup looks like: the state at one revision with the history that leads to it, apart from any store's own files, so
//! that the format of either can change without the other. It reads and writes bytes, and knows no store.
//!
//! ```text
//! "tessera-backup 1\n", then frames: their length (4 bytes, little endian), and one of
//!   1 Head   { 1 history (fixed64)  2 revision  3 compacted  4 Time taken }      first
//!   2 Living { 1 Instance*  2 Lease*  3 Override* }                              by key, then by id, then by key
//!   3 Past   { 1 last revision  2 Group }                                        in order, from after `compacted`
//!   4 End    { 1 instances  2 leases  3 SHA-256 of every byte before this frame  4 overrides } last
//! ```
//!
//! The messages that are not here are those of [`super::record`], whose rules of change hold.

mod check;

use std::io::{self, Read};

pub(crate) use check::{Check, Key, verify};
use sha2::{Digest as _, Sha256};

use super::record::wire::{Fields, WireError, Writer};
use crate::model::{HistoryId, LeaseId, Revision, WallTime};

const MAGIC: &[u8] = b"tessera-backup ";
const FORMAT: &[u8] = b"1\n";
/// Frames of records are closed at this size.
const FRAME_BYTES: usize = 256 * 1024;
/// No frame is larger. A group is a few megabytes as a rule; before they were bounded, one in which everything lapsed at once
/// was as large as all of that.
const FRAME_MAX: usize = 1024 * 1024 * 1024;

/// What a backup is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of the registry that it was taken from.
    pub(crate) history_id: HistoryId,
    /// Everything up to and with it is in the backup.
    pub(crate) revision: Revision,
    /// The last revision that the history does not have.
    pub(crate) compacted: Revision,
    /// When it was taken, by that registry's wall clock.
    pub(crate) taken: WallTime,
}

/// What a backup holds, once it is known to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Of what.
    pub(crate) head: Head,
    /// How many.
    pub(crate) instances: u64,
    /// How many.
    pub(crate) leases: u64,
    /// How many.
    pub(crate) overrides: u64,
    /// Of the file.
    pub(crate) bytes: u64,
}

/// A part of a backup.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    /// First.
    Head(Head),
    /// A record.
    Instance(&'a [u8]),
    /// A record with its id.
    Lease(&'a [u8]),
    /// A record with its key.
    Override(&'a [u8]),
    /// A group, and its last revision.
    Past(Revision, &'a [u8]),
}

/// Why a file is no backup that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a backup of a registry")]
    Foreign,
    /// By a later version.
    #[error("it was written by a version that knows more: use that one or a newer one")]
    Newer,
    /// It was cut off, or changed.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl From<WireError> for ArchiveError {
    fn from(error: WireError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Writes one.
pub(crate) struct Archive<'a> {
    to: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
    hash: Sha256,
    living: Writer,
    instances: u64,
    leases: u64,
    overrides: u64,
}

impl<'a> Archive<'a> {
    /// Begins it.
    pub(crate) fn begin(to: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>, head: Head) -> io::Result<Self> {
        let mut archive = Self {
            to,
            hash: Sha256::new(),
            living: Writer::default(),
            instances: 0,
            leases: 0,
            overrides: 0,
        };
        archive.send([MAGIC, FORMAT].concat())?;
        archive.frame(|frame| {
            frame.message(1, |of| {
                of.fixed64(1, head.history_id.bits());
                of.number(2, head.revision.get());
                of.number(3, head.compacted.get());
                of.message(4, |time| {
                    time.number(1, head.taken.seconds.cast_unsigned());
                    time.number(2, head.taken.nanos.into());
                });
            });
        })?;
        Ok(archive)
    }

    /// The next by key.
    pub(crate) fn instance(&mut self, record: &[u8]) -> io::Result<()> {
        self.instances += 1;
        self.living.item(1, record);
        self.close_if(FRAME_BYTES)
    }

    /// The next by id; all instances come before.
    pub(crate) fn lease(&mut self, id: LeaseId, record: &[u8]) -> io::Result<()> {
        self.leases += 1;
        self.living.message(2, |lease| {
            lease.append(record);
            lease.bytes(8, &id.bits().to_be_bytes());
        });
        self.close_if(FRAME_BYTES)
    }

    /// The next by key; all leases come before.
    pub(crate) fn laid(&mut self, record: &[u8]) -> io::Result<()> {
        self.overrides += 1;
        self.living.item(3, record);
        self.close_if(FRAME_BYTES)
    }

    /// The next group of the history; all that lives comes before.
    pub(crate) fn past(&mut self, last: Revision, group: &[u8]) -> io::Result<()> {
        self.close_if(1)?;
        self.frame(|frame| {
            frame.message(3, |past| {
                past.number(1, last.get());
                past.bytes(2, group);
            });
        })
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.close_if(1)?;
        let hash = self.hash.clone().finalize();
        let (instances, leases, overrides) = (self.instances, self.leases, self.overrides);
        self.frame(|frame| {
            frame.message(4, |end| {
                end.number(1, instances);
                end.number(2, leases);
                end.bytes(3, &hash);
                end.number(4, overrides);
            });
        })
    }

    fn close_if(&mut self, bytes: usize) -> io::Result<()> {
        if self.living.len() < bytes {
            return Ok(());
        }
        let living = std::mem::take(&mut self.living).finish();
        self.frame(|frame| frame.message(2, |of| of.append(&living)))
    }

    fn frame(&mut self, write: impl FnOnce(&mut Writer)) -> io::Result<()> {
        let mut frame = Writer::default();
        write(&mut frame);
        let frame = frame.finish();
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        self.send([&length.to_le_bytes()[..], &frame].concat())
    }

    fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.hash.update(&bytes);
        (self.to)(bytes)
    }
}

/// Goes through a backup. What it visits is only known to be whole once this returns.
pub(crate) fn read<E: From<ArchiveError>>(
    mut from: impl Read,
    mut visit: impl FnMut(Part<'_>) -> Result<(), E>,
) -> Result<Contents, E> {
    let mut hash = Sha256::new();
    let mut begin = [0; MAGIC.len() + FORMAT.len()];
    fill(&mut from, &mut begin, "it has no beginning").map_err(|_| ArchiveError::Foreign)?;
    match begin.strip_prefix(MAGIC) {
        Some(FORMAT) => hash.update(begin),
        Some(_) => return Err(ArchiveError::Newer.into()),
        None => return Err(ArchiveError::Foreign.into()),
    }
    let (mut bytes, mut head) = (begin.len() as u64, None);
    let (mut instances, mut leases, mut overrides) = (0, 0, 0);
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        fill(&mut from, &mut length, "it ends too early")?;
        let size = u32::from_le_bytes(length) as usize;
        if size > FRAME_MAX {
            return Err(damaged("a part is too large"));
        }
        // As much as is there, whatever the length says.
        frame.clear();
        let found = from.by_ref().take(size as u64).read_to_end(&mut frame);
        if found.map_err(ArchiveError::from)? != size {
            return Err(damaged("it ends too early"));
        }
        bytes += (length.len() + size) as u64;
        let Some((kind, value)) = Fields::of(&frame).next().transpose().map_err(ArchiveError::from)? else {
            return Err(damaged("a part is empty"));
        };
        let fields = value.message().map_err(ArchiveError::from)?;
        match kind {
            1 if head.is_some() => return Err(damaged("it says twice what it is of")),
            1 => {
                let found = read_head(fields)?;
                head = Some(found);
                visit(Part::Head(found))?;
            }
            _ if head.is_none() => return Err(damaged("it does not say what it is of")),
            2 => {
                for field in fields {
                    let (field, record) = field.map_err(ArchiveError::from)?;
                    let record = record.bytes().map_err(ArchiveError::from)?;
                    match field {
                        1 => {
                            instances += 1;
                            visit(Part::Instance(record))?;
                        }
                        2 => {
                            leases += 1;
                            visit(Part::Lease(record))?;
                        }
                        3 => {
                            overrides += 1;
                            visit(Part::Override(record))?;
                        }
                        _ => return Err(ArchiveError::Newer.into()),
                    }
                }
            }
            3 => {
                let (last, group) = read_past(fields)?;
                visit(Part::Past(last, group))?;
            }
            4 => {
                let mut end = (0, 0, &[][..], 0);
                for field in fields {
                    match field.map_err(ArchiveError::from)? {
                        (1, value) => end.0 = value.number().map_err(ArchiveError::from)?,
                        (2, value) => end.1 = value.number().map_err(ArchiveError::from)?,
                        (3, value) => end.2 = value.bytes().map_err(ArchiveError::from)?,
                        (4, value) => end.3 = value.number().map_err(ArchiveError::from)?,
                        _ => {}
                    }
                }
                if end != (instances, leases, &hash.finalize()[..], overrides) {
                    return Err(damaged("its checksum is wrong"));
                }
                if from.read(&mut [0]).map_err(ArchiveError::from)? > 0 {
                    return Err(damaged("it goes on after its end"));
                }
                return Ok(Contents {
                    head: head.ok_or_else(|| damaged("it does not say what it is of"))?,
                    instances,
                    leases,
                    overrides,
                    bytes,
                });
            }
            _ => return Err(ArchiveError::Newer.into()),
        }
        hash.update(length);
        hash.update(&frame);
    }
}

fn damaged<E: From<ArchiveError>>(why: &str) -> E {
    ArchiveError::Damaged(why.to_owned()).into()
}

fn fill(from: &mut impl Read, to: &mut [u8], short: &str) -> Result<(), ArchiveError> {
    from.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(short),
        _ => error.into(),
    })
}

fn read_head(fields: Fields<'_>) -> Result<Head, ArchiveError> {
    let mut head = Head {
        history_id: HistoryId::default(),
        revision: Revision::ZERO,
        compacted: Revision::ZERO,
        taken: WallTime { seconds: 0, nanos: 0 },
    };
    for field in fields {
        match field? {
            (1, value) => head.history_id = HistoryId::from_random(value.number()?),
            (2, value) => head.revision = Revision::new(value.number()?),
            (3, value) => head.compacted = Revision::new(value.number()?),
            (4, value) => {
                for field in value.message()? {
                    match field? {
                        (1, value) => head.taken.seconds = value.number()?.cast_signed(),
                        (2, value) => head.taken.nanos = value.number32()?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(head)
}

fn read_past(fields: Fields<'_>) -> Result<(Revision, &[u8]), ArchiveError> {
    let (mut last, mut group) = (Revision::ZERO, &[][..]);
    for field in fields {
        match field? {
            (1, value) => last = Revision::new(value.number()?),
            (2, value) => group = value.bytes()?,
            _ => {}
        }
    }
    Ok((last, group))
}
