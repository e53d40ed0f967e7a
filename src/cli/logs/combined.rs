//! The text formats: common and combined (Apache, nginx, Tollgate) and Traefik's CLF, with or without
//! the virtual host in front.
//!
//! `client - user [time] "request line" status bytes "referer" "user agent" …`

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, Method};

use super::entry::{Entry, Format, Logged, Unread};
use super::fields::Fields;
use super::time;

/// Brackets that are looked at for a time: a user's name may hold some.
const BRACKETS: usize = 8;

/// Reads one line.
pub(super) fn parse(line: &[u8], fields: &mut Fields) -> Result<Entry, Unread> {
    let (before, at_us, after) = split_at_time(line)?;
    let (client, host) = client(before)?;
    let (request, after) = quoted(after).ok_or(Unread::Line("there is no request in quotes after the time"))?;
    let request = request_line(&request)?;
    let mut headers = HeaderMap::new();
    if fields.wants(&REFERER) || fields.wants(&USER_AGENT) {
        let (referer, after) = after_numbers(after).and_then(quoted).unwrap_or_default();
        let (agent, _) = quoted(after).unwrap_or_default();
        for (name, value) in [(REFERER, referer), (USER_AGENT, agent)] {
            if !value.is_empty() && *value != *b"-" {
                fields.insert(&mut headers, name.as_str(), &value);
            }
        }
    }
    let mut target = request.target;
    let answer = super::entry::answer(status(after));
    if let Some(path) = target.strip_suffix("?***") {
        fields.hidden_query();
        target.truncate(path.len());
    }
    Ok(Entry {
        at_us,
        format: Format::Combined,
        client,
        method: request.method,
        host: request.host.or_else(|| host.map(Into::into)),
        target: target.into(),
        headers,
        logged: Logged::Unknown,
        answer,
    })
}

/// What stands before the time, the time, and what stands after it, from the opening quote on.
fn split_at_time(line: &[u8]) -> Result<(&[u8], i64, &[u8]), Unread> {
    for at in memchr::memchr_iter(b'[', line).take(BRACKETS) {
        let rest = &line[at + 1..];
        let Some(end) = memchr::memchr(b']', rest) else { break };
        let Some(after) = rest[end + 1..].strip_prefix(b" ").filter(|after| after.starts_with(b"\"")) else { continue };
        if let Some(at_us) = time::bracketed(&rest[..end]) {
            return Ok((&line[..at], at_us, after));
        }
    }
    Err(Unread::Line("there is no time in brackets"))
}

/// The client's address: the first word, or the second behind a virtual host.
fn client(before: &[u8]) -> Result<(IpAddr, Option<&str>), Unread> {
    let mut words = before.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    if let Some(address) = super::entry::address(first) {
        return Ok((address, None));
    }
    match words.next().and_then(super::entry::address) {
        Some(address) => Ok((address, std::str::from_utf8(first).ok())),
        None => Err(Unread::Line("it does not begin with a client's address")),
    }
}

/// The text inside the quotes at the beginning, without its escapes, and what follows.
fn quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let text = text.trim_ascii_start().strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some((unescape(&text[..at]), &text[at + 1..]));
        }
        at += 2;
    }
}

/// Without the escapes of Apache (`\"`, `\n`) and nginx (`\x22`).
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let (byte, used) = match (first, tail) {
            (b'\\', [b'x', digits @ ..]) => match hex(digits) {
                Some(byte) => (byte, 4),
                None => (b'\\', 1),
            },
            (b'\\', [letter, ..]) => (control(*letter), 2),
            _ => (*first, 1),
        };
        plain.push(byte);
        rest = &rest[used..];
    }
    Cow::Owned(plain)
}

/// The byte that two hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What a letter behind a backslash stands for.
fn control(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'v' => 0x0b,
        other => other,
    }
}

/// The first number behind the request.
fn status(text: &[u8]) -> Option<u16> {
    let digits = text.trim_ascii_start().get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What follows status and size.
fn after_numbers(text: &[u8]) -> Option<&[u8]> {
    text.get(memchr::memchr(b'"', text)?..)
}

/// A request line's parts.
struct RequestLine {
    method: Method,
    /// In origin form.
    target: String,
    /// Of a target in absolute form.
    host: Option<Box<str>>,
}

/// `METHOD target HTTP/x`. What is none never reached a limit: the connection did not speak HTTP.
fn request_line(line: &[u8]) -> Result<RequestLine, Unread> {
    let line = std::str::from_utf8(line).map_err(|_| Unread::NoRequest)?;
    let (method, rest) = line.split_once(' ').ok_or(Unread::NoRequest)?;
    let target = rest.rsplit_once(' ').filter(|(_, version)| version.starts_with("HTTP/")).map_or(rest, |(t, _)| t);
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Unread::NoRequest)?;
    let (host, target) = origin_form(target);
    Ok(RequestLine { method, target, host })
}

/// The host of a target in absolute form, and the rest of it.
fn origin_form(target: &str) -> (Option<Box<str>>, String) {
    let Some(rest) = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) else {
        return (None, target.to_owned());
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let slash = if rest[end..].starts_with('/') { "" } else { "/" };
    (Some(rest[..end].into()), format!("{slash}{}", &rest[end..]))
}
