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
#[must_use]
pub fn part_of<'p>(parts: &'p [KeyPart], text: &[u8]) -> Option<(&'p KeyPart, usize)> {
    let named = text.iter().position(|&byte| byte == b'=').and_then(|equals| {
        let name = std::str::from_utf8(&text[..equals]).ok()?;
        let [written] = Key::parse_part(name, 128).ok()?.try_into().ok()?;
        Some((parts.iter().find(|part| **part == written)?, equals + 1))
    });
    match parts {
        [only] => Some(named.unwrap_or((only, 0))),
        _ => named,
    }
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
        part_of(&parts, text.as_bytes()).map(|(part, begin)| (part.to_string(), text[begin..].to_owned()))
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
        ] {
            assert_eq!(named(key, text), expected, "{key}: {text}");
        }
    }
}
