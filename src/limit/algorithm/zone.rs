//! Windows by the wall clock of a time zone.
//!
//! A window begins when the wall clock shows one of its marks: midnight, or a multiple of the width since
//! midnight. When the clock is changed, a mark that it skips counts as shown at the change, and one that it
//! shows twice counts the first time. So windows are shorter or longer than their width on such days, and
//! every instant lies in exactly one. The clocks of all zones differ from UTC, and are changed, by whole
//! quarters of an hour: windows that divide a quarter are those of UTC and always of the same length.

use jiff::civil::{Date, DateTime, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Error, Span, Timestamp};

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

const DAY_US: i64 = 86_400_000_000;
const QUARTER_US: i64 = 900_000_000;

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

    /// The window `[start, end)` of this width that holds an instant. On days of a clock change it may be
    /// shorter or longer than `width`.
    #[must_use]
    pub fn window_at(&self, now_us: i64, width: i64) -> (i64, i64) {
        let by_utc = QUARTER_US % width == 0;
        let marks = if by_utc { None } else { self.marks(now_us, width).ok() };
        let found = marks.filter(|&(start, end)| (start..end).contains(&now_us));
        found.unwrap_or_else(|| {
            let start = now_us.div_euclid(width) * width;
            (start, start + width)
        })
    }

    fn marks(&self, now_us: i64, width: i64) -> Result<(i64, i64), Error> {
        let local = self.furthest(now_us)?;
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

    /// The latest that the wall clock has shown up to an instant. That is what it shows, unless it was set back
    /// and shows this for the second time: then it is what it showed just before.
    fn furthest(&self, now_us: i64) -> Result<DateTime, Error> {
        let now = Timestamp::from_microsecond(now_us)?;
        let local = self.0.to_datetime(now);
        let AmbiguousOffset::Fold { before, after } = self.0.to_ambiguous_timestamp(local).offset() else {
            return Ok(local);
        };
        let change = self.0.preceding(Timestamp::from_microsecond(now_us + 1)?).next();
        match change.filter(|_| self.0.to_offset(now) == after) {
            Some(change) => before.to_datetime(change.timestamp()).checked_sub(Span::new().try_microseconds(1)?),
            None => Ok(local),
        }
    }

    /// When the wall clock shows this for the first time; what it skips is when it skips.
    fn instant(&self, local: DateTime) -> Result<i64, Error> {
        let ambiguous = self.0.to_ambiguous_timestamp(local);
        if let AmbiguousOffset::Gap { after, .. } = ambiguous.offset()
            && let Some(change) = self.0.following(after.to_timestamp(local)?).next()
        {
            return Ok(change.timestamp().as_microsecond());
        }
        Ok(ambiguous.compatible()?.as_microsecond())
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

    /// Zones and the days of 2026 (UTC) on which their clocks change: by an hour, by half an hour, at midnight.
    const CHANGING: [(&str, [&str; 2]); 6] = [
        ("Europe/Berlin", ["2026-03-29", "2026-10-25"]),
        ("Australia/Lord_Howe", ["2026-04-04", "2026-10-03"]),
        ("America/New_York", ["2026-03-08", "2026-11-01"]),
        ("America/Havana", ["2026-03-08", "2026-11-01"]),
        ("Africa/Cairo", ["2026-04-23", "2026-10-29"]),
        ("Asia/Kathmandu", ["2026-01-01", "2026-07-01"]),
    ];

    fn assert_seamless(zone: &Zone, now: i64, width: i64) {
        let (start, end) = zone.window_at(now, width);
        let place = format!("{} at {now}, {width}: {start} to {end}", zone.name());
        assert!((start..end).contains(&now), "{place}");
        assert_eq!(zone.window_at(start, width), (start, end), "{place}");
        assert_eq!(zone.window_at(end - 1, width), (start, end), "{place}");
        assert_eq!(zone.window_at(end, width).0, end, "{place}");
        assert_eq!(zone.window_at(start - 1, width).1, start, "{place}");
    }

    #[test]
    fn every_window_holds_its_instant_and_meets_its_neighbours() {
        let mut random = fastrand::Rng::with_seed(11);
        let minutes = |count: i64| count * 60_000_000;
        let widths = [1, 15, 20, 30, 36, 40, 48, 60, 90, 120, 144, 360, 1440, 3 * 1440, 7 * 1440].map(minutes);
        for (name, changes) in CHANGING {
            let zone = Zone::find(name).unwrap();
            for width in widths {
                for _ in 0..100 {
                    assert_seamless(&zone, us("2026-01-01T00:00:00Z") + random.i64(0..366 * DAY_US), width);
                }
                for day in changes {
                    for quarter in 0..96 {
                        let now = us(&format!("{day}T00:00:00Z")) + quarter * minutes(15) + random.i64(0..minutes(15));
                        assert_seamless(&zone, now, width);
                    }
                }
            }
        }
    }

    #[test]
    fn a_mark_that_the_clock_skips_is_when_it_skips_and_one_shown_twice_is_the_first() {
        let berlin = Zone::find("Europe/Berlin").unwrap();
        for (now, width, start, end) in [
            ("2026-03-29T01:10:00Z", 40, "2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z"),
            ("2026-03-29T00:50:00Z", 144, "2026-03-28T23:00:00Z", "2026-03-29T01:00:00Z"),
            ("2026-03-29T01:10:00Z", 144, "2026-03-29T01:00:00Z", "2026-03-29T02:48:00Z"),
            ("2026-10-25T00:50:00Z", 20, "2026-10-25T00:40:00Z", "2026-10-25T02:00:00Z"),
            ("2026-10-25T01:05:00Z", 20, "2026-10-25T00:40:00Z", "2026-10-25T02:00:00Z"),
            ("2026-10-25T01:05:00Z", 60, "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"),
            ("2026-10-25T01:05:00Z", 15, "2026-10-25T01:00:00Z", "2026-10-25T01:15:00Z"),
        ] {
            let window = berlin.window_at(us(now), width * 60_000_000);
            assert_eq!(window, (us(start), us(end)), "{width} minutes at {now}");
        }
    }
}
