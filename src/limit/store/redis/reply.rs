//! Replies on the wire (RESP2 and RESP3): where one ends, and what it says. What the scripts answer,
//! flat arrays of integers, is read here; every other reply is read by redis-rs.

use memchr::memchr;
use redis::Value;

/// Most bytes of the reply to a decision: far more than a script of ours answers.
pub(super) const LONGEST: usize = 64 * 1024;
/// Digits of which every number is an `i64`.
const MOST_DIGITS: usize = 18;
/// How deep replies may be nested.
const DEEPEST: usize = 8;

/// Bytes that are no reply, or one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed reply")]
pub(super) struct Malformed;

/// The first reply in `bytes` and its length; `None` while it is incomplete. One of more than `longest`
/// bytes is malformed.
pub(super) fn read(bytes: &[u8], longest: usize) -> Result<Option<(Value, usize)>, Malformed> {
    if let Some((numbers, len)) = integers(bytes) {
        return Ok(Some((Value::Array(numbers), len)));
    }
    let bounds = Bounds { longest, depth: 0 };
    match end(bytes, 0, bounds)? {
        Some(len) => {
            let value = redis::parse_redis_value(&bytes[..len]).map_err(|_| Malformed)?;
            Ok(Some((value, len)))
        }
        None if bytes.len() >= longest => Err(Malformed),
        None => Ok(None),
    }
}

/// A complete array of integers.
fn integers(bytes: &[u8]) -> Option<(Vec<Value>, usize)> {
    let (count, mut at) = number(bytes, 0, b'*')?;
    let count = usize::try_from(count).ok().filter(|&count| count <= bytes.len() / 4)?;
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        let (number, next) = number(bytes, at, b':')?;
        numbers.push(Value::Int(number));
        at = next;
    }
    Some((numbers, at))
}

/// The number on the line at `at` that begins with `mark`, and where the next line begins.
fn number(bytes: &[u8], at: usize, mark: u8) -> Option<(i64, usize)> {
    let line = bytes.get(at..)?.strip_prefix(&[mark])?;
    let (negative, digits) = line.strip_prefix(b"-").map_or((false, line), |digits| (true, digits));
    let mut number = 0;
    for (len, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' if len < MOST_DIGITS => number = number * 10 + i64::from(byte - b'0'),
            b'\r' if len > 0 && digits.get(len + 1) == Some(&b'\n') => {
                let next = at + 1 + usize::from(negative) + len + 2;
                return Some((if negative { -number } else { number }, next));
            }
            _ => return None,
        }
    }
    None
}

/// How large and how deep a reply may be.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    longest: usize,
    depth: usize,
}

/// Where the reply that begins at `at` ends; `None` while it is incomplete.
fn end(bytes: &[u8], at: usize, bounds: Bounds) -> Result<Option<usize>, Malformed> {
    let Some(&mark) = bytes.get(at) else { return Ok(None) };
    if bounds.depth > DEEPEST || !b"+-:_#,($!=*~>%|".contains(&mark) {
        return Err(Malformed);
    }
    let Some(len) = memchr(b'\n', &bytes[at..]) else { return Ok(None) };
    let next = at + len + 1;
    if bytes[next - 2] != b'\r' {
        return Err(Malformed);
    }
    let size = || size(&bytes[at + 1..next - 2], bounds.longest);
    let parts = match mark {
        b'$' | b'!' | b'=' => {
            let Some(len) = size()? else { return Ok(Some(next)) };
            return Ok(Some(next + len + 2).filter(|&end| end <= bytes.len()));
        }
        b'*' | b'~' | b'>' => size()?.unwrap_or(0),
        b'%' => 2 * size()?.unwrap_or(0),
        // Attributes stand before the reply that they describe.
        b'|' => 2 * size()?.unwrap_or(0) + 1,
        _ => 0,
    };
    let mut end_of_part = next;
    let bounds = Bounds { depth: bounds.depth + 1, ..bounds };
    for _ in 0..parts {
        match end(bytes, end_of_part, bounds)? {
            Some(end) => end_of_part = end,
            None => return Ok(None),
        }
    }
    Ok(Some(end_of_part))
}

/// A length; `None` is RESP2's null, `-1`.
fn size(digits: &[u8], longest: usize) -> Result<Option<usize>, Malformed> {
    if digits == b"-1" {
        return Ok(None);
    }
    let size = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    size.filter(|&size| size <= longest).map(Some).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replies of every kind, each complete.
    const REPLIES: [&str; 18] = [
        "*8\r\n:1\r\n:1700000000000000\r\n:0\r\n:-1\r\n:1\r\n:9\r\n:0\r\n:1000000\r\n",
        "*0\r\n",
        "*1\r\n*2\r\n:1\r\n$1\r\na\r\n",
        ":9223372036854775807\r\n",
        "+OK\r\n",
        "-NOSCRIPT No matching script\r\n",
        "$5\r\nhel\r\n\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5\r\n",
        "(12345678901234567890\r\n",
        "=8\r\ntxt:text\r\n",
        "%1\r\n+version\r\n$5\r\n7.0.0\r\n",
        "~2\r\n:1\r\n:2\r\n",
        ">2\r\n+invalidate\r\n_\r\n",
    ];

    #[test]
    fn a_reply_is_read_when_it_is_complete_and_not_before() {
        for text in REPLIES {
            let followed = format!("{text}+NEXT\r\n");
            for len in 0..text.len() {
                assert_eq!(read(&followed.as_bytes()[..len], LONGEST), Ok(None), "{:?}", &followed[..len]);
            }
            let expected = redis::parse_redis_value(text.as_bytes()).unwrap();
            for bytes in [text.as_bytes(), followed.as_bytes()] {
                assert_eq!(read(bytes, LONGEST), Ok(Some((expected.clone(), text.len()))), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let deep = "*1\r\n".repeat(20);
        let long = format!("+{}", "x".repeat(LONGEST));
        for text in ["HTTP/1.1 400\r\n", "\0\0", "\r\n", "*x\r\n", "*999999999\r\n", "$70000\r\n", "+a\n", &deep, &long]
        {
            assert_eq!(read(text.as_bytes(), LONGEST), Err(Malformed), "{text:?}");
        }
    }
}
