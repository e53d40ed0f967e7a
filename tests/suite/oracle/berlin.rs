//! The clock of Berlin from 2025 to 2027, by hand: when it was one hour ahead of UTC and when two, and
//! from that the instants at which windows begin.

use std::collections::HashMap;
use std::sync::LazyLock;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// 2025-01-01 and 2028-01-01, 00:00 UTC.
pub(super) const BEGIN: i64 = 1_735_689_600 * SECOND;
pub(super) const END: i64 = 1_830_297_600 * SECOND;

/// When the clock is changed, always at 01:00 UTC, and how many hours it is ahead from then on.
pub(super) const CHANGES: [(i64, i64); 6] = [
    (1_743_296_400 * SECOND, 2), // 2025-03-30
    (1_761_440_400 * SECOND, 1), // 2025-10-26
    (1_774_746_000 * SECOND, 2), // 2026-03-29
    (1_792_890_000 * SECOND, 1), // 2026-10-25
    (1_806_195_600 * SECOND, 2), // 2027-03-28
    (1_824_944_400 * SECOND, 1), // 2027-10-31
];

/// Widths of windows in these tests, and the instants at which theirs begin.
static BORDERS: LazyLock<HashMap<i64, Vec<i64>>> = LazyLock::new(|| {
    let parts = [40 * MINUTE, HOUR, 144 * MINUTE, 6 * HOUR];
    parts.into_iter().chain([1, 3, 7].map(|days| days * DAY)).map(|width| (width, borders(width))).collect()
});

/// The windows of this width by Berlin's clock, as the instants at which they begin.
pub(super) fn windows(width: i64) -> &'static [i64] {
    &BORDERS[&width]
}

/// Marks stand at multiples of the width since midnight, of days since 1970-01-01, of weeks on Mondays.
fn borders(width: i64) -> Vec<i64> {
    let origin = if width % (7 * DAY) == 0 { 4 * DAY } else { 0 };
    let first = (BEGIN - 30 * DAY - origin) / width * width + origin;
    let marks = (0..).map(|number| first + number * width).take_while(|mark| *mark < END + 30 * DAY);
    let mut borders: Vec<i64> = marks.map(first_shown).collect();
    borders.dedup();
    borders
}

/// The first instant at which the wall clock shows this, or more when it skips it. Wall clocks are counted as
/// if they were UTC.
fn first_shown(mark: i64) -> i64 {
    let mut since = i64::MIN;
    let mut ahead = HOUR;
    for (change, hours) in CHANGES {
        if mark < change + ahead {
            break;
        }
        (since, ahead) = (change, hours * HOUR);
    }
    since.max(mark - ahead)
}

#[test]
fn the_days_of_a_clock_change_have_23_and_25_hours() {
    let lengths = |hours: i64| windows(DAY).windows(2).filter(|pair| pair[1] - pair[0] == hours * HOUR).count();
    assert_eq!([lengths(23), lengths(25)], [3, 3]);
    assert_eq!(lengths(24), windows(DAY).len() - 7);
    // 2026-10-25 began at 22:00 UTC of the day before.
    assert!(windows(DAY).contains(&(1_792_879_200 * SECOND)));
}
