//! A list that grows without moving what is in it, read and written without a lock by any thread: what
//! counts by number, while numbers are added.

use std::sync::OnceLock;

/// Elements of the first segment; each further one is twice as long.
const FIRST: usize = 16;
/// Segments: room for 16 million elements.
const SEGMENTS: usize = 20;

/// Elements by number, made when they are first asked for.
#[derive(Debug)]
pub struct Slots<T> {
    segments: [OnceLock<Box<[T]>>; SEGMENTS],
}

impl<T: Default> Slots<T> {
    /// The element of this number.
    pub fn at(&self, number: usize) -> &T {
        let (segment, offset) = place(number);
        &self.segments[segment].get_or_init(|| (0..FIRST << segment).map(|_| T::default()).collect())[offset]
    }

    /// The same, unless nobody has asked for it or one near it.
    pub fn get(&self, number: usize) -> Option<&T> {
        let (segment, offset) = place(number);
        self.segments[segment].get()?.get(offset)
    }

    /// All that there are, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let made = self.segments.iter().enumerate().filter_map(|(segment, made)| Some((segment, made.get()?)));
        made.flat_map(|(segment, elements)| (beginning(segment)..).zip(elements.iter()))
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { segments: std::array::from_fn(|_| OnceLock::new()) }
    }
}

/// Number of a segment's first element.
const fn beginning(segment: usize) -> usize {
    FIRST * ((1 << segment) - 1)
}

/// Segment and offset of a number; numbers beyond the last one share its place.
fn place(number: usize) -> (usize, usize) {
    let number = number.min(beginning(SEGMENTS) - 1);
    let segment = (number / FIRST + 1).ilog2() as usize;
    (segment, number - beginning(segment))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn every_number_has_its_own_element_that_stays_where_it_is() {
        let slots = Slots::<Cell<usize>>::default();
        assert!(slots.get(3).is_none());
        let first = slots.at(0);
        (0..1_000).for_each(|number| slots.at(number).set(number));
        assert!(std::ptr::eq(first, slots.at(0)));
        assert!((0..1_000).all(|number| slots.get(number).is_some_and(|element| element.get() == number)));
        let numbers: Vec<_> = slots.iter().map(|(number, _)| number).collect();
        assert!(numbers.len() >= 1_000 && numbers.iter().copied().eq(0..numbers.len()));
    }
}
