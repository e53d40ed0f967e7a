//! Conditions on the fields and on the query of a request.

use std::borrow::Cow;
use std::fmt;

use super::regex::Pattern;
use crate::limit::key::parameter;

/// What a field or a query parameter must be like. Of several lines or occurrences, one must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Have exactly this value.
    Exactly(Box<[u8]>),
    /// Be there, with any value.
    Present,
    /// Not be there.
    Absent,
    /// Fit as a whole.
    Fits(Pattern),
}

impl Wanted {
    /// Whether it says something of the value.
    #[must_use]
    pub fn has_value(&self) -> bool {
        matches!(self, Self::Exactly(_) | Self::Fits(_))
    }

    /// Whether one of these values is as wanted.
    pub fn holds(&self, mut values: impl Iterator<Item: AsRef<[u8]>>) -> bool {
        match self {
            Self::Exactly(wanted) => values.any(|value| value.as_ref() == &**wanted),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Fits(pattern) => values.any(|value| pattern.matches(value.as_ref())),
        }
    }
}

impl fmt::Display for Wanted {
    /// As it stands behind a name: `: 2`, ` present`, ` absent`, ` ~ v[0-9]+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, ": {}", String::from_utf8_lossy(value)),
            Self::Present => f.write_str(" present"),
            Self::Absent => f.write_str(" absent"),
            Self::Fits(pattern) => write!(f, " ~ {}", pattern.text()),
        }
    }
}

/// The decoded values of a query parameter.
pub(super) fn parameters<'a>(query: Option<&'a str>, name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    parameter(query.unwrap_or_default(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_values_is_enough() {
        let exactly = Wanted::Exactly(b"1".as_slice().into());
        let fits = Wanted::Fits(Pattern::whole("[0-9]").unwrap());
        for (wanted, values, expected) in [
            (&exactly, &["0", "1"][..], true),
            (&exactly, &["11"], false),
            (&exactly, &[], false),
            (&Wanted::Present, &[""], true),
            (&Wanted::Present, &[], false),
            (&Wanted::Absent, &[], true),
            (&Wanted::Absent, &[""], false),
            (&fits, &["x", "7"], true),
            (&fits, &["77"], false),
        ] {
            assert_eq!(wanted.holds(values.iter()), expected, "{wanted:?} {values:?}");
        }
    }

    #[test]
    fn parameters_are_compared_decoded() {
        let values = |query: &'static str| parameters(Some(query), "a b").collect::<Vec<_>>();
        assert_eq!(values("a+b=%31&A+b=2&a%20b&c=3"), [&b"1"[..], b""]);
        assert_eq!(parameters(None, "a").count(), 0);
    }
}
