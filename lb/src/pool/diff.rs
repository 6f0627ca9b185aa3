//! From what is to what should be, in the smallest steps. Pure.

use std::collections::BTreeMap;

use super::roster::{Backend, Key};

/// One step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Backend),
    /// Same instance, same address: the connection stays. `reborn` tells that the process behind it is a new one.
    Update {
        backend: Backend,
        reborn: bool,
    },
    Remove(Key),
}

/// The changes that lead from `current` to `wanted`. What is equal in both is not mentioned. Of two wanted ones with the same
/// key the last one counts.
pub(crate) fn diff<'a>(current: impl Iterator<Item = (&'a Key, &'a Backend)>, wanted: Vec<Backend>) -> Vec<Change> {
    let mut wanted: BTreeMap<Key, Backend> = wanted
        .into_iter()
        .map(|backend| (backend.key.clone(), backend))
        .collect();
    let mut changes = Vec::new();
    for (key, is) in current {
        match wanted.remove(key) {
            None => changes.push(Change::Remove(key.clone())),
            Some(backend) if backend == *is => {}
            Some(backend) => changes.push(Change::Update {
                reborn: backend.epoch != is.epoch,
                backend,
            }),
        }
    }
    changes.extend(wanted.into_values().map(Change::Add));
    changes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::uri::Authority;
    use proptest::prelude::*;

    use super::*;

    fn backend(id: &str, port: u16, weight: u32, epoch: i64) -> Backend {
        let address = format!("127.0.0.1:{port}");
        Backend {
            authority: address.parse::<Authority>().expect("an address"),
            key: Key {
                instance_id: id.into(),
                address: address.into(),
                is_secured: false,
            },
            secured: None,
            weight,
            attributes: Arc::default(),
            epoch,
            registry: 0,
        }
    }

    fn book(backends: &[Backend]) -> BTreeMap<Key, Backend> {
        backends
            .iter()
            .map(|backend| (backend.key.clone(), backend.clone()))
            .collect()
    }

    #[test]
    fn what_stays_is_not_mentioned() {
        let is = book(&[backend("a", 1, 100, 1), backend("b", 2, 100, 1)]);
        assert_eq!(diff(is.iter(), is.values().cloned().collect()), []);
    }

    #[test]
    fn an_instance_that_moved_is_another_endpoint() {
        let (old, new) = (backend("a", 1, 100, 1), backend("a", 2, 100, 1));
        let changes = diff(book(std::slice::from_ref(&old)).iter(), vec![new.clone()]);
        assert_eq!(changes, [Change::Remove(old.key), Change::Add(new)]);
    }

    #[test]
    fn another_weight_is_an_update_and_another_epoch_a_rebirth() {
        let is = book(&[backend("a", 1, 100, 1), backend("b", 2, 100, 1)]);
        let wanted = vec![backend("a", 1, 50, 1), backend("b", 2, 100, 2)];
        let expected = [
            Change::Update {
                backend: wanted[0].clone(),
                reborn: false,
            },
            Change::Update {
                backend: wanted[1].clone(),
                reborn: true,
            },
        ];
        assert_eq!(diff(is.iter(), wanted), expected);
    }

    proptest! {
        #[test]
        fn applying_the_changes_gives_what_was_wanted(
            is in prop::collection::vec((0_u16..12, 1_u32..3, 0_i64..2), 0..12),
            wanted in prop::collection::vec((0_u16..12, 1_u32..3, 0_i64..2), 0..12),
        ) {
            let make = |rows: Vec<(u16, u32, i64)>| -> Vec<Backend> {
                rows.into_iter().map(|(n, weight, epoch)| backend(&format!("i{}", n % 5), n + 1, weight, epoch)).collect()
            };
            let mut is = book(&make(is));
            let wanted = make(wanted);
            for change in diff(is.clone().iter(), wanted.clone()) {
                match change {
                    Change::Add(backend) => prop_assert!(is.insert(backend.key.clone(), backend).is_none()),
                    Change::Update { backend, .. } => prop_assert!(is.insert(backend.key.clone(), backend).is_some()),
                    Change::Remove(key) => prop_assert!(is.remove(&key).is_some()),
                }
            }
            prop_assert_eq!(is, book(&wanted));
        }
    }
}
