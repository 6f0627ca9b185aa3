//! What one watch was told, over all its connections, and whether that is what etcd would promise.
//!
//! The recorder resumes by itself as a client should: after each break from the last revision that it was told, naming the
//! history. [`Journal::check`] then compares with a [`Truth`].

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::registry::v1::watch_response::Change;
use tokio::task::JoinHandle;
use tonic::{Code, transport::Channel};

use super::{
    Truth,
    truth::name,
    wire::{self, Client, snapshot::Cause},
};
use crate::wait;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A watch was opened after this revision.
    Opened(i64),
    /// Everything.
    Snapshot {
        /// Of this revision.
        revision: i64,
        /// Why.
        cause: Cause,
        /// By service and id.
        instances: Vec<wire::Instance>,
    },
    /// All of one revision.
    Delta {
        /// Which.
        revision: i64,
        /// In order.
        events: Vec<wire::InstanceEvent>,
    },
    /// Nothing, up to this revision.
    Bookmark(i64),
    /// The watch broke or was refused.
    Broken(Code),
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// In the order in which it happened.
    pub entries: Vec<Entry>,
    /// The last revision that was told.
    pub revision: i64,
    /// The history that counts it.
    pub history: String,
    /// The last confidence that was told.
    pub confidence: wire::confidence::State,
    /// The parts of a snapshot that goes on.
    parts: Vec<wire::Instance>,
    /// The revision that they are of.
    parts_of: i64,
}

/// A watch that keeps a journal until it is stopped or dropped.
#[derive(Debug)]
pub struct Recorder {
    journal: Arc<Mutex<Journal>>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Watches what `request` selects, from where it says.
    pub fn start(channel: Channel, request: wire::WatchRequest) -> Self {
        Self::over([channel], request)
    }

    /// The same over several replicas, one at a time: when a watch breaks, it resumes at the next.
    pub fn over(channels: impl IntoIterator<Item = Channel>, request: wire::WatchRequest) -> Self {
        let channels: Vec<Channel> = channels.into_iter().collect();
        let journal = Arc::new(Mutex::new(Journal {
            revision: request.start_after_revision,
            history: request.history_id.clone(),
            ..Journal::default()
        }));
        let task = tokio::spawn(record(channels, request, Arc::clone(&journal)));
        Self { journal, task }
    }

    /// The journal so far.
    ///
    /// # Panics
    /// When the recorder has panicked.
    pub fn look<T>(&self, look: impl FnOnce(&Journal) -> T) -> T {
        look(&self.journal.lock().expect("not poisoned"))
    }

    /// Waits until it was told this revision or a later one.
    pub async fn reaches(&self, revision: i64) {
        wait::until("the watch to catch up", || async {
            match self.look(|journal| journal.revision) {
                told if told >= revision => Ok(()),
                told => Err(format!("told {told} of {revision}")),
            }
        })
        .await;
    }

    /// Waits until the journal has what is looked for.
    pub async fn shows(&self, what: &str, found: impl Fn(&Journal) -> bool) {
        wait::until(what, || async {
            self.look(|journal| {
                if found(journal) {
                    Ok(())
                } else {
                    Err(format!("the last is {:?}", journal.entries.last()))
                }
            })
        })
        .await;
    }

    /// Ends the watch.
    ///
    /// # Panics
    /// When the recorder has panicked.
    pub fn stop(self) -> Journal {
        self.task.abort();
        self.look(Clone::clone)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn record(channels: Vec<Channel>, request: wire::WatchRequest, journal: Arc<Mutex<Journal>>) {
    for channel in channels.iter().cycle() {
        let mut client = Client::new(channel.clone()).max_decoding_message_size(64 << 20);
        let (start_after_revision, history_id) = {
            let mut journal = journal.lock().expect("not poisoned");
            let after = journal.revision;
            journal.entries.push(Entry::Opened(after));
            (after, journal.history.clone())
        };
        let request = wire::WatchRequest {
            start_after_revision,
            history_id,
            ..request.clone()
        };
        let code = match client.watch(request).await {
            Err(status) => status.code(),
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(response)) => journal.lock().expect("not poisoned").take(response),
                        Ok(None) => break Code::Ok,
                        Err(status) => break status.code(),
                    }
                }
            }
        };
        journal.lock().expect("not poisoned").broke(code);
        // Between two attempts at a registry that is away.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

