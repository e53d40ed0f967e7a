//! Numbers that go with names for as long as the process runs, through every reload: what counters, caps and
//! connections are found by.

use std::collections::HashMap;

/// The numbers given so far.
#[derive(Debug, Clone, Default)]
pub struct Ordinals {
    pub(super) listeners: Numbers,
    pub(super) routes: Numbers,
    pub(super) limits: Numbers,
    /// Of `upstream server`.
    pub(super) servers: Numbers,
}

impl Ordinals {
    /// How many numbers of listeners, routes, limits and servers were given.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        [&self.listeners, &self.routes, &self.limits, &self.servers].map(|numbers| numbers.0.len())
    }
}

/// Numbers from 0 on, in the order in which their names came.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(HashMap<Box<str>, usize>);

impl Numbers {
    /// The number of a name, a new one if it has none.
    pub(super) fn of(&mut self, name: &str) -> usize {
        let next = self.0.len();
        *self.0.entry(name.into()).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_went_and_comes_again_has_its_number() {
        let mut numbers = Numbers::default();
        assert_eq!(["a", "b", "a", "c", "b"].map(|name| numbers.of(name)), [0, 1, 0, 2, 1]);
    }
}
