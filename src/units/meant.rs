//! What was probably meant by a text that is no rate, duration or size: `10/sec`, `0.5/s`, `5/w`, `10r/s`, `5min`, `10m`.

use std::time::Duration;

use super::{LONGEST, Rate, Size, unit_bytes, unit_micros};

/// The rate that was probably meant.
pub(super) fn rate(text: &str) -> Option<Rate> {
    let (count, period) = text.trim().split_once('/').or_else(|| text.trim().split_once(" per "))?;
    // nginx writes 10r/s.
    let (count, parts) = fraction(count.trim().trim_end_matches('r').trim_end())?;
    let period = micros(period.trim(), Some(1))?.checked_mul(parts)?;
    (count > 0 && (1..=LONGEST * 1_000_000).contains(&period))
        .then(|| Rate { count, period: Duration::from_micros(period) })
}

/// The duration that was probably meant.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let micros = micros(text.trim(), None)?;
    (micros <= LONGEST * 1_000_000).then(|| Duration::from_micros(micros))
}

/// The size that was probably meant. A number alone counts bytes; nginx' `k`, `m` and `g` are powers of 1024.
pub(super) fn size(text: &str) -> Option<String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let number: u64 = number.parse().ok()?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" => return Some(Size(number).to_string()),
        "b" | "byte" | "bytes" => "B",
        "k" | "ki" | "kib" => "KiB",
        "m" | "mi" | "mib" => "MiB",
        "g" | "gi" | "gib" => "GiB",
        "kb" => "KB",
        "mb" => "MB",
        "gb" => "GB",
        _ => return None,
    };
    // What is too large is not meant.
    number.checked_mul(unit_bytes(unit)?).map(|_| format!("{number}{unit}"))
}

/// A number and a unit in microseconds; without a number so many of the unit.
fn micros(text: &str, alone: Option<u64>) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit_called(unit.trim())?;
    if number.is_empty() {
        return alone?.checked_mul(unit);
    }
    let (count, parts) = fraction(number)?;
    let whole = count.checked_mul(unit)?;
    whole.is_multiple_of(parts).then_some(whole / parts)
}

/// A decimal number as a quotient in lowest terms: `0.5` is 1 and 2.
fn fraction(text: &str) -> Option<(u64, u64)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{part}");
    if part.len() > 6 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (count, parts) = (digits.parse::<u64>().ok()?, 10_u64.pow(u32::try_from(part.len()).ok()?));
    let (mut divisor, mut rest) = (parts, count);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    Some((count / divisor, parts / divisor))
}

/// Microseconds of a unit by any of its names.
fn unit_called(name: &str) -> Option<u64> {
    let plain = name.to_ascii_lowercase();
    Some(match plain.as_str() {
        "sec" | "secs" | "second" | "seconds" => 1_000_000,
        "min" | "mins" | "minute" | "minutes" => 60_000_000,
        "hr" | "hrs" | "hour" | "hours" => 3_600_000_000,
        "day" | "days" => 86_400_000_000,
        "w" | "week" | "weeks" => 7 * 86_400_000_000,
        "msec" | "millis" | "milliseconds" => 1_000,
        // M may be a month.
        _ => return unit_micros(name),
    })
}
