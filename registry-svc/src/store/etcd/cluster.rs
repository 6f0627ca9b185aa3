//! One etcd cluster with our keys in it: what loading, following and checkpoints have in common.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    PATIENCE,
    client::{CALL, Client},
    dial,
    failure::Failure,
    keys::{Keys, nth},
    retry::Retry,
    url::EtcdUrl,
    value::{self, Group, Head},
    wire::{KeyValue, RangeRequest, end_of},
};
use crate::{
    catalog::Batch,
    model::Revision,
    store::{StoreError, record},
};

/// How a range is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// As of etcd's revision; 0: each page as it is now.
    revision: i64,
    /// Keys of one response; values have at most 512 KiB.
    page: i64,
    /// How long one response may take: one of megabytes over a slow line takes its time.
    limit: Duration,
    /// How long one that does not come is asked for again.
    patience: Duration,
}

impl Reading {
    /// All of much. An election in the middle of it is waited for, since a beginning from the first page may meet the next one.
    pub(super) fn at_length(revision: i64) -> Self {
        Self {
            revision,
            page: 64,
            limit: CALL * 5,
            patience: PATIENCE,
        }
    }

    /// By the follower, which has looks to take in: what fails is asked for anew after those.
    pub(super) fn in_passing(revision: i64) -> Self {
        Self {
            revision,
            page: 8,
            limit: CALL,
            patience: Duration::ZERO,
        }
    }
}

/// What an operator does about a quota that is used up.
pub(super) const MAKE_ROOM: &str =
    "compact and defragment it, then disarm its alarm (etcdctl compact, defrag, alarm disarm)";

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) keys: Keys,
    /// For messages: the members and the prefix.
    name: String,
}

/// Why something in etcd cannot be read.
#[derive(Debug)]
pub(super) enum Trouble {
    /// etcd has not answered as we need it.
    Etcd(Failure),
    /// What it has answered is not usable.
    Store(StoreError),
}

/// One group of the log.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) first: Revision,
    pub(super) nonce: u64,
    /// Of the commit before it; 0: unknown.
    pub(super) after: u64,
    pub(super) head: Head,
    pub(super) batches: Vec<Batch>,
}

/// A range, page by page.
#[derive(Debug)]
pub(super) struct Pages<'a> {
    client: &'a Client,
    /// `None` after the last page.
    next: Option<Bytes>,
    end: Bytes,
    reading: Reading,
}

impl Pages<'_> {
    /// The next page, if there is one. After a failure it may be asked for again.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Failure> {
        let Some(key) = &self.next else { return Ok(None) };
        let request = RangeRequest {
            key: key.clone(),
            range_end: self.end.clone(),
            limit: self.reading.page,
            revision: self.reading.revision,
            ..RangeRequest::default()
        };
        let mut retry = Retry::within(self.reading.patience);
        let page = loop {
            match self.client.range(request.clone(), self.reading.limit).await {
                Ok(page) => break page,
                Err(failure) => retry.after(failure).await?,
            }
        };
        let last = page.kvs.last().filter(|_| page.more);
        // The key right after it.
        self.next = last.map(|last| [&last.key[..], &[0]].concat().into());
        Ok(Some(page.kvs))
    }
}

/// The values under a prefix that are numbered without a gap, one by one.
#[derive(Debug)]
pub(super) struct Numbered<'a> {
    cluster: &'a Cluster,
    prefix: String,
    total: u32,
    found: u32,
    pages: Pages<'a>,
    page: VecDeque<KeyValue>,
}

impl Numbered<'_> {
    /// The next value; none only after all of them.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            if let Some(kv) = self.page.pop_front() {
                if kv.key != nth(&self.prefix, self.found) {
                    break;
                }
                self.found += 1;
                return Ok(Some(kv.value));
            }
            match self.pages.next().await? {
                Some(page) => self.page = page.into(),
                None if self.found == self.total => return Ok(None),
                None => break,
            }
        }
        let why = format!("{} of {} are there, or others between them", self.found, self.total);
        Err(self.cluster.damaged(&self.prefix, why).into())
    }
}

/// Groups of the log, one by one.
#[derive(Debug)]
pub(super) struct Log<'a> {
    cluster: &'a Cluster,
    pages: Pages<'a>,
    page: VecDeque<KeyValue>,
}

