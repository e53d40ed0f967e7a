//! The field Forwarded (RFC 7239 §4): elements divided by commas, of pairs divided by semicolons, whose values may be
//! quoted strings (RFC 9110 §5.6.4) that hold commas and semicolons themselves. A client may have written the first
//! elements of a line, so one that opens a quote must not be taken for several: each line is read from its beginning,
//! and one that is not spelled as it should be says nothing.

use smallvec::SmallVec;

/// What the elements of a line say of `for`, in order; empty for one that does not say it.
pub(super) type Hops<'a> = SmallVec<[&'a [u8]; 4]>;

/// Reads a line; `None` when any of it is misspelled.
pub(super) fn hops(line: &[u8]) -> Option<Hops<'_>> {
    let mut rest = line;
    let mut hops = Hops::new();
    loop {
        hops.push(element(&mut rest)?);
        match rest.split_first() {
            None => return Some(hops),
            Some((b',', after)) => rest = after,
            Some(_) => return None,
        }
    }
}

/// One element's `for`, which may stand in it once. White space is allowed around what divides pairs, as proxies write it.
fn element<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut address = None;
    loop {
        *rest = rest.trim_ascii_start();
        if !matches!(rest.first(), None | Some(b';' | b',')) {
            let (name, value) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for") && address.replace(value).is_some() {
                return None;
            }
        }
        *rest = rest.trim_ascii_start();
        match rest.split_first() {
            Some((b';', after)) => *rest = after,
            _ => return Some(address.unwrap_or_default()),
        }
    }
}

fn pair<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let name = take_while(rest, |byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    *rest = rest.strip_prefix(b"=").filter(|_| !name.is_empty())?;
    let value = match rest.strip_prefix(b"\"") {
        Some(inside) => {
            *rest = inside;
            quoted(rest)?
        }
        // Wider than a token: many proxies write ports and IPv6 without quotes.
        None => take_while(rest, |byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)),
    };
    Some((name, value))
}

/// What stands before the closing quote, its backslashes kept: no address holds any.
fn quoted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut escaped = false;
    let end = rest.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    let (value, after) = (&rest[..end], &rest[end + 1..]);
    *rest = after;
    Some(value)
}

fn take_while<'a>(rest: &mut &'a [u8], belongs: impl Fn(u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len());
    let (taken, after) = rest.split_at(end);
    *rest = after;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Vec<String>> {
        let text = |hop: &[u8]| String::from_utf8(hop.to_vec()).unwrap();
        hops(line.as_bytes()).map(|hops| hops.into_iter().map(text).collect())
    }

    #[test]
    fn quotes_and_escapes_hold_an_element_together() {
        for (line, expected) in [
            (r#"for=1;host="a,for=2;x=""#, &["1"][..]),
            (r#"for=1;host="a\",for=2;x=""#, &["1"]),
            (r#"host="\\";for=1,for=2"#, &["1", "2"]),
            (r#"FOR="[::1]:80" ; proto=http , for=[::1]:80"#, &["[::1]:80", "[::1]:80"]),
            ("proto=http,,for=_x;;by=unknown;", &["", "", "_x"]),
            ("for=", &[""]),
            ("", &[""]),
        ] {
            assert_eq!(read(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_misspelled_line_says_nothing() {
        for line in [
            r#"for="1"#,
            r#"for=1;x="a\"#,
            r#"for="1"2"#,
            r#"for=1"2""#,
            "for=1 2",
            "for",
            "for:1",
            "=1",
            "for =1",
            "for= 1",
            "for=1;for=1",
            r#"for=1;x=", for="[::1]:80""#,
            "for=1\\",
            "for=1,x",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
