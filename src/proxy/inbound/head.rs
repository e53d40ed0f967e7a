//! The head of an HTTP/1 request, read line by line as its bytes arrive and far more strictly than
//! by hyper: whatever two parsers might read in two ways is refused.

use std::ops::Range;

use memchr::memchr;

use super::refusal::Refusal;
use crate::route::target::canonical_host;

/// Longest target, bytes (RFC 9110 §4.1 asks for at least 8,000).
const MAX_TARGET: usize = 8 * 1024;
/// Longest method, bytes.
const MAX_METHOD: usize = 32;
/// Most fields of one head.
const MAX_FIELDS: usize = 100;

/// How a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After its last chunk and trailers.
    Chunked,
}

/// A complete, strictly valid head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the head, its empty line included.
    pub(super) len: usize,
    /// How the body ends.
    pub(super) framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
}

/// Reads one head over as many calls as its bytes need.
#[derive(Debug, Default)]
pub(super) struct HeadParser {
    /// Where the current line begins.
    line: usize,
    /// Up to where that line was searched for its end.
    searched: usize,
    /// Complete field lines.
    fields: usize,
    request: Option<RequestLine>,
    host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
}

/// What is remembered of the request line.
#[derive(Debug)]
struct RequestLine {
    /// The authority in the target, when it holds one.
    authority: Option<Range<usize>>,
    /// HTTP/1.1 rather than HTTP/1.0.
    current: bool,
}

impl HeadParser {
    /// Continues with `data`, which begins at the head's first byte and has only grown since the
    /// last call; `max` is the largest head, bytes.
    pub(super) fn read(&mut self, data: &[u8], max: usize) -> Result<Option<Head>, Refusal> {
        while let Some(found) = memchr(b'\n', &data[self.searched..]) {
            let (start, end) = (self.line, self.searched + found);
            if end >= max {
                return Err(self.too_long(end - start));
            }
            let line = data[start..end].strip_suffix(b"\r").ok_or(Refusal::LineEnd)?;
            (self.line, self.searched) = (end + 1, end + 1);
            if self.request.is_none() {
                self.request = Some(request_line(line, start)?);
            } else if line.is_empty() {
                return self.finish(data).map(Some);
            } else {
                self.field(line, start)?;
            }
        }
        self.searched = data.len();
        let partial = data.len() - self.line;
        if data.len() >= max || (self.request.is_none() && partial > MAX_METHOD + MAX_TARGET + 16) {
            return Err(self.too_long(partial));
        }
        Ok(None)
    }

    fn too_long(&self, line: usize) -> Refusal {
        if self.request.is_none() && line > MAX_TARGET { Refusal::TargetTooLong } else { Refusal::HeadTooLarge }
    }

    fn field(&mut self, line: &[u8], start: usize) -> Result<(), Refusal> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Refusal::Folding);
        }
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Refusal::TooManyFields);
        }
        let (name, value) = split_field(line)?;
        let current = self.request.as_ref().is_some_and(|request| request.current);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                let value_start = start + line.len() - trim_start(&line[name.len() + 1..]).len();
                let range = value_start..value_start + value.len();
                if self.host.replace(range).is_some() {
                    return Err(Refusal::HostRepeated);
                }
            }
            6 if current && name.eq_ignore_ascii_case(b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expect);
                }
                self.expects = true;
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let earlier = self.length.replace(content_length(value)?);
                earlier.map_or(Ok(()), |_| Err(Refusal::LengthRepeated))?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !current || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Encoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// At the empty line: what only the whole head can tell.
    fn finish(&mut self, data: &[u8]) -> Result<Head, Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(Refusal::LengthAndEncoding);
        }
        let request = self.request.as_ref().ok_or(Refusal::RequestLine)?;
        match &self.host {
            Some(host) => check_host(data, host, request.authority.as_ref())?,
            None if request.current => return Err(Refusal::HostMissing),
            None => {}
        }
        let framing = if self.chunked { Framing::Chunked } else { Framing::Length(self.length.unwrap_or(0)) };
        Ok(Head { len: self.line, framing, expects: self.expects })
    }
}

