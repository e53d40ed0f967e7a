//! Days, hours, time zones, and where windows begin.

use serde_json::{Value as Json, json};

use super::pattern;
use crate::config::shape::{Problem, Word};
use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::zone::Zone;
use crate::limit::schedule::{DAY, Days};

/// `mon` or `mon-fri`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct DaySpan(pub(in crate::config) Days);

impl Word for DaySpan {
    fn parse(text: &str) -> Result<Self, Problem> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let day = |name: &str| Days::NAMES.iter().position(|known| *known == name.trim());
        let wrong = || {
            let help = format!("write one of {}, or a span such as mon-fri", Days::NAMES.join(", "));
            Problem::new(format!("`{text}` is not a day of the week"), help)
        };
        Ok(Self(Days::span(day(first).ok_or_else(wrong)?, day(last).ok_or_else(wrong)?)))
    }

    fn schema() -> Json {
        let day = Days::NAMES.join("|");
        pattern(&format!("^(({day})( ?- ?({day}))?|.*\\$\\{{.*)$"))
    }
}

/// `22:00`, in minutes; up to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Hour(pub(in crate::config) u16);

impl Word for Hour {
    fn parse(text: &str) -> Result<Self, Problem> {
        let two = |digits: &str| {
            (digits.len() <= 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse::<u16>().ok())?
        };
        let minutes = text.split_once(':').and_then(|(hour, minute)| {
            let (hour, minute) = (two(hour)?, two(minute).filter(|minute| *minute < 60)?);
            Some(hour * 60 + minute).filter(|minutes| *minutes <= DAY)
        });
        minutes.map(Self).ok_or_else(|| {
            Problem::new(format!("`{text}` is not a time of day"), "write hours and minutes, from 00:00 to 24:00")
        })
    }

    fn schema() -> Json {
        pattern("^([0-9]{1,2}:[0-9]{2}|.*\\$\\{.*)$")
    }
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct ZoneName(pub(in crate::config) Zone);

impl Word for ZoneName {
    fn parse(text: &str) -> Result<Self, Problem> {
        Zone::find(text).map(Self).ok_or_else(|| {
            Problem::new(
                format!("`{text}` is no time zone"),
                "write a zone of the IANA database such as Europe/Berlin, or UTC",
            )
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "examples": ["Europe/Berlin", "UTC"] })
    }
}

/// Where fixed windows begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Alignment(pub(in crate::config) Align);

impl Word for Alignment {
    fn parse(text: &str) -> Result<Self, Problem> {
        let align = match text {
            "clock" | "UTC" => Some(Align::Utc),
            "first_request" => Some(Align::FirstRequest),
            zone => Zone::find(zone).map(Align::Zone),
        };
        align.map(Self).ok_or_else(|| {
            Problem::new(
                format!("`{text}` is no alignment and no time zone"),
                "write clock, first_request, or a zone of the IANA database such as Europe/Berlin",
            )
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "examples": ["clock", "first_request", "Europe/Berlin"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_read_strictly() {
        let minutes = |text| <Hour as Word>::parse(text).ok().map(|hour| hour.0);
        assert_eq!([minutes("00:00"), minutes("6:05"), minutes("24:00")], [Some(0), Some(365), Some(1440)]);
        for text in ["24:01", "22:60", "2200", "22", ":", "-1:00", "1:+5", "022:00", ""] {
            assert_eq!(minutes(text), None, "{text}");
        }
    }
}
