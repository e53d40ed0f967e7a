//! Durations, sizes, rates and shares.

use std::time::Duration;

use serde_json::Value as Json;

use super::pattern;
use crate::config::shape::{Problem, Word};
use crate::limit::policy;
use crate::units::{Rate, Size, parse_duration};

impl Word for Duration {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(parse_duration(text)?)
    }

    fn schema() -> Json {
        pattern("^(([0-9]+(us|ms|s|m|h|d))+|.*\\$\\{.*)$")
    }
}

impl Word for Size {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(text.parse()?)
    }

    fn schema() -> Json {
        pattern("^([0-9]+ ?(B|KiB|MiB|GiB|kB|KB|MB|GB)|.*\\$\\{.*)$")
    }
}

/// A rate, or no limit at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Allowance {
    Unlimited,
    Rate(Rate),
}

impl Word for Allowance {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.trim() == "unlimited" {
            return Ok(Self::Unlimited);
        }
        Ok(Self::Rate(text.parse()?))
    }

    fn schema() -> Json {
        pattern("^(unlimited|[0-9]+ ?/ ?([0-9]+(us|ms|s|m|h|d))*(us|ms|s|m|h|d)?|.*\\$\\{.*)$")
    }
}

/// A share, 0 to 1, written as a percentage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct Share(pub(in crate::config) f64);

impl Share {
    /// In parts per million, rounded.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 1")]
    pub(in crate::config) fn parts(self) -> policy::Share {
        policy::Share::of((self.0 * f64::from(policy::Share::WHOLE)).round() as u32)
    }
}

impl Word for Share {
    fn parse(text: &str) -> Result<Self, Problem> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        percent.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| Self(percent / 100.0)).ok_or_else(
            || {
                // 0.5 may be half of a percent or half of all.
                let number = text.parse::<f64>().ok().filter(|number| (1.0..=100.0).contains(number));
                let help = number.map_or_else(
                    || "write a percentage from 0% to 100%, such as 1%".to_owned(),
                    |_| format!("did you mean `{text}%`?"),
                );
                Problem::new(format!("`{text}` is not a share"), help)
            },
        )
    }

    fn schema() -> Json {
        pattern("^([0-9.]+ ?%|.*\\$\\{.*)$")
    }
}
