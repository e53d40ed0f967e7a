//! The times of logs, as microseconds since 1970.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Bytes of `10/Oct/2000:13:55:36 -0700`.
const APACHE: usize = 26;

/// A time in brackets: Apache's, or one of RFC 3339.
pub(super) fn bracketed(text: &[u8]) -> Option<i64> {
    apache(text).or_else(|| rfc3339(std::str::from_utf8(text).ok()?))
}

/// `2023-11-14T22:13:20.123456Z`, with any offset.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// Seconds since 1970, or thousandths, millionths or billionths of them, as their size tells.
pub(super) fn since_1970(number: f64) -> Option<i64> {
    if !number.is_finite() {
        return None;
    }
    let micros = match number.abs() {
        // Apart, or a double has not enough digits.
        size if size < 1e11 => number.trunc() * 1e6 + (number.fract() * 1e6).round(),
        size if size < 1e14 => number * 1e3,
        size if size < 1e17 => number,
        _ => number / 1e3,
    };
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and the bounds are checked below")]
    let micros = micros.round() as i64;
    Timestamp::from_microsecond(micros).ok().map(Timestamp::as_microsecond)
}

/// `10/Oct/2000:13:55:36 -0700`.
fn apache(text: &[u8]) -> Option<i64> {
    if text.len() != APACHE || [text[2], text[6], text[11], text[14], text[17], text[20]] != *b"//::: " {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i16> {
        let digits = text.get(from..to)?;
        digits.iter().try_fold(0_i16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i16::from(*digit - b'0')))
    };
    let small = |from: usize, to: usize| -> Option<i8> { i8::try_from(number(from, to)?).ok() };
    let date = Date::new(number(7, 11)?, month(&text[3..6])?, small(0, 2)?).ok()?;
    let (hour, minute, second) = (small(12, 14)?, small(15, 17)?, small(18, 20)?.min(59));
    if hour > 23 || minute > 59 {
        return None;
    }
    let offset = (i64::from(number(22, 24)?) * 60 + i64::from(number(24, 26)?)) * 60_000_000;
    let local = date.at(hour, minute, second, 0).to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond();
    match text[21] {
        b'+' => Some(local - offset),
        b'-' => Some(local + offset),
        _ => None,
    }
}

/// The number of a month by its English name.
fn month(name: &[u8]) -> Option<i8> {
    const NAMES: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let position = NAMES.iter().position(|known| *known == name)?;
    i8::try_from(position + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_instant_is_the_same_instant() {
        let at = 971_211_336_000_000;
        assert_eq!(bracketed(b"10/Oct/2000:13:55:36 -0700"), Some(at));
        assert_eq!(bracketed(b"10/Oct/2000:20:55:36 +0000"), Some(at));
        assert_eq!(bracketed(b"2000-10-10T20:55:36+00:00"), Some(at));
        assert_eq!(rfc3339("2000-10-10T13:55:36.000000-0700"), Some(at));
        assert_eq!(since_1970(971_211_336.0), Some(at));
        assert_eq!(since_1970(971_211_336_000.0), Some(at));
        assert_eq!(since_1970(1_646_861_401.524_102_4), Some(1_646_861_401_524_102));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            &b"10/Okt/2000:13:55:36 -0700"[..],
            b"31/Feb/2000:13:55:36 -0700",
            b"10/Oct/2000:25:55:36 -0700",
            b"10/Oct/2000:13:55:36 *0700",
            b"10/Oct/2000:13:55:36",
            b"xx/Oct/2000:13:55:36 -0700",
            b"",
            b"\xff\xfe",
        ] {
            assert_eq!(bracketed(text), None, "{}", String::from_utf8_lossy(text));
        }
        for number in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(since_1970(number), None);
        }
    }
}
