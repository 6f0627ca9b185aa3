//! One etcd cluster with our keys in it: what loading, following and checkpoints have in common.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    client::Client,
    failure::Failure,
    keys::{Keys, nth},
    url::EtcdUrl,
    value::{Group, Head},
    wire::{KeyValue, RangeRequest, end_of},
};
use crate::{
    catalog::Batch,
    model::Revision,
    store::{StoreError, record},
};

/// Keys of one response: at most 64 values of 512 KiB.
const PAGE: i64 = 64;

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
    revision: i64,
}

impl Pages<'_> {
    /// The next page, if there is one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Failure> {
        let Some(key) = self.next.take() else { return Ok(None) };
        let request = RangeRequest {
            key,
            range_end: self.end.clone(),
            limit: PAGE,
            revision: self.revision,
            ..RangeRequest::default()
        };
        let page = self.client.range(request).await?;
        if page.more {
            // The key right after it.
            self.next = page.kvs.last().map(|last| [&last.key[..], &[0]].concat().into());
        }
        Ok(Some(page.kvs))
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
                return self.cluster.entry(&kv, self.pages.revision).await.map(Some);
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
    pub(super) fn new(url: &EtcdUrl) -> Result<Self, StoreError> {
        let name = url.to_string();
        let client = Client::new(url).map_err(|why| StoreError::Unreachable {
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
            Failure::Denied(_) => {
                "give a user and its password as etcd://USER:PASSWORD@HOST:PORT, with a role that may read and write the prefix"
            }
            _ => "check that a majority of its members runs and that --store names their client addresses",
        };
        StoreError::Unreachable {
            store: self.name.clone(),
            why: format!("{failure}; {hint}"),
        }
    }

    /// Reads a range page by page, as of etcd's revision or, with 0, each page as it is now.
    pub(super) fn pages(&self, from: impl Into<Bytes>, end: Bytes, revision: i64) -> Pages<'_> {
        Pages {
            client: &self.client,
            next: Some(from.into()),
            end,
            revision,
        }
    }

    /// A group with all its parts, as of etcd's revision (0: now; parts never change).
    pub(super) async fn entry(&self, kv: &KeyValue, revision: i64) -> Result<Entry, Trouble> {
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
        } = decode(self, &name, &kv.value)?;
        let head = head.ok_or_else(|| self.damaged(&name, "its end is missing"))?;
        let bytes = if parts == 0 {
            batches
        } else {
            self.joined(&self.keys.parts_of(first, nonce), parts, revision).await?
        };
        let batches = record::decode_group(&bytes).map_err(|why| self.damaged(&name, why))?;
        let expected = (first.get()..=head.revision).map(Revision::new);
        if batches.is_empty() || !batches.iter().map(|batch| batch.revision).eq(expected) {
            return Err(self.damaged(&name, "its revisions are not consecutive").into());
        }
        Ok(Entry {
            first,
            nonce,
            head,
            batches,
        })
    }

    /// The parts under a prefix as one.
    async fn joined(&self, prefix: &str, parts: u32, revision: i64) -> Result<Bytes, Trouble> {
        let mut bytes = Vec::new();
        let mut found = 0;
        let mut pages = self.pages(prefix.to_owned(), end_of(prefix), revision);
        while let Some(page) = pages.next().await? {
            for kv in page {
                if kv.key != nth(prefix, found) {
                    return Err(self.damaged(prefix, "a part is missing").into());
                }
                bytes.extend_from_slice(&kv.value);
                found += 1;
            }
        }
        if found != parts {
            return Err(self.damaged(prefix, "a part is missing").into());
        }
        Ok(bytes.into())
    }

    /// The groups from the one that begins with `from` to the last, as of etcd's revision.
    pub(super) fn log(&self, from: Revision, revision: i64) -> Log<'_> {
        let pages = self.pages(self.keys.group(from), end_of(&self.keys.log()), revision);
        Log {
            cluster: self,
            pages,
            page: VecDeque::new(),
        }
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
