//! A strict reader of requests and answers as bytes, which shares no code with the program under test.

use aws_lc_rs::digest::{SHA256, digest};

/// A request as it stands in some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
}

/// An answer without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
}

impl Message {
    /// What an origin that reads this request says of it.
    pub(crate) fn understood(&self) -> String {
        let hash = digest(&SHA256, &self.body);
        let hash = hash.as_ref().iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        format!("{} {} {} {} {hash}", self.method, self.target, self.host, self.body.len())
    }

    /// Takes one whole request off the front of `bytes`; `None` when there is none that is complete and
    /// beyond doubt.
    pub(crate) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let line = text(line(&mut rest)?);
        let [method, target, "HTTP/1.1" | "HTTP/1.0"] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let fields = fields(&mut rest)?;
        let body = match (only(&fields, "transfer-encoding")?, only(&fields, "content-length")?) {
            ("", "") => Vec::new(),
            ("", length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                piece(&mut rest, length.parse().ok()?)?.to_vec()
            }
            (coding, "") if coding.eq_ignore_ascii_case("chunked") => chunked(&mut rest)?,
            _ => return None,
        };
        let (host, id) = (only(&fields, "host")?.to_owned(), only(&fields, "x-request-id")?.to_owned());
        *bytes = rest;
        Some(Self { method: method.to_owned(), target: target.to_owned(), host, id, body })
    }

    /// Every request that can be taken off the front.
    pub(crate) fn all(mut bytes: &[u8]) -> Vec<Self> {
        std::iter::from_fn(|| Self::take(&mut bytes)).collect()
    }
}

impl Answer {
    /// Takes one whole answer off the front of `bytes`. One to HEAD has a length and no body: what
    /// follows it is the next answer, and no body begins like one.
    pub(crate) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut rest = *bytes;
        let line = text(line(&mut rest)?);
        let status =
            line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()?;
        let fields = fields(&mut rest)?;
        let bodiless = rest.is_empty() || rest.starts_with(b"HTTP/1.");
        match (only(&fields, "transfer-encoding")?, only(&fields, "content-length")?) {
            ("", "") => {}
            ("", length) if !bodiless => drop(piece(&mut rest, length.parse().ok()?)?),
            ("chunked", "") if !bodiless => drop(chunked(&mut rest)?),
            _ => {}
        }
        *bytes = rest;
        Some(Self { status, fields })
    }

    /// All of them; an error is what could not be read as one.
    pub(crate) fn all(mut bytes: &[u8]) -> Result<Vec<Self>, String> {
        let answers = std::iter::from_fn(|| Self::take(&mut bytes)).collect();
        if bytes.is_empty() { Ok(answers) } else { Err(format!("{} behind {answers:?}", text(bytes))) }
    }

    /// A field's value; empty when it is absent.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    /// Whether it says that nothing follows it.
    pub(crate) fn is_last(&self) -> bool {
        self.field("connection").eq_ignore_ascii_case("close")
    }
}

/// Bytes as a person would want to see them.
pub(crate) fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(400)].escape_ascii().to_string()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &bytes[..end];
    *bytes = &bytes[end + 2..];
    Some(line).filter(|line| !line.contains(&b'\n') && !line.contains(&b'\r'))
}

fn fields(bytes: &mut &[u8]) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = text(line(bytes)?);
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

/// The value of a field that may stand there once; empty when it does not.
fn only<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let first = values.next();
    values.next().is_none().then(|| first.unwrap_or_default())
}

fn piece<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (piece, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(piece)
}

fn chunked(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = text(line(bytes)?);
        let digits = size.split(';').next().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            fields(bytes)?;
            return Some(body);
        }
        body.extend_from_slice(piece(bytes, size)?);
        Some(line(bytes)?).filter(|line| line.is_empty())?;
    }
}
