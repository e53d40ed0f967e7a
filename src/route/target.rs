//! The canonical form of a request target: one spelling for routing, keys and forwarding.
//!
//! A client may spell one resource in many ways (`/a`, `//a`, `/%61`, `/x/../a`). If the router, a
//! key and the upstream each read their own meaning into a spelling, a limit can be walked around.
//! So each target is brought into one form first (RFC 3986 §6.2.2), and everything else, the
//! upstream included, sees only that form. A target already in that form is borrowed, not copied.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The longest host name, bytes (RFC 1035 §2.3.4).
const MAX_HOST: usize = 255;

/// A path in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    /// Begins with `/`; its canonical form is itself.
    pub text: Cow<'a, str>,
    /// Whether it holds `%2F`, `%5C`, `%00` or `%25`, which upstreams are known to read differently.
    pub encoded_separators: bool,
}

/// A host in its canonical form, and the port beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    /// Lower-case, no trailing dot; an IPv6 address in brackets, in the form of RFC 5952.
    pub name: Cow<'a, str>,
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// Why a target or a host is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The path does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A byte that has no place in a path: control, space, backslash, `?`, `#`, or not ASCII.
    #[error("the path holds the byte 0x{0:02X}")]
    Byte(u8),
    /// A `%` without two hexadecimal digits after it.
    #[error("the path holds an incomplete percent-encoding")]
    Percent,
    /// More `..` than segments before them.
    #[error("the path leads above its root")]
    AboveRoot,
    /// A dot segment with a parameter (`..;`), a file name to some upstreams and `..` to others.
    #[error("the path holds a dot segment with a parameter")]
    DotParameter,
    /// A host that is empty, too long, or holds what no host name or address holds.
    #[error("the host is not a name or address")]
    Host,
    /// A port that is not a number up to 65535.
    #[error("the port is not a number up to 65535")]
    Port,
}

/// What a byte of a path is to its canonical form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself: unreserved, sub-delims, `:` and `@` (RFC 3986 §3.3).
    Plain,
    /// Separates segments.
    Slash,
    /// Begins a percent-encoding.
    Percent,
    /// Visible, but not allowed unencoded; upstreams read it like its encoding.
    Encode,
    /// Refused.
    Refuse,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Refuse; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        classes[byte as usize] = classify(byte);
        byte += 1;
    }
    classes
};

/// The bytes of host names and IPv4 addresses.
static HOST_BYTES: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        bytes[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        byte += 1;
    }
    bytes
};

const fn classify(byte: u8) -> Class {
    match byte {
        b'/' => Class::Slash,
        b'%' => Class::Percent,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
        b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Encode,
        _ if is_unreserved(byte) => Class::Plain,
        _ => Class::Refuse,
    }
}

/// RFC 3986 §2.3: bytes that mean the same with and without percent-encoding.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The canonical form of a path (without its query).
///
/// Unreserved characters are decoded, other encodings upper-cased, characters that a path may not
/// hold unencoded are encoded, dot segments (`%2e` too) removed and repeated slashes merged.
/// `%2F`, `%5C`, `%00` and `%25` stay encoded and are reported. Letter case is kept.
pub fn canonical_path(raw: &str) -> Result<CanonicalPath<'_>, TargetError> {
    if !raw.starts_with('/') {
        return Err(TargetError::NotAbsolute);
    }
    match scan(raw.as_bytes())? {
        Scan::Canonical { encoded_separators } => Ok(CanonicalPath { text: Cow::Borrowed(raw), encoded_separators }),
        Scan::Rewrite => rewrite(raw),
    }
}

/// What one look over a path found.
enum Scan {
    /// It is in canonical form.
    Canonical { encoded_separators: bool },
    /// It is not (or not certainly).
    Rewrite,
}

fn scan(path: &[u8]) -> Result<Scan, TargetError> {
    let mut encoded_separators = false;
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match CLASSES[usize::from(byte)] {
            Class::Slash if needs_folding(&path[at + 1..]) => return Ok(Scan::Rewrite),
            Class::Plain | Class::Slash => at += 1,
            Class::Percent => {
                let decoded = percent_byte(&path[at..])?;
                let lower = path[at + 1].is_ascii_lowercase() || path[at + 2].is_ascii_lowercase();
                if lower || is_unreserved(decoded) {
                    return Ok(Scan::Rewrite);
                }
                encoded_separators |= is_separator(decoded);
                at += 3;
            }
            Class::Encode => return Ok(Scan::Rewrite),
            Class::Refuse => return Err(TargetError::Byte(byte)),
        }
    }
    Ok(Scan::Canonical { encoded_separators })
}

/// Whether what follows a slash is another slash or a dot segment, perhaps one with a parameter.
fn needs_folding(after_slash: &[u8]) -> bool {
    let after_dots = match after_slash {
        [b'/', ..] => return true,
        [b'.', b'.', after @ ..] | [b'.', after @ ..] => after,
        _ => return false,
    };
    matches!(after_dots, [] | [b'/' | b';', ..]) || after_dots.starts_with(b"%3B")
}

