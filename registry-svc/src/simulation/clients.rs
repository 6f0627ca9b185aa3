//! Who uses the registries: providers, watchers. Readers need no state: see `world`.

pub(super) mod provider;
pub(super) mod watcher;
