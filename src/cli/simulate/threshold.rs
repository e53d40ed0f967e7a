//! `--fail-if 'limited > 1%'`: a number of the report, and what it must not be.

use std::str::FromStr;

/// A condition under which the command fails.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Threshold {
    /// As written.
    pub(super) text: String,
    /// The limit whose number it is; `None`: of all together.
    pub(super) limit: Option<String>,
    pub(super) metric: Metric,
    comparison: Comparison,
    bound: f64,
    /// Whether the bound is a share, in percent.
    pub(super) percent: bool,
}

/// A number of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Limited,
    Requests,
    Keys,
    NewlyLimited,
    NewlyPassed,
    Different,
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// What a metric is, and what it is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) part: u64,
    pub(super) whole: u64,
}

impl Metric {
    /// Each with its word, and whether it is one of a single limit, too.
    const ALL: [(Self, &'static str, bool); 7] = [
        (Self::Limited, "limited", true),
        (Self::Requests, "requests", true),
        (Self::Keys, "keys", true),
        (Self::NewlyLimited, "newly_limited", false),
        (Self::NewlyPassed, "newly_passed", false),
        (Self::Different, "different", false),
        (Self::Unreadable, "unreadable", false),
    ];

    /// Whether it only exists beside `--compare`.
    pub(super) fn compares(self) -> bool {
        matches!(self, Self::NewlyLimited | Self::NewlyPassed)
    }

    /// Whether it says nothing where there was no request.
    pub(super) fn needs_requests(self) -> bool {
        !matches!(self, Self::Requests | Self::Unreadable)
    }
}

impl Threshold {
    /// Whether the condition holds, which is a failure.
    #[expect(clippy::cast_precision_loss, reason = "counts of log lines are far below 2^53")]
    pub(super) fn fails(&self, measured: Measured) -> bool {
        let part = measured.part as f64;
        let value = if self.percent { part * 100.0 / measured.whole.max(1) as f64 } else { part };
        match self.comparison {
            Comparison::Above => value > self.bound,
            Comparison::AtLeast => value >= self.bound,
            Comparison::Below => value < self.bound,
            Comparison::AtMost => value <= self.bound,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (limit, condition) = match text.trim().strip_prefix("limit ") {
            Some(rest) => {
                let (name, condition) = rest.split_once(':').ok_or("write `limit NAME: limited > 1%`")?;
                (Some(name.trim().to_owned()), condition)
            }
            None => (None, text),
        };
        let signs = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        let found = signs.iter().find_map(|(sign, comparison)| Some((condition.split_once(sign)?, *comparison)));
        let ((word, bound), comparison) = found.ok_or("write a number, >, >=, < or <=, and a bound: `limited > 1%`")?;
        let word = word.trim();
        let known = || Metric::ALL.map(|(_, known, _)| known).join(", ");
        let (metric, _, of_a_limit) = *Metric::ALL
            .iter()
            .find(|(_, known, _)| *known == word)
            .ok_or_else(|| format!("`{word}` is not one of {}", known()))?;
        if limit.is_some() && !of_a_limit {
            return Err(format!("`{word}` is no number of a single limit"));
        }
        if limit.is_none() && metric == Metric::Keys {
            return Err("name the limit whose keys are meant: `limit NAME: keys > 1000`".to_owned());
        }
        let (number, percent) = match bound.trim().strip_suffix('%') {
            Some(number) => (number.trim(), true),
            None => (bound.trim(), false),
        };
        if percent && matches!(metric, Metric::Requests | Metric::Keys) {
            return Err(format!("`{word}` is a number, not a share: leave out the `%`"));
        }
        let bound = number.parse().ok().filter(|bound: &f64| bound.is_finite() && *bound >= 0.0);
        let bound = bound.ok_or_else(|| format!("`{number}` is not a number"))?;
        Ok(Self { text: text.trim().to_owned(), limit, metric, comparison, bound, percent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str, part: u64, whole: u64) -> bool {
        text.parse::<Threshold>().unwrap().fails(Measured { part, whole })
    }

    #[test]
    fn a_bound_is_a_number_or_a_share() {
        assert!(fails("limited > 1%", 11, 1_000) && !fails("limited > 1%", 10, 1_000));
        assert!(fails("limited >= 1%", 10, 1_000) && fails("limited>=10", 10, 1_000));
        assert!(fails("requests < 5", 4, 4) && !fails("requests <= 3", 4, 4));
        assert!(!fails("limited > 0%", 0, 0));
    }

    #[test]
    fn a_limit_may_be_named() {
        let threshold: Threshold = "limit per ip: limited > 0.5%".parse().unwrap();
        assert_eq!((threshold.limit.as_deref(), threshold.metric), (Some("per ip"), Metric::Limited));
    }

    #[test]
    fn what_is_no_condition_says_what_to_write() {
        for text in [
            "limited",
            "limted > 1",
            "limited > x",
            "limited > -1",
            "limited > NaN",
            "keys > 5",
            "limit a: keys > 1%",
            "limit a limited > 1",
            "limit a: different > 1",
            "",
        ] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
