//! Which trace a request belongs to: W3C Trace Context, the fields `traceparent` and `tracestate`
//! (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::io::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that names the trace and the caller's span.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field that carries what tracing systems add to it.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bits of a trace's id that are random for certain (Level 2 §3.3.1).
pub(super) const RANDOM_BITS: i32 = 56;

/// Length of `traceparent` in version 00.
const LENGTH: usize = 55;

/// Longest `tracestate` that a span repeats, bytes (§3.3.1.5 has nobody carry more).
const LONGEST_STATE: usize = 512;

/// The id of a trace; not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

/// The id of a span; not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

/// A place in a trace: below this span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span that whatever comes next is a part of.
    pub span: SpanId,
    /// Whether whoever made that span has recorded it.
    pub sampled: bool,
}

impl TraceId {
    fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// Its random part.
    pub(super) fn randomness(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower bits are meant")]
        let low = self.0 as u64;
        low & ((1 << RANDOM_BITS) - 1)
    }

    /// Its bytes as they are exported.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl SpanId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// Its bytes as they are exported.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

impl Context {
    /// A trace that begins here.
    pub(super) fn random() -> Self {
        Self { trace: TraceId::random(), span: SpanId::random(), sampled: false }
    }

    /// What a request's fields say. A `traceparent` that is malformed or there twice says nothing.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { parse(value.as_bytes()) }
    }

    /// The `traceparent` that says it.
    #[must_use]
    pub fn field(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(LENGTH);
        let _ = write!(text, "00-{}-{:016x}-{:02x}", self.trace, self.span.0, u8::from(self.sampled));
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(const { HeaderValue::from_static("") })
    }
}

/// `version-trace-parent-flags`, lower-case hexadecimal; later versions may have more behind it (§3.2).
fn parse(text: &[u8]) -> Option<Context> {
    let (known, more) = text.split_at_checked(LENGTH)?;
    let [version @ .., _] = &known[..3] else { return None };
    let version = hex(version)?;
    let ends = if version == 0 { more.is_empty() } else { matches!(more.first(), None | Some(b'-')) };
    let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
    if version == 0xff || !ends || !dashes {
        return None;
    }
    let (trace, flags) = (hex(&known[3..35])?, hex(&known[53..])?);
    let span = u64::try_from(hex(&known[36..52])?).ok()?;
    let present = trace != 0 && span != 0;
    present.then_some(Context { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 })
}

fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// What `tracestate` says, for a span; too much of it is left out.
#[must_use]
pub fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let mut state = String::new();
    for value in headers.get_all(&TRACESTATE) {
        let value = value.to_str().ok()?;
        if state.len() + value.len() >= LONGEST_STATE {
            return None;
        }
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(value);
    }
    (!state.is_empty()).then(|| state.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(values: &[&str]) -> Option<Context> {
        Context::read(&values.iter().map(|value| (TRACEPARENT.clone(), value.parse().unwrap())).collect())
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        for (flags, sampled) in [("01", true), ("00", false)] {
            let text = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            let context = read(&[&text]).unwrap();
            assert_eq!((context.trace.to_string().as_str(), context.sampled), (TRACE, sampled));
            assert_eq!(context.field(), text);
        }
        let unknown_flags = read(&[&format!("00-{TRACE}-00f067aa0ba902b7-ff")]).unwrap();
        assert!(unknown_flags.field().to_str().unwrap().ends_with("-01"));
        let later = [format!("cc-{TRACE}-00f067aa0ba902b7-01"), format!("01-{TRACE}-00f067aa0ba902b7-01-what-ever")];
        assert!(later.iter().all(|text| read(&[text]).is_some_and(|context| context.sampled)));
    }

    #[test]
    fn a_malformed_traceparent_says_nothing() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for bad in [
            String::new(),
            "-".repeat(55),
            good[..54].to_owned(),
            format!("{good}-"),
            format!("{good}x"),
            format!("01-{TRACE}-00f067aa0ba902b7-01x"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            good.to_uppercase(),
            good.replace('-', "_"),
            format!("00-{TRACE}-00f067aa0ba902b7-0g"),
            format!("0x-{TRACE}-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(read(&[&bad]), None, "{bad}");
        }
        assert_eq!(read(&[&good, &good]), None, "twice");
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn every_new_id_is_whole_and_differs() {
        let one = Context::random();
        assert_ne!(one, Context::random());
        assert_eq!(read(&[one.field().to_str().unwrap()]), Some(one));
    }

    #[test]
    fn a_state_is_one_list_of_at_most_512_bytes() {
        let fields = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (TRACESTATE.clone(), value.parse().unwrap())).collect()
        };
        assert_eq!(state(&fields(&["a=1", "b=2"])).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&fields(&[])), None);
        assert_eq!(state(&fields(&[&"x".repeat(600)])), None);
    }
}
