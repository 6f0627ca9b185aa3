//! Who wakes whom: one wake-up channel for each scope that is watched.
//!
//! A change wakes the watchers of its service and those of its namespace, not everybody (the hidden cliff of registries that
//! wake every blocking query on every change). The channel carries no data: a watcher that wakes pulls from the history.

use std::collections::{HashMap, HashSet};

use tokio::sync::watch;

use super::Scope;
use crate::model::InstanceKey;

/// The scopes that are watched. As many as there are distinct scopes among the watchers that live.
#[derive(Debug, Default)]
pub(super) struct Topics {
    senders: HashMap<Scope, watch::Sender<()>>,
    marked: HashSet<Scope>,
}

impl Topics {
    /// Joins the watchers of a scope.
    pub(super) fn join(&mut self, scope: &Scope) -> watch::Receiver<()> {
        if let Some(sender) = self.senders.get(scope) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(());
        self.senders.insert(scope.clone(), sender);
        receiver
    }

    /// The last watcher of a scope may have gone.
    pub(super) fn left(&mut self, scope: &Scope) {
        if self
            .senders
            .get(scope)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            self.senders.remove(scope);
        }
    }

    /// Something of this key changed.
    pub(super) fn mark(&mut self, key: &InstanceKey) {
        let namespace = Scope {
            namespace: key.namespace.clone(),
            service: None,
        };
        let service = Scope {
            service: Some(key.service.clone()),
            ..namespace.clone()
        };
        for scope in [service, namespace] {
            if self.senders.contains_key(&scope) {
                self.marked.insert(scope);
            }
        }
    }

    /// Wakes the watchers of what was marked, each once.
    pub(super) fn wake(&mut self) {
        for scope in self.marked.drain() {
            if let Some(sender) = self.senders.get(&scope) {
                sender.send_replace(());
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.senders.len()
    }
}