/// Whether a segment is `.` or `..` to those who cut parameters off, before or after decoding.
fn is_dot_with_parameter(segment: &str) -> bool {
    let after_dots = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    after_dots.is_some_and(|after| after.starts_with(';') || after.starts_with("%3B"))
}

/// `/`, `\`, NUL and `%`: decoded by one reader and not by the next, they change what a path means.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | 0 | b'%')
}

/// The byte that the percent-encoding at the start of `text` stands for.
fn percent_byte(text: &[u8]) -> Result<u8, TargetError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text {
        [b'%', high, low, ..] => {
            digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low).ok_or(TargetError::Percent)
        }
        _ => Err(TargetError::Percent),
    }
}

fn rewrite(raw: &str) -> Result<CanonicalPath<'_>, TargetError> {
    let path = raw.as_bytes();
    let mut plain = String::with_capacity(path.len() + 16);
    let mut encoded_separators = false;
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match CLASSES[usize::from(byte)] {
            Class::Plain | Class::Slash => plain.push(char::from(byte)),
            Class::Percent => {
                let decoded = percent_byte(&path[at..])?;
                if is_unreserved(decoded) {
                    plain.push(char::from(decoded));
                } else {
                    push_encoded(&mut plain, decoded);
                }
                encoded_separators |= is_separator(decoded);
                at += 2;
            }
            Class::Encode => push_encoded(&mut plain, byte),
            Class::Refuse => return Err(TargetError::Byte(byte)),
        }
        at += 1;
    }
    Ok(CanonicalPath { text: Cow::Owned(fold_segments(&plain)?), encoded_separators })
}

pub(super) fn push_encoded(text: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(HEX[usize::from(byte >> 4)]));
    text.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Removes dot segments (RFC 3986 §5.2.4) and empty segments but the last.
fn fold_segments(path: &str) -> Result<String, TargetError> {
    let mut folded = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" | "." => {}
            ".." => {
                let parent = folded.rfind('/').ok_or(TargetError::AboveRoot)?;
                folded.truncate(parent);
            }
            _ if is_dot_with_parameter(segment) => return Err(TargetError::DotParameter),
            _ => {
                folded.push('/');
                folded.push_str(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            folded.push('/');
        }
    }
    Ok(folded)
}

/// The form in which canonical paths and their segments are compared: `@`, `:` and sub-delims but `+`
/// and `;` decoded.
///
/// RFC 3986 calls `@me` and `%40me` different, so the forwarded path keeps what was sent; most
/// servers read them alike, so the router and the limits must, or the encoded spelling would walk
/// around them.
#[must_use]
pub fn comparable(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let bytes = path.as_bytes();
    let mut text = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let Ok(decoded) = percent_byte(&bytes[at..]) else {
            text.push(char::from(byte));
            at += 1;
            continue;
        };
        if CLASSES[usize::from(decoded)] == Class::Plain && !matches!(decoded, b'+' | b';') {
            text.push(char::from(decoded));
        } else {
            push_encoded(&mut text, decoded);
        }
        at += 3;
    }
    Cow::Owned(text)
}

/// The canonical form of a Host field or authority: a name, an IPv4 address or an IPv6 address in
/// brackets, and perhaps a port (RFC 9110 §7.2). Userinfo, lists, spaces and paths are refused.
pub fn canonical_host(raw: &str) -> Result<Host<'_>, TargetError> {
    let (name, port) = if raw.starts_with('[') {
        let end = raw.find(']').ok_or(TargetError::Host)?;
        (canonical_ipv6(&raw[..=end])?, &raw[end + 1..])
    } else {
        let end = memchr::memchr(b':', raw.as_bytes()).unwrap_or(raw.len());
        (canonical_name(&raw[..end])?, &raw[end..])
    };
    Ok(Host { name, port: parse_port(port)? })
}

fn canonical_ipv6(bracketed: &str) -> Result<Cow<'_, str>, TargetError> {
    let address: Ipv6Addr = bracketed[1..bracketed.len() - 1].parse().map_err(|_| TargetError::Host)?;
    let canonical = format!("[{address}]");
    Ok(if canonical == bracketed { Cow::Borrowed(bracketed) } else { Cow::Owned(canonical) })
}

fn canonical_name(raw: &str) -> Result<Cow<'_, str>, TargetError> {
    let name = raw.strip_suffix('.').unwrap_or(raw);
    let mut before = b'.';
    let mut upper = false;
    for &byte in name.as_bytes() {
        if !HOST_BYTES[usize::from(byte)] || (byte == b'.' && before == b'.') {
            return Err(TargetError::Host);
        }
        upper |= byte.is_ascii_uppercase();
        before = byte;
    }
    if before == b'.' || name.len() > MAX_HOST {
        return Err(TargetError::Host);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// The port after a host: nothing, a lone colon (RFC 3986 §3.2.3) or a colon and digits.
fn parse_port(text: &str) -> Result<Option<u16>, TargetError> {
    let Some(digits) = text.strip_prefix(':') else {
        return if text.is_empty() { Ok(None) } else { Err(TargetError::Host) };
    };
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TargetError::Port);
    }
    digits.parse().map(Some).map_err(|_| TargetError::Port)
}

#[cfg(test)]
pub(super) mod tests;
