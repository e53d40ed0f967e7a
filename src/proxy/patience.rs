//! How long the head of a response is waited for.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::rejection::Rejection;

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    /// Whether it is the deadline that the client of a gRPC call gave.
    of_client: bool,
}

impl Patience {
    /// As long as the configuration says.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, of_client: false }
    }

    /// As long as the configuration says, but not beyond the deadline of the call.
    pub(super) fn of_call(limit: Duration, headers: &HeaderMap) -> Self {
        let deadline = headers.get(&GRPC_TIMEOUT).and_then(|value| deadline(value.as_bytes()));
        match deadline {
            Some(deadline) if deadline < limit => Self { limit: deadline, of_client: true },
            _ => Self::new(limit),
        }
    }

    /// The same, but not longer than this.
    pub(super) fn at_most(self, limit: Duration) -> Self {
        if limit < self.limit { Self::new(limit) } else { self }
    }

    /// What comes of work that a client's deadline bounds too; `None` when that has passed.
    pub(super) async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        if self.of_client { tokio::time::timeout(self.limit, work).await.ok() } else { Some(work.await) }
    }

    /// What is said when it is lost.
    pub(super) fn lost(self) -> Rejection<'static> {
        if self.of_client { Rejection::Deadline } else { Rejection::ResponseTimeout }
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn deadline(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("15S", Some(Duration::from_secs(15))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("-1S", None),
            ("1s", None),
            ("", None),
        ] {
            assert_eq!(deadline(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_shorter_of_both_counts_and_says_who_gave_it() {
        let call = |text: &'static str| {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT.clone(), http::HeaderValue::from_static(text))]);
            Patience::of_call(Duration::from_secs(10), &headers)
        };
        assert!(matches!(call("1S").lost(), Rejection::Deadline));
        assert!(matches!(call("11S").lost(), Rejection::ResponseTimeout));
        assert!(matches!(call("soon").lost(), Rejection::ResponseTimeout));
    }
}
