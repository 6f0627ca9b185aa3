//! One writer's book: for each of its instances the states that the registry may hold, given what it has answered.
//!
//! An instance has one writer, whose calls follow each other, so an answered call leaves one possible state. A call whose
//! answer was lost leaves two; reading after a restart settles which, for good.

use std::collections::BTreeSet;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tonic::Status;

use super::wire::{self, Client, Listing};

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    service: String,
    writer: u64,
    next_value: u64,
    keys: Vec<Key>,
    newest: i64,
    acked: u64,
    rng: StdRng,
}

#[derive(Debug)]
struct Key {
    id: String,
    /// The lease that keeps it, while the writer knows of one.
    lease: Option<wire::RegisterResponse>,
    /// `None`: not registered.
    possible: BTreeSet<Option<u64>>,
}

/// Instances of one writer: few, so that each sees many changes.
const KEYS: usize = 6;

impl Ledger {
    /// Nothing is registered yet.
    pub fn new(service: &str, writer: u64, seed: u64) -> Self {
        let key = |number| Key {
            id: format!("w{writer}-{number}"),
            lease: None,
            possible: [None].into(),
        };
        Self {
            service: service.to_owned(),
            writer,
            next_value: writer << 32,
            keys: (0..KEYS).map(key).collect(),
            newest: 0,
            acked: 0,
            rng: StdRng::seed_from_u64(seed.wrapping_add(writer)),
        }
    }

    /// How many calls were answered.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// The newest revision that it was told.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// One call: registers what is not registered, changes or ends what is.
    ///
    /// # Errors
    /// The registry's answer, after the book was brought up to date with it.
    ///
    /// # Panics
    /// When the registry denies what it has acknowledged: an acknowledged registration that is unknown.
    pub async fn step(&mut self, client: &mut Client) -> Result<(), Status> {
        let indices: Vec<usize> = (0..self.keys.len()).collect();
        let chosen = *indices.choose(&mut self.rng).expect("there are keys");
        let ends = self.rng.random_ratio(1, 3);
        self.next_value += 1;
        let value = self.next_value;
        let key = &mut self.keys[chosen];
        let instance = wire::valued(&self.service, &key.id, value);
        let (after, answer) = match key.lease.clone() {
            None => {
                let answer = client.register(wire::lasting([instance])).await;
                let answer = answer.map(|granted| {
                    let granted = granted.into_inner();
                    let revision = granted.revision;
                    key.lease = Some(granted);
                    revision
                });
                (Some(value), answer)
            }
            Some(lease) if ends => {
                key.lease = None;
                let answer = client.deregister(wire::deregistration(&lease)).await;
                // Refused as a whole: it keeps the instance.
                if answer.as_ref().is_err_and(|status| !wire::in_doubt(status)) {
                    key.lease = Some(lease);
                }
                (None, answer.map(|ended| ended.into_inner().revision))
            }
            Some(lease) => {
                let answer = client.update_instance(wire::update(&lease, instance)).await;
                (Some(value), answer.map(|updated| updated.into_inner().revision))
            }
        };
        match answer {
            Ok(revision) => {
                self.acked += 1;
                self.newest = self.newest.max(revision);
                key.possible = [after].into();
                Ok(())
            }
            Err(status) => {
                if wire::in_doubt(&status) {
                    key.possible.insert(after);
                } else {
                    assert!(
                        status.code() == tonic::Code::ResourceExhausted,
                        "{} of writer {}: what was acknowledged is denied: {status:?}; it may be {:?}",
                        key.id,
                        self.writer,
                        key.possible
                    );
                }
                Err(status)
            }
        }
    }

    /// Ends all that it has registered.
    ///
    /// # Panics
    /// When the registry does not answer.
    pub async fn leave(&mut self, client: &mut Client) {
        for key in &mut self.keys {
            if let Some(lease) = key.lease.take() {
                let ended = client.deregister(wire::deregistration(&lease)).await.expect("ends");
                self.newest = self.newest.max(ended.into_inner().revision);
                key.possible = [None].into();
            }
        }
    }

    /// Compares the book with what the registry holds, and believes it from then on. Only while nothing is on its way.
    ///
    /// # Panics
    /// When something acknowledged is missing, something ended is back, or a revision has gone back.
    pub fn check(&mut self, listing: &Listing) {
        assert!(
            listing.revision >= self.newest,
            "revision {} was told, then {}",
            self.newest,
            listing.revision
        );
        self.newest = listing.revision;
        let known: BTreeSet<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        let prefix = format!("w{}-", self.writer);
        for found in listing.instances.iter().filter(|found| found.service == self.service) {
            let ours = found.id.starts_with(&prefix);
            assert!(
                !ours || known.contains(found.id.as_str()),
                "nobody registered {found:?}"
            );
        }
        for key in &mut self.keys {
            let found = listing
                .instances
                .iter()
                .find(|found| found.service == self.service && found.id == key.id);
            let found_value = found.map(|found| wire::value(found).expect("a value"));
            assert!(
                key.possible.contains(&found_value),
                "{} is {found_value:?} at revision {}, but may only be {:?}",
                key.id,
                listing.revision,
                key.possible
            );
            key.possible = [found_value].into();
            // Registered by a call whose answer was lost, or ended by one: its next call registers it.
            if found.map(|found| &found.lease_id) != key.lease.as_ref().map(|lease| &lease.lease_id) {
                key.lease = None;
            }
        }
    }
}
