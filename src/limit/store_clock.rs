//! The store's clock as its answers tell it.

use std::cell::Cell;
use std::time::Instant;

use super::algorithm::TOLERANCE_US;

/// What the store's answers say of its clock; never ahead of it.
#[derive(Debug, Default)]
pub(super) struct StoreClock {
    /// When an answer came, and the store's clock in it.
    heard: Cell<Option<(Instant, i64)>>,
}

impl StoreClock {
    /// An answer came, made at this instant of the store's clock (microseconds since 1970). Answers of one
    /// store are not always heard in the order in which they were made: the later one counts. A store whose
    /// clock stepped back is believed.
    pub(super) fn hear(&self, now_us: i64) {
        let is_news = |known_us: i64| now_us >= known_us || known_us - now_us > TOLERANCE_US.cast_signed();
        if self.now_us().is_none_or(is_news) {
            self.heard.set(Some((Instant::now(), now_us)));
        }
    }

    /// The store's clock, as far behind as the answer was on its way. So a denial that is still
    /// remembered is one at this instant, too: it was made before that answer or with it.
    pub(super) fn now_us(&self) -> Option<i64> {
        let (heard, now_us) = self.heard.get()?;
        Some(now_us.saturating_add(i64::try_from(heard.elapsed().as_micros()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_heard_late_does_not_set_the_clock_back_and_a_step_of_the_store_does() {
        const LATER: i64 = 1_900_000_000_000_000;
        let clock = StoreClock::default();
        assert_eq!(clock.now_us(), None);
        clock.hear(LATER);
        clock.hear(LATER - 5_000);
        assert!(clock.now_us().is_some_and(|now_us| now_us >= LATER));
        clock.hear(LATER - 60_000_000);
        assert!(clock.now_us().is_some_and(|now_us| now_us < LATER));
    }
}