/// Whether Host is valid and the target's authority, if any, names the same host and port.
fn check_host(data: &[u8], host: &Range<usize>, authority: Option<&Range<usize>>) -> Result<(), Refusal> {
    let text = |range: &Range<usize>| std::str::from_utf8(&data[range.clone()]).map_err(|_| Refusal::HostInvalid);
    let host = canonical_host(text(host)?).map_err(|_| Refusal::HostInvalid)?;
    let Some(authority) = authority else { return Ok(()) };
    let target = canonical_host(text(authority)?).map_err(|_| Refusal::HostInvalid)?;
    let same = host.name == target.name && host.port.unwrap_or(80) == target.port.unwrap_or(80);
    if same { Ok(()) } else { Err(Refusal::HostMismatch) }
}

fn request_line(line: &[u8], start: usize) -> Result<RequestLine, Refusal> {
    let method_len = memchr(b' ', line).ok_or(Refusal::RequestLine)?;
    let method = &line[..method_len];
    if method_len > MAX_METHOD || !is_token(method) {
        return Err(Refusal::Method);
    }
    let rest = &line[method_len + 1..];
    let target_len = memchr(b' ', rest).ok_or(Refusal::RequestLine)?;
    let (target, version) = (&rest[..target_len], &rest[target_len + 1..]);
    if target_len > MAX_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    let current = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Refusal::Version);
        }
        _ => return Err(Refusal::RequestLine),
    };
    let authority = target_authority(method, target)?;
    let begin = start + method_len + 1;
    Ok(RequestLine { authority: authority.map(|range| begin + range.start..begin + range.end), current })
}

/// Checks a target's bytes and form (RFC 9112 §3.2) and finds the authority in it.
fn target_authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
    if target.is_empty() || target.iter().any(|&byte| !TARGET[usize::from(byte)]) {
        return Err(Refusal::Target);
    }
    let authority = match (method, target[0]) {
        (b"CONNECT", _) => 0..target.len(),
        (_, b'/') => return Ok(None),
        (b"OPTIONS", b'*') if target.len() == 1 => return Ok(None),
        _ => {
            let colon = memchr(b':', target).ok_or(Refusal::Target)?;
            let scheme = &target[..colon];
            let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
            if !known || !target[colon..].starts_with(b"://") {
                return Err(Refusal::Target);
            }
            let begin = colon + 3;
            let len = target[begin..].iter().position(|byte| matches!(byte, b'/' | b'?'));
            begin..len.map_or(target.len(), |len| begin + len)
        }
    };
    let text = std::str::from_utf8(&target[authority.clone()]).map_err(|_| Refusal::Target)?;
    canonical_host(text).map_err(|_| Refusal::Target)?;
    Ok(Some(authority))
}

/// Splits a field line into its name and its value without the white space around it, both valid.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let len = line.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(line.len());
    if len == 0 || line.get(len) != Some(&b':') {
        return Err(Refusal::FieldName);
    }
    let (name, value) = (&line[..len], trim_start(&line[len + 1..]));
    // A fold over bytes without an early end is what the compiler turns into vector instructions.
    let control = |byte: u8| u8::from(byte < 0x20 && byte != b'\t') | u8::from(byte == 0x7f);
    if value.iter().fold(0, |found, &byte| found | control(byte)) != 0 {
        return Err(if value.contains(&b'\r') { Refusal::LineEnd } else { Refusal::FieldValue });
    }
    let len = value.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    Ok((name, &value[..len]))
}

fn trim_start(text: &[u8]) -> &[u8] {
    let begin = text.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(text.len());
    &text[begin..]
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Length);
    }
    let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<i64>().ok());
    number.and_then(|number| u64::try_from(number).ok()).ok_or(Refusal::Length)
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Bytes that may stand in a target: visible ASCII without those that parsers disagree about.
static TARGET: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte < 0x7f {
        table[byte as usize] = !matches!(byte, b'#' | b'\\' | b'<' | b'>');
        byte += 1;
    }
    table
};
