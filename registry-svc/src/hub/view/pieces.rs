//! The instances of a service by id, in pieces that its copies share.
//!
//! A reader holds on to a service while it tells or filters it, and a change meanwhile has to copy it, while all other readers
//! wait. Of a hundred thousand instances in one tree that took milliseconds; here it is one piece and the list of the pieces.

use std::sync::Arc;

use crate::model::{Instance, InstanceId};

/// The most instances of a piece. The list of a million has then some 5,000 pieces, and either is copied in microseconds.
const MOST: usize = 256;
/// A piece that becomes smaller is joined with one beside it, if both fit into one.
const FEW: usize = MOST / 4;

type Piece = Arc<Vec<Arc<Instance>>>;

/// See the module. No piece is empty; each is ordered, and all of it is before the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    len: usize,
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        let piece = self.pieces.get(self.place(id))?;
        piece.get(find(piece, id).ok()?)
    }

    /// By id, after this one.
    pub(super) fn after(&self, id: Option<&InstanceId>) -> impl Iterator<Item = &Arc<Instance>> {
        let at = id.map_or(0, |id| self.place(id));
        let (first, others) = match self.pieces.get(at..) {
            Some([first, others @ ..]) => (Some(first), others),
            _ => (None, &[][..]),
        };
        let first = first.into_iter().flat_map(move |piece| {
            let seen = id.map_or(0, |id| piece.partition_point(|instance| instance.key.id <= *id));
            piece.get(seen..).unwrap_or_default()
        });
        first.chain(others.iter().flat_map(|piece| piece.iter()))
    }

    /// Puts an instance, and returns the one that it replaces.
    pub(super) fn put(&mut self, instance: &Arc<Instance>) -> Option<Arc<Instance>> {
        let id = &instance.key.id;
        // What is after all others goes to the end of the last piece.
        let place = self.place(id).min(self.pieces.len().saturating_sub(1));
        let Some(piece) = self.pieces.get_mut(place) else {
            self.pieces.push(Arc::new(vec![Arc::clone(instance)]));
            self.len = 1;
            return None;
        };
        match find(piece, id) {
            Ok(at) => Arc::make_mut(piece)
                .get_mut(at)
                .map(|old| std::mem::replace(old, Arc::clone(instance))),
            Err(at) => {
                let instances = Arc::make_mut(piece);
                instances.insert(at, Arc::clone(instance));
                self.len += 1;
                if instances.len() > MOST {
                    // Ids often grow: then all but the last piece stay nearly full.
                    let half = if at + 1 == instances.len() { MOST } else { MOST / 2 };
                    let right = instances.split_off(half);
                    self.pieces.insert(place + 1, Arc::new(right));
                }
                None
            }
        }
    }

    /// Removes an instance, and returns it.
    pub(super) fn remove(&mut self, id: &InstanceId) -> Option<Arc<Instance>> {
        let place = self.place(id);
        let piece = self.pieces.get_mut(place)?;
        let at = find(piece, id).ok()?;
        let instances = Arc::make_mut(piece);
        let removed = instances.remove(at);
        let left = instances.len();
        self.len -= 1;
        if left == 0 {
            self.pieces.remove(place);
        } else if left < FEW {
            self.join(place.saturating_sub(1));
            self.join(place);
        }
        Some(removed)
    }

    /// Joins a piece with the next one, if both fit into one.
    fn join(&mut self, place: usize) {
        let Some([left, right]) = self.pieces.get_mut(place..place + 2) else {
            return;
        };
        if left.len() + right.len() <= MOST {
            Arc::make_mut(left).extend(right.iter().cloned());
            self.pieces.remove(place + 1);
        }
    }

    /// Where the piece is that has the id, if any has.
    fn place(&self, id: &InstanceId) -> usize {
        self.pieces
            .partition_point(|piece| piece.last().is_some_and(|last| last.key.id < *id))
    }
}

fn find(piece: &Piece, id: &InstanceId) -> Result<usize, usize> {
    piece.binary_search_by(|instance| instance.key.id.cmp(id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        fixtures::{WALL, draft},
        model::{LeaseId, Revision},
    };

    fn instance(n: u32, revision: u64) -> Arc<Instance> {
        let draft = draft("a", &format!("{n:06}"), "");
        Arc::new(draft.registered(Revision::new(revision), LeaseId::from_random(1), WALL))
    }

    fn check(pieces: &Pieces, expected: &BTreeMap<InstanceId, Arc<Instance>>) {
        assert!(pieces.pieces.iter().all(|piece| (1..=MOST).contains(&piece.len())));
        assert_eq!(pieces.len(), expected.len());
        assert!(pieces.after(None).eq(expected.values()));
    }

    proptest! {
        /// Whatever comes and goes, it is as a map has it; and a copy keeps what it was.
        #[test]
        fn a_service_is_a_map(acts in proptest::collection::vec((0..2_000_u32, 0..3_u8), 1..3_000)) {
            let (mut pieces, mut expected) = (Pieces::default(), BTreeMap::new());
            let mut copied = None;
            for (revision, (n, act)) in (1..).zip(acts) {
                let instance = instance(n, revision);
                let id = instance.key.id.clone();
                if act == 0 {
                    prop_assert_eq!(pieces.remove(&id), expected.remove(&id));
                } else {
                    prop_assert_eq!(pieces.put(&instance), expected.insert(id.clone(), Arc::clone(&instance)));
                }
                prop_assert_eq!(pieces.get(&id), expected.get(&id));
                if revision == 500 {
                    copied = Some((pieces.clone(), expected.clone()));
                }
                let next = expected.range((std::ops::Bound::Excluded(id.clone()), std::ops::Bound::Unbounded));
                prop_assert!(pieces.after(Some(&id)).take(5).eq(next.map(|(_, instance)| instance).take(5)));
            }
            check(&pieces, &expected);
            if let Some((pieces, expected)) = copied {
                check(&pieces, &expected);
            }
        }
    }

    /// A commit copied a hundred thousand instances because somebody was reading them.
    #[test]
    fn a_change_of_a_copy_copies_one_piece() {
        let mut pieces = Pieces::default();
        for n in 0..10_000 {
            pieces.put(&instance(n, 1));
        }
        assert!(pieces.pieces.len() <= 10_000 / MOST + 1, "they are full where ids grow");
        let copied = pieces.clone();
        pieces.put(&instance(5_000, 2));
        let is_shared = |piece: &Piece| copied.pieces.iter().any(|other| Arc::ptr_eq(piece, other));
        let own = pieces.pieces.iter().filter(|piece| !is_shared(piece)).count();
        assert_eq!(own, 1);
        for n in (0..10_000).filter(|n| n % 50 > 0) {
            pieces.remove(&instance(n, 1).key.id);
        }
        assert!(pieces.pieces.len() <= 200 / FEW + 1, "{} for 200", pieces.pieces.len());
    }
}
