//! From an instance's number to its index in a set: a hash table that is made when the set changes, and read with a look or two.

/// See the module's documentation. Open addressing; at most half full.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// Number and index; number 0 is nobody's.
    cells: Box<[(u32, u32)]>,
    mask: usize,
}

impl Numbers {
    /// Of those, in the order of their indices. None is 0.
    pub(crate) fn new(numbers: impl ExactSizeIterator<Item = u32>) -> Self {
        let size = (numbers.len() * 2).next_power_of_two().max(2);
        let mut new = Self {
            cells: vec![(0, 0); size].into_boxed_slice(),
            mask: size - 1,
        };
        for (index, number) in numbers.enumerate() {
            let cell = new.way(number).find(|cell| new.cells[*cell].0 == 0);
            if let Some(cell) = cell {
                new.cells[cell] = (number, index as u32);
            }
        }
        new
    }

    pub(crate) fn find(&self, number: u32) -> Option<usize> {
        self.way(number)
            .map(|cell| self.cells[cell])
            .take_while(|(found, _)| *found != 0)
            .find(|(found, _)| *found == number)
            .map(|(_, index)| index as usize)
    }

    fn way(&self, number: u32) -> impl Iterator<Item = usize> + use<> {
        // Numbers are given one after another, so they spread by themselves.
        let (start, mask) = (number as usize, self.mask);
        (0..=mask).map(move |step| (start + step) & mask)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everybody_is_found_and_nobody_else(numbers in prop::collection::hash_set(1_u32.., 0..100), other in any::<u32>()) {
            let table = Numbers::new(numbers.iter().copied().collect::<Vec<_>>().into_iter());
            for (index, number) in numbers.iter().enumerate() {
                prop_assert_eq!(table.find(*number), Some(index));
            }
            prop_assert_eq!(table.find(other).is_some(), numbers.contains(&other));
        }
    }
}
