//! Rates, durations and sizes: text to value and back. A leaf: it depends on nothing.

mod meant;

use std::fmt;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

/// What is wrong with a quantity, as a sentence that also says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// How much is earned back per period, for example `100/s`, `5/10s` or `50000/d`.
///
/// `0/s` is valid and means "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Cost units earned per period.
    pub count: u64,
    /// The period; never zero, whole microseconds, at most 366 days.
    pub period: Duration,
}

/// The longest period of a rate and the longest duration accepted, in seconds (366 days).
const LONGEST: u64 = 366 * 86_400;

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            let cure = meant::rate(text).map_or_else(
                || "write a count and a period, such as 100/s, 5/10s, 1000/m or 50000/d".to_owned(),
                |rate| format!("did you mean `{rate}`?"),
            );
            UnitError(format!("`{text}` is not a rate; {cure}"))
        };
        let (count, period) = text.trim().split_once('/').ok_or_else(wrong)?;
        let count = count.trim().parse().map_err(|error: ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => {
                UnitError(format!("`{text}` is too large for a rate; write a smaller count, or `unlimited`"))
            }
            _ => wrong(),
        })?;
        let period = period.trim();
        let period = if period.starts_with(|c: char| c.is_ascii_digit()) {
            parse_duration(period).map_err(|_| wrong())?
        } else {
            Duration::from_micros(unit_micros(period).ok_or_else(wrong)?)
        };
        if period.is_zero() {
            return Err(wrong());
        }
        Ok(Self { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = DurationText(self.period).to_string();
        let unit = ["s", "m", "h", "d", "ms"].into_iter().find(|unit| period == format!("1{unit}"));
        write!(f, "{}/{}", self.count, unit.unwrap_or(&period))
    }
}

/// Parses `250ms`, `30s`, `1m30s`, `2h` or `1d` into a duration of whole microseconds.
///
/// # Errors
/// When a number or a unit (`us`, `ms`, `s`, `m`, `h`, `d`) is missing or unknown, or the sum
/// exceeds 366 days.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || {
        let cure = meant::duration(text).map_or_else(
            || "write a number and a unit, such as 250ms, 30s, 1m30s, 2h or 1d".to_owned(),
            |duration| format!("did you mean `{}`?", DurationText(duration)),
        );
        UnitError(format!("`{text}` is not a duration; {cure}"))
    };
    let mut rest = text.trim();
    let mut micros: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = unit_micros(unit).and_then(|unit| number.checked_mul(unit)).ok_or_else(wrong)?;
        micros = micros.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if micros > LONGEST * 1_000_000 {
        return Err(UnitError(format!("`{text}` is too long; 366d is the longest duration accepted")));
    }
    Ok(Duration::from_micros(micros))
}

/// Microseconds in one `unit`, or `None` when it is not one of ours.
fn unit_micros(unit: &str) -> Option<u64> {
    Some(match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    })
}

/// Shows a duration the way the configuration writes it: `1m30s`, `250ms`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in
            [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)]
        {
            if micros >= size {
                write!(f, "{}{unit}", micros / size)?;
                micros %= size;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written `64KiB`, `10MiB`, `1GiB`, `512B` or `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            let cure = meant::size(text).map_or_else(
                || "write a number and a unit, such as 64KiB, 10MiB or 1GiB".to_owned(),
                |size| format!("did you mean `{size}`?"),
            );
            UnitError(format!("`{text}` is not a size; {cure}"))
        };
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor = unit_bytes(unit.trim()).ok_or_else(wrong)?;
        number.checked_mul(factor).map(Size).ok_or_else(wrong)
    }
}

/// Bytes in one `unit`, or `None` when it is not one of ours.
fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    })
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown_as_written() {
        for text in ["100/s", "5/10s", "1000/m", "50000/d", "0/s", "3/1m30s", "7/250ms", "1/ms"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_rate_without_a_known_period_says_what_to_write() {
        for text in ["100", "100/", "/s", "x/s", "1/M", "1/0s", "-1/s", "1/10", "1/ 10 x", ".", "1./x", "0.0000001/s"] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("such as 100/s"), "{text}: {error}");
        }
    }

    #[test]
    fn a_rate_in_other_words_is_recognised() {
        for (text, meant) in [
            ("10/sec", "10/s"),
            ("10/min", "10/m"),
            ("0.5/s", "1/2s"),
            ("1.5/m", "3/2m"),
            ("5/w", "5/7d"),
            ("100/Hour", "100/h"),
            ("10r/s", "10/s"),
            ("30 per minute", "30/m"),
            ("5/2 days", "5/2d"),
        ] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is not a rate; did you mean `{meant}`?"));
        }
        let error = "999999999999999999999/s".parse::<Rate>().unwrap_err().to_string();
        assert!(error.contains("is too large"), "{error}");
    }

    #[test]
    fn a_duration_in_other_words_is_recognised() {
        for (text, meant) in [("5min", "5m"), ("1w", "7d"), ("1.5s", "1s500ms"), ("2 hours", "2h"), ("30sec", "30s")] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.ends_with(&format!("did you mean `{meant}`?")), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_read_and_shown_as_written() {
        for text in ["250ms", "30s", "1m30s", "2h", "1d", "0s"] {
            assert_eq!(DurationText(parse_duration(text).unwrap()).to_string(), text);
        }
        for text in ["", "5", "ms", "1 s", "1w", "400d", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown_as_written() {
        for text in ["64KiB", "10MiB", "1GiB", "100B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("2kB".parse::<Size>().unwrap(), Size(2_000));
        for text in ["", "KiB", "-1KiB", "10 apples", "18446744073709551615GiB", "99999999999999999999GiB", "1.5MiB"] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.ends_with("such as 64KiB, 10MiB or 1GiB"), "{text}: {error}");
        }
    }

    #[test]
    fn a_size_in_other_words_is_recognised() {
        for (text, meant) in [
            ("10m", "10MiB"),
            ("8k", "8KiB"),
            ("1G", "1GiB"),
            ("512Mi", "512MiB"),
            ("64kib", "64KiB"),
            ("10mb", "10MB"),
            ("1048576", "1MiB"),
            ("10", "10B"),
            ("100 bytes", "100B"),
        ] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is not a size; did you mean `{meant}`?"));
        }
    }
}
