//! Schedules: other terms of a limit at certain hours of the week, by the wall clock of one time zone.
//!
//! A schedule's terms read the limit's own state, as a changed rate does: a bucket keeps its time to
//! full and a window its count, so nothing fresh is handed out where one schedule ends and the next begins.
//! Which one holds is looked up once a minute: wall clocks show another hour, or are put back or forward, at
//! whole minutes only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::algorithm::zone::Zone;
use super::policy::Terms;

/// The schedules of a limit; no two of them hold at once.
#[derive(Debug)]
pub struct Schedules {
    /// By their order in the file.
    pub list: Vec<Schedule>,
    /// Whose wall clock they go by.
    pub zone: Zone,
    /// The minute since 1970 that was looked up last, and 1 + the position of what holds in it, or 0.
    seen: AtomicU64,
}

/// Other terms at certain hours.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// For people.
    pub name: Box<str>,
    /// When.
    pub hours: Hours,
    /// What holds then.
    pub terms: Terms,
}

/// Hours of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// The days on which they begin.
    pub days: Days,
    /// First minute of the day, 0 to 1439.
    pub from: u16,
    /// The minute after the last, 1 to 1440; not above `from`: of the day after.
    pub to: u16,
}

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Days(u8);

/// Minutes of a day.
pub const DAY: u16 = 1440;

const MINUTE_US: i64 = 60_000_000;
/// Room for a position in what was seen.
const POSITION_BITS: u32 = 16;

impl Schedules {
    /// These, by this zone's clock.
    #[must_use]
    pub fn new(list: Vec<Schedule>, zone: Zone) -> Self {
        Self { list, zone, seen: AtomicU64::new(0) }
    }

    /// The position of the one that holds now, by this process' clock.
    #[must_use]
    pub fn now(&self) -> Option<usize> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at_remembered(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
    }

    /// [`Schedules::at`], looked up once a minute.
    fn at_remembered(&self, now_us: i64) -> Option<usize> {
        let minute = now_us.div_euclid(MINUTE_US).cast_unsigned();
        let seen = self.seen.load(Ordering::Relaxed);
        if seen >> POSITION_BITS == minute && seen != 0 {
            return usize::try_from(seen & ((1 << POSITION_BITS) - 1)).ok()?.checked_sub(1);
        }
        let found = self.at(now_us);
        let place = found.map_or(0, |position| position as u64 + 1);
        self.seen.store(minute << POSITION_BITS | place, Ordering::Relaxed);
        found
    }

    /// The position of the one that holds at an instant, microseconds since 1970.
    #[must_use]
    pub fn at(&self, now_us: i64) -> Option<usize> {
        let local = self.zone.local(now_us)?;
        let day = u16::try_from(local.weekday().to_monday_zero_offset()).unwrap_or(0);
        let minute = u16::from(local.hour().cast_unsigned()) * 60 + u16::from(local.minute().cast_unsigned());
        self.list.iter().position(|schedule| schedule.hours.hold(day, minute))
    }
}

impl Hours {
    /// Whether they hold in this minute of this day (0 is Monday).
    #[must_use]
    pub fn hold(&self, day: u16, minute: u16) -> bool {
        let before = (day + 6) % 7;
        if self.from < self.to {
            return self.days.contains(day) && (self.from..self.to).contains(&minute);
        }
        (self.days.contains(day) && minute >= self.from) || (self.days.contains(before) && minute < self.to)
    }

    /// The first minute of the week, from Monday on, in which both hold.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> Option<(u16, u16)> {
        let minutes = (0..7).flat_map(|day| (0..DAY).map(move |minute| (day, minute)));
        minutes.into_iter().find(|&(day, minute)| self.hold(day, minute) && other.hold(day, minute))
    }
}

impl Days {
    /// Their names, Monday first.
    pub const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    /// All of them.
    pub const ALL: Self = Self(0x7f);

    /// From one day to another, both included, past Sunday if need be (0 is Monday).
    #[must_use]
    pub fn span(first: usize, last: usize) -> Self {
        let length = (last + 7 - first) % 7;
        Self((0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7)))
    }

    /// These and those.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether this day (0 is Monday) is one of them.
    #[must_use]
    pub fn contains(self, day: u16) -> bool {
        self.0 >> day & 1 == 1
    }

    /// The names of those that are meant.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().zip(0..).filter(move |&(_, day)| self.contains(day)).map(|(name, _)| name)
    }
}

/// `06:30`; `24:00` is the end of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockText(pub u16);

