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
        let heard = Instant::now();
        if self.us_at(heard).is_none_or(is_news) {
            self.heard.set(Some((heard, now_us)));
        }
    }

    /// The store's clock at an instant since the last answer, as far behind as that was on its way. So a denial that
    /// was remembered at the instant is one by this clock, too: it was made before that answer or with it.
    pub(super) fn us_at(&self, instant: Instant) -> Option<i64> {
        let (heard, now_us) = self.heard.get()?;
        let since = instant.saturating_duration_since(heard).as_micros();
        Some(now_us.saturating_add(i64::try_from(since).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_heard_late_does_not_set_the_clock_back_and_a_step_of_the_store_does() {
        const LATER: i64 = 1_900_000_000_000_000;
        let clock = StoreClock::default();
        let now_us = || clock.us_at(Instant::now());
        assert_eq!(now_us(), None);
        clock.hear(LATER);
        clock.hear(LATER - 5_000);
        assert!(now_us().is_some_and(|now_us| now_us >= LATER));
        clock.hear(LATER - 60_000_000);
        assert!(now_us().is_some_and(|now_us| now_us < LATER));
    }

    /// Between the look at what is remembered and the line in the log a busy machine may let the worker wait for
    /// longer than the denial lasts.
    #[test]
    fn the_clock_is_read_as_of_the_instant_that_is_meant() {
        const HEARD: i64 = 1_900_000_000_000_000;
        let clock = StoreClock::default();
        clock.hear(HEARD);
        let looked = Instant::now();
        let then_us = clock.us_at(looked).expect("it was heard");
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(clock.us_at(looked), Some(then_us));
        assert!(clock.us_at(Instant::now()).is_some_and(|now_us| now_us >= then_us + 5_000));
    }
}
