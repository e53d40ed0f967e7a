//! The quick form: `--from`, `--to` and `--limit` as the YAML they mean.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::units::Rate;

/// `KEY RATE [burst N]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuickLimit {
    key: String,
    rate: Rate,
    burst: Option<u64>,
}

impl FromStr for QuickLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split_whitespace().collect();
        let rate = words.iter().position(|word| word.contains('/')).filter(|&at| at > 0);
        let Some(at) = rate else {
            return Err("write KEY RATE [burst N], such as 'client_ip 100/s burst 200'".to_owned());
        };
        let burst = match words[at + 1..] {
            [] => None,
            ["burst", number] => Some(number.parse().map_err(|_| format!("`{number}` is not a burst"))?),
            _ => return Err(format!("`{}` is not understood; only `burst N` may follow", words[at + 1..].join(" "))),
        };
        let rate = words[at].parse().map_err(|error: crate::units::UnitError| error.to_string())?;
        Ok(Self { key: words[..at].join(" "), rate, burst })
    }
}

/// The configuration that the quick form stands for.
pub(super) fn yaml(from: &str, to: &str, limits: &[QuickLimit]) -> String {
    let mut text = format!("listen: {}\nupstream: {}\n", quoted(from), quoted(to));
    if !limits.is_empty() {
        text.push_str("limits:\n");
    }
    for limit in limits {
        let _ = writeln!(text, "  - key: {}\n    rate: {}", quoted(&limit.key), limit.rate);
        if let Some(burst) = limit.burst {
            let _ = writeln!(text, "    burst: {burst}");
        }
    }
    text
}

/// A YAML scalar: plain when that cannot be misread, else in quotes (JSON's are YAML's).
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c))
        && !text.ends_with(':');
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_key_a_rate_and_perhaps_a_burst() {
        let limits: Vec<QuickLimit> = ["client_ip 100/s burst 200", "header:x-api-key | client_ip 5/10s"]
            .map(|text| text.parse().unwrap())
            .into();
        let expected = "listen: \":8080\"\nupstream: http://127.0.0.1:3000\nlimits:\n  \
            - key: client_ip\n    rate: 100/s\n    burst: 200\n  \
            - key: \"header:x-api-key | client_ip\"\n    rate: 5/10s\n";
        assert_eq!(yaml(":8080", "http://127.0.0.1:3000", &limits), expected);
    }

    #[test]
    fn what_is_no_limit_says_what_to_write() {
        for wrong in ["", "client_ip", "100/s", "client_ip fast", "client_ip 1/x", "client_ip 1/s burst", "k 1/s 5"] {
            assert!(wrong.parse::<QuickLimit>().is_err(), "{wrong}");
        }
    }
}