impl std::fmt::Display for ClockText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl std::fmt::Display for Hours {
    /// `mon-fri 22:00 to 06:00`, without the days when all are meant.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.days != Days::ALL {
            write!(f, "{} ", self.days.names().collect::<Vec<_>>().join(", "))?;
        }
        if (self.from, self.to) == (0, DAY) {
            return f.write_str("all day");
        }
        write!(f, "{} to {}", ClockText(self.from), ClockText(self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
    }

    fn schedules(zone: &str, hours: &[Hours]) -> Schedules {
        let list = hours.iter().map(|&hours| Schedule { name: "s".into(), hours, terms: Terms::Deny }).collect();
        Schedules::new(list, Zone::find(zone).unwrap())
    }

    /// Nights of working days: those that begin from Monday to Friday.
    const NIGHTS: Hours = Hours { days: Days(0x1f), from: 22 * 60, to: 6 * 60 };
    const WEEKEND: Hours = Hours { days: Days(0x60), from: 8 * 60, to: DAY };

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let berlin = schedules("Europe/Berlin", &[NIGHTS, WEEKEND]);
        for (now, expected) in [
            ("2026-11-23T04:59:59Z", None),    // Monday 05:59:59: Sunday's night is none
            ("2026-11-23T20:59:59Z", None),    // Monday 21:59:59
            ("2026-11-23T21:00:00Z", Some(0)), // Monday 22:00
            ("2026-11-24T04:59:59Z", Some(0)), // Tuesday 05:59:59
            ("2026-11-24T05:00:00Z", None),
            ("2026-11-28T04:30:00Z", Some(0)), // Saturday 05:30 ends Friday's night
            ("2026-11-28T06:59:00Z", None),
            ("2026-11-28T07:00:00Z", Some(1)), // Saturday 08:00
            ("2026-11-28T22:59:59Z", Some(1)), // Saturday 23:59:59
            ("2026-11-28T23:00:00Z", None),    // Sunday 00:00
            ("2026-11-29T22:30:00Z", Some(1)), // Sunday 23:30
        ] {
            assert_eq!(berlin.at(us(now)), expected, "{now}");
            assert_eq!(berlin.at_remembered(us(now)), expected, "{now}");
        }
    }

    #[test]
    fn the_wall_clock_decides_when_it_is_put_forward_and_back() {
        let early = schedules("Europe/Berlin", &[Hours { days: Days::ALL, from: 2 * 60, to: 3 * 60 }]);
        // 2026-03-29: 01:59:59 is followed by 03:00; 2026-10-25: the hour from 02:00 to 03:00 comes twice.
        for (now, expected) in [
            ("2026-03-28T01:30:00Z", Some(0)),
            ("2026-03-29T00:59:59Z", None),
            ("2026-03-29T01:00:00Z", None),
            ("2026-10-25T00:00:00Z", Some(0)),
            ("2026-10-25T01:59:59Z", Some(0)),
            ("2026-10-25T02:00:00Z", None),
        ] {
            assert_eq!(early.at(us(now)), expected, "{now}");
            assert_eq!(early.at_remembered(us(now)), expected, "{now}");
        }
    }

    #[test]
    fn what_is_remembered_equals_what_is_looked_up_in_any_order_of_instants() {
        let lord_howe = schedules("Australia/Lord_Howe", &[NIGHTS, WEEKEND]);
        let mut random = fastrand::Rng::with_seed(5);
        let begin = us("2026-01-01T00:00:00Z");
        for _ in 0..5_000 {
            let now = begin + random.i64(0..60) * 60 * MINUTE_US * 146 + random.i64(0..180_000_000);
            assert_eq!(lord_howe.at_remembered(now), lord_howe.at(now), "{now}");
        }
    }

    #[test]
    fn hours_that_meet_do_not_overlap_and_those_that_do_say_when() {
        let day = Hours { days: Days::ALL, from: 6 * 60, to: 22 * 60 };
        assert_eq!(NIGHTS.shared_with(&day), None);
        assert_eq!(NIGHTS.shared_with(&WEEKEND), None);
        let saturday_morning = Hours { days: Days::span(5, 5), from: 0, to: 5 * 60 };
        assert_eq!(NIGHTS.shared_with(&saturday_morning), Some((5, 0)));
    }

    #[test]
    fn spans_of_days_may_pass_sunday() {
        assert_eq!(Days::span(0, 6), Days::ALL);
        assert_eq!(Days::span(4, 0).names().collect::<Vec<_>>(), ["mon", "fri", "sat", "sun"]);
        assert_eq!(Days::span(2, 2).names().collect::<Vec<_>>(), ["wed"]);
        assert_eq!(NIGHTS.to_string(), "mon, tue, wed, thu, fri 22:00 to 06:00");
    }
}
