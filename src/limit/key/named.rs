//! Which part of a key a value is of, as overrides write it: `acme` where one part alone has values, and
//! `jwt:tenant=acme` where several have. Otherwise a client could write into one part what is meant for another.

use super::{Key, KeyPart};

/// The name of the part whose values are addresses, as overrides may write it before one.
pub const CLIENT_IP: &str = "client_ip=";

impl Key {
    /// The parts that have values, each once: all but the client's address and `global`.
    #[must_use]
    pub fn named_parts(&self) -> Vec<KeyPart> {
        let mut named: Vec<KeyPart> = Vec::new();
        for part in self.parts.iter().flatten() {
            if !matches!(part, KeyPart::ClientIp { .. } | KeyPart::Global) && !named.contains(part) {
                named.push(part.clone());
            }
        }
        named
    }
}

/// Which of these parts a value is of, and where it begins in the text. A text that names none of them is a
/// value itself (it may hold a `=`, as base64 does), and `None` unless there is exactly one that it can be of.
/// Nor is it a value when it was surely meant for something else: it names another part, or looks like an
/// address where the limit may count `by_address`. Else a slip would hand the override to whoever writes that text.
#[must_use]
pub fn part_of<'p>(parts: &'p [KeyPart], by_address: bool, text: &[u8]) -> Option<(&'p KeyPart, usize)> {
    if let Some((written, begin)) = named(text) {
        return Some((parts.iter().find(|part| **part == written)?, begin));
    }
    match parts {
        [only] if !(by_address && looks_like_an_address(text)) => Some((only, 0)),
        _ => None,
    }
}

/// The part that a text names, and where the value behind it begins.
fn named(text: &[u8]) -> Option<(KeyPart, usize)> {
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let name = std::str::from_utf8(&text[..equals]).ok()?;
    let [written] = Key::parse_part(name.trim(), 128).ok()?.try_into().ok()?;
    Some((written, equals + 1))
}

/// Digits with dots or colons between them, as addresses, blocks and ranges have, right or wrong.
fn looks_like_an_address(text: &[u8]) -> bool {
    let of_one = |byte: &u8| byte.is_ascii_hexdigit() || b".:/[]-%* ".contains(byte);
    let pieces = |mark: u8| text.split(|&byte| byte == mark).count();
    text.iter().all(of_one) && (pieces(b'.') >= 4 || pieces(b':') >= 3)
}

/// The cure for a value that could be of several parts: `jwt:tenant=acme` or `header:x-device=acme`.
#[must_use]
pub fn spellings(parts: &[KeyPart], value: &str) -> String {
    let spelled: Vec<_> = parts.iter().map(|part| format!("`{part}={value}`")).collect();
    spelled.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn named(key: &str, text: &str) -> Option<(String, String)> {
        let parts = Key { parts: vec![Key::parse_part(key, 64).unwrap()] }.named_parts();
        part_of(&parts, key.contains("client_ip"), text.as_bytes())
            .map(|(part, begin)| (part.to_string(), text[begin..].to_owned()))
    }

    #[test]
    fn a_value_is_of_the_part_before_its_first_equal_sign_or_of_the_only_one() {
        let of = |part: &str, value: &str| Some((part.to_owned(), value.to_owned()));
        let two = "jwt:sub | header:x-a | client_ip";
        for (key, text, expected) in [
            (two, "jwt:sub=a=b", of("jwt:sub", "a=b")),
            (two, "header:X-A=b", of("header:x-a", "b")),
            (two, "header:x-b=b", None),
            (two, "client_ip=b", None),
            (two, "YQ==", None),
            (two, "", None),
            ("header:x-a | client_ip", "YQ==", of("header:x-a", "YQ==")),
            ("header:x-a | header:x-a", "header:x-a=header:x-a=", of("header:x-a", "header:x-a=")),
            ("tls:subject", "CN=bob,O=Example", of("tls:subject", "CN=bob,O=Example")),
            ("tls:subject | host", "tls:subject=CN=bob", of("tls:subject", "CN=bob")),
            ("client_ip | global", "a", None),
            ("header:x-a | client_ip", "10.20.0.0/33", None),
            ("header:x-a | client_ip", "10.0.0.1-10.0.0.9", None),
            ("header:x-a | client_ip", "client_ip=10.0.0.300", None),
            ("header:x-a | client_ip", "header:x-b=b", None),
            ("header:x-a | client_ip", "2001:db8::/200", None),
            ("header:x-a | client_ip", "header:x-a=10.20.0.0/33", of("header:x-a", "10.20.0.0/33")),
            ("header:x-a | client_ip", "1.2.3", of("header:x-a", "1.2.3")),
            ("header:x-a", "10.20.0.0/33", of("header:x-a", "10.20.0.0/33")),
        ] {
            assert_eq!(named(key, text), expected, "{key}: {text}");
        }
    }
}
