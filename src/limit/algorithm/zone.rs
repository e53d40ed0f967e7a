//! Windows by the wall clock of a time zone.

use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use jiff::{Error, Span, Timestamp};

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

const DAY_US: i64 = 86_400_000_000;

impl Zone {
    /// The zone of this name, such as `Europe/Berlin`.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The local date and time of an instant, microseconds since 1970.
    #[must_use]
    pub fn local(&self, now_us: i64) -> Option<DateTime> {
        Timestamp::from_microsecond(now_us).ok().map(|now| self.0.to_datetime(now))
    }

    /// Whether windows of this many microseconds have the same marks every day: whole days, or parts
    /// of one.
    #[must_use]
    pub fn suits(window_us: u64) -> bool {
        let day = DAY_US.unsigned_abs();
        window_us > 0 && (window_us.is_multiple_of(day) || day.is_multiple_of(window_us))
    }

    /// The window `[start, end)` of this width that holds an instant. On days of a clock change it is
    /// shorter or longer than `width`.
    #[must_use]
    pub fn window_at(&self, now_us: i64, width: i64) -> (i64, i64) {
        let found = self.marks(now_us, width).ok().filter(|&(start, end)| (start..end).contains(&now_us));
        found.unwrap_or_else(|| {
            let start = now_us.div_euclid(width) * width;
            (start, start + width)
        })
    }

    fn marks(&self, now_us: i64, width: i64) -> Result<(i64, i64), Error> {
        let local = self.0.to_datetime(Timestamp::from_microsecond(now_us)?);
        if width >= DAY_US {
            let days = width / DAY_US;
            let first = first_day(local.date(), days)?;
            let next = first.checked_add(Span::new().try_days(days)?)?;
            return Ok((self.instant(first.at(0, 0, 0, 0))?, self.instant(next.at(0, 0, 0, 0))?));
        }
        let midnight = local.date().at(0, 0, 0, 0);
        let passed = local.duration_since(midnight).as_micros();
        let start = i64::try_from(passed).unwrap_or(0).div_euclid(width) * width;
        let mark = |micros: i64| midnight.checked_add(Span::new().try_microseconds(micros)?);
        Ok((self.instant(mark(start)?)?, self.instant(mark(start + width)?)?))
    }

    /// When the wall clock shows this for the first time; what it skips is when it skips.
    fn instant(&self, local: DateTime) -> Result<i64, Error> {
        Ok(self.0.to_ambiguous_timestamp(local).compatible()?.as_microsecond())
    }
}

/// The first day of the group of so many days that holds a day; whole weeks begin on Mondays.
fn first_day(day: Date, days: i64) -> Result<Date, Error> {
    let epoch = if days % 7 == 0 { date(1970, 1, 5) } else { date(1970, 1, 1) };
    let passed = i64::from((day - epoch).get_days()).rem_euclid(days);
    day.checked_sub(Span::new().try_days(passed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn days_follow_the_wall_clock_through_its_changes() {
        let berlin = Zone::find("Europe/Berlin").unwrap();
        for (now, start, hours) in [
            ("2026-03-28T22:59:59Z", "2026-03-27T23:00:00Z", 24),
            ("2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", 23),
            ("2026-03-29T22:00:00Z", "2026-03-29T22:00:00Z", 24),
            ("2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", 25),
        ] {
            let window = berlin.window_at(us(now), DAY_US);
            assert_eq!(window, (us(start), us(start) + hours * HOUR), "{now}");
        }
        let sixth = berlin.window_at(us("2026-10-25T03:30:00Z"), 6 * HOUR);
        assert_eq!(sixth, (us("2026-10-24T22:00:00Z"), us("2026-10-25T05:00:00Z")), "seven hours long");
    }

    #[test]
    fn whole_weeks_begin_on_mondays() {
        let kolkata = Zone::find("Asia/Kolkata").unwrap();
        let (start, end) = kolkata.window_at(us("2026-11-27T12:00:00Z"), 7 * DAY_US);
        assert_eq!((start, end), (us("2026-11-22T18:30:00Z"), us("2026-11-29T18:30:00Z")));
    }

    #[test]
    fn every_window_holds_its_instant_and_meets_the_next() {
        let mut random = fastrand::Rng::with_seed(11);
        for name in ["Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "Asia/Kathmandu", "Africa/Cairo"] {
            let zone = Zone::find(name).unwrap();
            for _ in 0..2_000 {
                let now = us("2026-01-01T00:00:00Z") + random.i64(0..366 * DAY_US);
                for width in [HOUR / 4, HOUR, 6 * HOUR, DAY_US, 7 * DAY_US] {
                    let (start, end) = zone.window_at(now, width);
                    assert!((start..end).contains(&now), "{name} {now} {width}");
                    assert_eq!(zone.window_at(end, width).0, end, "{name} {now} {width}");
                    assert_eq!(zone.window_at(end - 1, width), (start, end), "{name} {now} {width}");
                }
            }
        }
    }
}
