//! The best seats among the free ones.
//!
//! Best means, in this order: side by side in one row; else in one section; else anywhere. Ties go to the front: the
//! section that the event lists first, then the first row, then the lowest number. The obvious alternative, to score every
//! subset, loses: it costs more and nobody can predict what they get.

use super::seat::Place;

/// Picks `quantity` of the `free` places, sorted, or `None` when there are fewer than that. `free` is in any order, each
/// place once.
pub(crate) fn best(mut free: Vec<Place>, quantity: usize) -> Option<Vec<Place>> {
    if quantity == 0 || free.len() < quantity {
        return None;
    }
    free.sort_unstable();
    side_by_side(&free, quantity)
        .or_else(|| in_one_section(&free, quantity))
        .or_else(|| free.get(..quantity))
        .map(<[Place]>::to_vec)
}

fn side_by_side(free: &[Place], quantity: usize) -> Option<&[Place]> {
    free.chunk_by(|a, b| a.section == b.section && a.row == b.row && a.number + 1 == b.number)
        .find_map(|run| run.get(..quantity))
}

fn in_one_section(free: &[Place], quantity: usize) -> Option<&[Place]> {
    free.chunk_by(|a, b| a.section == b.section)
        .find_map(|section| section.get(..quantity))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    /// Draws a venue: sections split by '|', rows by '/', '.' is free and 'x' is taken. Answers the picked seats as '#'.
    fn drawn(venue: &str, quantity: usize) -> Option<String> {
        let mut free = Vec::new();
        each_seat(venue, |place, mark| {
            if mark == '.' {
                free.push(place);
            }
            mark
        });
        // The order of the input must not matter.
        free.reverse();
        let picked = best(free, quantity)?;
        Some(each_seat(
            venue,
            |place, mark| if picked.contains(&place) { '#' } else { mark },
        ))
    }

    fn each_seat(venue: &str, mut see: impl FnMut(Place, char) -> char) -> String {
        let (mut section, mut row, mut number) = (0, 1, 0);
        let mut out = String::new();
        for mark in venue.chars() {
            out.push(match mark {
                '|' => {
                    (section, row, number) = (section + 1, 1, 0);
                    mark
                }
                '/' => {
                    (row, number) = (row + 1, 0);
                    mark
                }
                _ => {
                    number += 1;
                    see(Place { section, row, number }, mark)
                }
            });
        }
        out
    }

    #[test]
    fn seats_side_by_side_to_the_front_come_first() {
        for (venue, quantity, expected) in [
            ("..../....", 2, Some("##../....")),
            // A row further back beats seats apart.
            (".x.x/....", 2, Some(".x.x/##..")),
            // The end of one row and the start of the next are not neighbours.
            ("xx./.xx|x..", 2, Some("xx./.xx|x##")),
            // Nothing side by side: one section beats two.
            (".x./x|.x./.x.", 3, Some(".x./x|#x#/#x.")),
            // No section has enough: anywhere.
            (".x|.x|.x", 3, Some("#x|#x|#x")),
            (".x|.x", 3, None),
            ("xx", 1, None),
            ("..", 0, None),
        ] {
            assert_eq!(drawn(venue, quantity).as_deref(), expected, "{quantity} of {venue}");
        }
    }

    proptest! {
        #[test]
        fn exactly_so_many_free_seats_each_once_whenever_there_are_enough(
            free in btree_set((0_u32..3, 1_u32..4, 1_u32..6), 0..40),
            quantity in 1_usize..=10,
        ) {
            let free: Vec<Place> =
                free.into_iter().map(|(section, row, number)| Place { section, row, number }).collect();
            match best(free.clone(), quantity) {
                Some(picked) => {
                    prop_assert_eq!(picked.len(), quantity);
                    prop_assert!(picked.windows(2).all(|pair| pair[0] < pair[1]));
                    prop_assert!(picked.iter().all(|place| free.contains(place)));
                }
                None => prop_assert!(free.len() < quantity),
            }
        }
    }
}