impl Log<'_> {
    /// The next group, if there is one.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, Trouble> {
        loop {
            if let Some(kv) = self.page.pop_front() {
                return self.cluster.entry(&kv, self.pages.reading).await.map(Some);
            }
            match self.pages.next().await? {
                Some(page) => self.page = page.into(),
                None => return Ok(None),
            }
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Etcd(failure)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Cluster {
    /// Dials nothing yet. Within a runtime.
    pub(super) fn new(url: &EtcdUrl, tls: Option<&tls::Client>) -> Result<Self, StoreError> {
        let name = url.to_string();
        let client = Client::new(url, tls).map_err(|why| StoreError::Unreachable {
            store: name.clone(),
            why,
        })?;
        let keys = Keys::new(&url.prefix);
        Ok(Self { client, keys, name })
    }

    /// What is there makes no sense to us.
    pub(super) fn unusable(&self, what: impl Into<String>) -> StoreError {
        let (store, what) = (self.name.clone(), what.into());
        StoreError::Unusable { store, what }
    }

    /// A record is not what a registry writes.
    pub(super) fn damaged(&self, what: &str, why: impl std::fmt::Display) -> StoreError {
        self.unusable(format!("the record of {what} is damaged: {why}"))
    }

    /// It cannot be used, for a reason that is etcd's.
    pub(super) fn unreachable(&self, failure: &Failure) -> StoreError {
        let hint = match failure {
            // What is wrong with a connection says by itself what to do.
            Failure::Away(why) if why.contains(dial::FLAG) => None,
            Failure::Away(_) if self.client.is_wordless() => {
                Some("it closes connections without a word; where etcd speaks TLS, --store is etcds://")
            }
            Failure::Denied(_) => Some(
                "give a user and its password as etcd://USER:PASSWORD@HOST:PORT (--store @FILE keeps it off the command line), with a role that may read and write the prefix",
            ),
            Failure::NoSpace => Some(MAKE_ROOM),
            _ => Some("check that a majority of its members runs and that --store names their client addresses"),
        };
        StoreError::Unreachable {
            store: self.name.clone(),
            why: match hint {
                Some(hint) => format!("{failure}; {hint}"),
                None => failure.to_string(),
            },
        }
    }

    /// Reads a range page by page.
    pub(super) fn pages(&self, from: impl Into<Bytes>, end: Bytes, reading: Reading) -> Pages<'_> {
        Pages {
            client: &self.client,
            next: Some(from.into()),
            end,
            reading,
        }
    }

    /// Reads so many values that are numbered under a prefix.
    pub(super) fn numbered(&self, prefix: String, total: u32, reading: Reading) -> Numbered<'_> {
        Numbered {
            pages: self.pages(prefix.clone(), end_of(&prefix), reading),
            cluster: self,
            prefix,
            total,
            found: 0,
            page: VecDeque::new(),
        }
    }

    /// A group with all its parts, as of a revision at which both are there: trimming takes both away.
    pub(super) async fn entry(&self, kv: &KeyValue, reading: Reading) -> Result<Entry, Trouble> {
        let name = String::from_utf8_lossy(&kv.key);
        let first = self
            .keys
            .first_of(&kv.key)
            .ok_or_else(|| self.damaged(&name, "its key is none of ours"))?;
        let Group {
            nonce,
            head,
            batches,
            parts,
            after,
            traces,
        } = decode(self, &name, &kv.value)?;
        let head = head.ok_or_else(|| self.damaged(&name, "its end is missing"))?;
        let bytes = if parts == 0 {
            batches
        } else {
            let mut values = self.numbered(self.keys.parts_of(first, nonce), parts, reading);
            let mut joined = Vec::new();
            while let Some(part) = values.next().await? {
                joined.extend_from_slice(&part);
            }
            joined.into()
        };
        let mut batches = record::decode_group(&bytes).map_err(|why| self.damaged(&name, why))?;
        let expected = (first.get()..=head.revision).map(Revision::new);
        if batches.is_empty() || !batches.iter().map(|batch| batch.revision).eq(expected) {
            return Err(self.damaged(&name, "its revisions are not consecutive").into());
        }
        value::trace(&mut batches, traces);
        Ok(Entry {
            first,
            nonce,
            after,
            head,
            batches,
        })
    }

    /// The groups from the one that begins with `from` to the last.
    pub(super) fn log(&self, from: Revision, reading: Reading) -> Log<'_> {
        let pages = self.pages(self.keys.group(from), end_of(&self.keys.log()), reading);
        Log {
            cluster: self,
            pages,
            page: VecDeque::new(),
        }
    }

    /// What is there is not what this replica has followed so far.
    pub(super) fn replaced(&self) -> StoreError {
        self.unusable("it was emptied or replaced by an older one; restart this replica to load what is there")
    }

    /// A replica that cannot go on from where it is.
    pub(super) fn left_behind(&self, revision: Revision) -> StoreError {
        self.unusable(format!(
            "this replica knows the state as of revision {revision}, and what came next is no longer in the log: it was out of touch for \
             longer than the history reaches back; restart it, and it loads the state anew"
        ))
    }
}

/// A message of ours.
pub(super) fn decode<T: prost::Message + Default>(
    cluster: &Cluster,
    name: &str,
    value: &Bytes,
) -> Result<T, StoreError> {
    T::decode(value.clone()).map_err(|why| cluster.damaged(name, why))
}

/// Shared by the tasks of one store.
pub(super) type SharedCluster = Arc<Cluster>;
