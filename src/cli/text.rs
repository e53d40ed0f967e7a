//! Numbers, shares, times and excerpts as people read them.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `1,234,567`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 request`, `2 requests`.
pub(super) fn count(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A part of a whole in percent: `0%`, `<0.01%`, `1.23%`, `100%`.
pub(super) fn share(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    match (part, hundredths) {
        (0, _) => "0%".to_owned(),
        (_, 0) => "<0.01%".to_owned(),
        _ if part == whole => "100%".to_owned(),
        _ => format!("{}.{:02}%", hundredths / 100, hundredths % 100),
    }
}

/// `2026-11-20 10:00:00`, in UTC.
pub(super) fn time(at_us: i64) -> String {
    zoned(at_us, "%Y-%m-%d %H:%M:%S")
}

/// An instant in UTC, in this form.
pub(super) fn zoned(at_us: i64, form: &str) -> String {
    let time = Timestamp::from_microsecond(at_us).unwrap_or_default();
    time.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

/// `2026-11-20T10:00:00.000001Z`.
pub(super) fn exact_time(at_us: i64) -> String {
    format!("{:.6}", Timestamp::from_microsecond(at_us).unwrap_or_default())
}

/// A stretch of time in its two largest units: `2 h 30 min`, `41 s`, `1.5 s` below ten seconds.
pub(super) fn span(micros: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    if micros < 1_000 {
        return format!("{micros} µs");
    }
    if micros < 1_000_000 {
        return format!("{} ms", micros / 1_000);
    }
    let seconds = micros / 1_000_000;
    if seconds < 10 && micros >= 1_050_000 {
        let tenths = micros / 100_000;
        return if tenths.is_multiple_of(10) {
            format!("{} s", tenths / 10)
        } else {
            format!("{}.{} s", tenths / 10, tenths % 10)
        };
    }
    let largest = UNITS.iter().position(|(_, size)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, size) in UNITS.iter().skip(largest).take(2) {
        if rest / size > 0 {
            parts.push(format!("{} {unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

/// Text of a stranger's, in at most so many printable characters.
pub(super) fn printable(bytes: &[u8], room: usize) -> String {
    let mut text = String::new();
    for &byte in bytes.iter().take(room * 2) {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
        if text.len() > room {
            text.truncate(room.saturating_sub(3));
            text.push_str("...");
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shares_never_lie_about_nothing() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(count(1, "key"), "1 key");
        assert_eq!(
            [(0, 0), (1, 1_000_000), (123, 10_000), (5, 5)].map(|(a, b)| share(a, b)),
            ["0%", "<0.01%", "1.23%", "100%"]
        );
    }

    #[test]
    fn stretches_are_said_in_two_units() {
        for (micros, words) in [
            (20, "20 µs"),
            (250_000, "250 ms"),
            (1_000_000, "1 s"),
            (1_500_000, "1.5 s"),
            (41_900_000, "41 s"),
            (90_000_000, "1 min 30 s"),
            (9_000_000_000, "2 h 30 min"),
            (86_400_000_000, "1 d"),
        ] {
            assert_eq!(span(micros), words);
        }
    }

    #[test]
    fn an_excerpt_is_bounded_and_printable() {
        assert_eq!(printable(b"a\x1b[31m", 40), "a\\x1b[31m");
        assert_eq!(printable(&[b'x'; 500], 10), "xxxxxxx...");
    }
}