impl Journal {
    fn take(&mut self, response: wire::WatchResponse) {
        let revision = response.revision;
        self.confidence = response.confidence.unwrap_or_default().state();
        self.history = response.history_id;
        let entry = match response.change {
            Some(Change::Snapshot(snapshot)) => {
                let cause = snapshot.cause();
                // A part of another revision begins anew.
                if self.parts_of != revision {
                    self.parts.clear();
                }
                self.parts_of = revision;
                self.parts.extend(snapshot.instances);
                if snapshot.more {
                    return;
                }
                let instances = std::mem::take(&mut self.parts);
                Entry::Snapshot {
                    revision,
                    cause,
                    instances,
                }
            }
            Some(Change::Delta(delta)) => Entry::Delta {
                revision,
                events: delta.events,
            },
            Some(Change::Bookmark(_)) => Entry::Bookmark(revision),
            None => panic!("a response that tells nothing at revision {revision}"),
        };
        self.entries.push(entry);
        self.revision = revision;
    }

    fn broke(&mut self, code: Code) {
        self.parts.clear();
        // A registry that is down for seconds must not fill the journal: one line for each break is enough.
        let entries = &mut self.entries;
        if let [.., Entry::Broken(before), Entry::Opened(_)] = entries.as_slice()
            && *before == code
        {
            entries.pop();
        } else {
            entries.push(Entry::Broken(code));
        }
    }

    /// How often there was a snapshot, without the one that a watch from nothing begins with.
    pub fn relists(&self) -> usize {
        let snapshot = |entry: &&Entry| matches!(entry, Entry::Snapshot { cause, .. } if *cause != Cause::Initial);
        self.entries.iter().filter(snapshot).count()
    }

    /// Its events of a kind.
    pub fn events(&self) -> impl Iterator<Item = &wire::instance_event::Event> {
        self.entries.iter().flat_map(|entry| match entry {
            Entry::Delta { events, .. } => events.iter().filter_map(|event| event.event.as_ref()).collect(),
            _ => Vec::new(),
        })
    }

    /// The instances that left for this reason, in order.
    pub fn removed(&self, reason: wire::RemovalReason) -> Vec<&str> {
        self.events()
            .filter_map(|event| match event {
                wire::instance_event::Event::Removed(removal) if removal.reason() == reason => {
                    Some(removal.id.as_str())
                }
                _ => None,
            })
            .collect()
    }

    /// etcd's promises, of everything that was told: a revision is told once (unique) and after those before it (ordered), as
    /// a whole (atomic), none that touches the selection is left out (reliable), a resume goes on where the last connection
    /// ended (resumable), a bookmark is told after everything up to it (bookmarkable), and nothing else is told (filter).
    ///
    /// # Panics
    /// At the first entry that breaks one of them.
    pub fn check(&self, who: &str, truth: &Truth, selects: impl Fn(&str, &str) -> bool) {
        // Everything of the selection up to here is known; `None` before the first word of a watch from nothing.
        let mut known: Option<i64> = None;
        for (number, entry) in self.entries.iter().enumerate() {
            let at = format!("{who}, entry {number} ({})", brief(entry));
            let between = |known: i64, revision: i64| {
                let missed = truth.touching(known + 1, revision, &selects);
                assert!(missed.is_empty(), "{at}: {known} was known, {missed:?} were left out");
            };
            match entry {
                Entry::Opened(after) => {
                    assert!(known.is_none_or(|known| known == *after), "{at}: {known:?} was known");
                    known = (*after > 0).then_some(*after);
                }
                Entry::Broken(_) => {}
                Entry::Bookmark(revision) => {
                    let before = known.unwrap_or_else(|| panic!("{at}: nothing was known"));
                    assert!(*revision >= before, "{at}: {before} was known: time went backwards");
                    between(before, *revision);
                    known = Some(*revision);
                }
                Entry::Delta { revision, events } => {
                    let before = known.unwrap_or_else(|| panic!("{at}: nothing was known"));
                    assert!(
                        *revision > before,
                        "{at}: {before} was known: told twice or out of order"
                    );
                    between(before, revision - 1);
                    let expected = truth.events(*revision, &selects);
                    let told: Vec<&wire::InstanceEvent> = events.iter().collect();
                    assert_eq!(told, expected, "{at}: not what was committed");
                    known = Some(*revision);
                }
                Entry::Snapshot {
                    revision, instances, ..
                } => {
                    assert!(
                        known.is_none_or(|known| *revision >= known),
                        "{at}: {known:?} was known"
                    );
                    let expected = truth.at(*revision, &selects);
                    let told: Vec<&wire::Instance> = instances.iter().collect();
                    assert_eq!(told, expected, "{at}: not what was there");
                    known = Some(*revision);
                }
            }
        }
    }
}

fn brief(entry: &Entry) -> String {
    match entry {
        Entry::Snapshot {
            revision,
            cause,
            instances,
        } => format!("snapshot {cause:?} of {} at {revision}", instances.len()),
        Entry::Delta { revision, events } => {
            let names: Vec<String> = events.iter().filter_map(name).map(|(_, id)| id).collect();
            format!("delta of {names:?} at {revision}")
        }
        other => format!("{other:?}"),
    }
}
