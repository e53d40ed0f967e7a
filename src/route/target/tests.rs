//! Tests of canonical targets.

use super::*;

fn canonical(raw: &str) -> String {
    canonical_path(raw).unwrap().text.into_owned()
}

#[test]
fn a_canonical_path_is_borrowed() {
    for path in ["/", "/a", "/a/", "/a/b.c/..d/.e/f..", "/a;b=1/@me:x", "/.a;/...;x/..%3Fa", "/caf%C3%A9", "/a%2Fb"] {
        let found = canonical_path(path).unwrap();
        assert!(matches!(found.text, Cow::Borrowed(text) if text == path), "{path}");
    }
}

#[test]
fn spellings_are_brought_into_one_form() {
    for (raw, expected) in [
        ("//", "/"),
        ("/./", "/"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/a//../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b/%2e", "/b/"),
        ("/%61%7Eb", "/a~b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%2fb", "/a%2Fb"),
        ("/a|{b}", "/a%7C%7Bb%7D"),
        ("/%3b%3F%23%40", "/%3B%3F%23%40"),
        ("/A/b", "/A/b"),
    ] {
        assert_eq!(canonical(raw), expected, "{raw}");
    }
}

#[test]
fn encoded_separators_are_reported_and_never_decoded() {
    for raw in ["/a%2fb", "/a%5Cb", "/a%00", "/%252e%252e/", "/%2561", "/x/%2F/../y%25"] {
        let found = canonical_path(raw).unwrap();
        assert!(found.encoded_separators, "{raw}");
        assert!(!found.text.contains(['\\', '\0']), "{raw}");
    }
    assert!(!canonical_path("/a%3Fb/%20").unwrap().encoded_separators);
}

#[test]
fn malformed_paths_are_refused() {
    for (raw, error) in [
        ("", TargetError::NotAbsolute),
        ("*", TargetError::NotAbsolute),
        ("a/b", TargetError::NotAbsolute),
        ("/..", TargetError::AboveRoot),
        ("/a/../../b", TargetError::AboveRoot),
        ("/%2e%2e/", TargetError::AboveRoot),
        ("//..", TargetError::AboveRoot),
        ("/a/..;/b", TargetError::DotParameter),
        ("/a/..;x=1", TargetError::DotParameter),
        ("/a/.;/b", TargetError::DotParameter),
        ("/a/%2e.;/b", TargetError::DotParameter),
        ("/a/..%3b/b", TargetError::DotParameter),
        ("/a/.%3B/b", TargetError::DotParameter),
        ("/%", TargetError::Percent),
        ("/%4", TargetError::Percent),
        ("/%zz", TargetError::Percent),
        ("/%+1", TargetError::Percent),
        ("//%4g", TargetError::Percent),
        ("/a\\b", TargetError::Byte(b'\\')),
        ("/a#b", TargetError::Byte(b'#')),
        ("/a?b", TargetError::Byte(b'?')),
        ("/a b", TargetError::Byte(b' ')),
        ("/a\0", TargetError::Byte(0)),
        ("/{\u{7f}", TargetError::Byte(0x7f)),
        ("/é", TargetError::Byte(0xc3)),
    ] {
        assert_eq!(canonical_path(raw), Err(error), "{raw:?}");
    }
}

#[test]
fn hosts_are_brought_into_one_form() {
    for (raw, name, port) in [
        ("example.com", "example.com", None),
        ("EXAMPLE.com.:8080", "example.com", Some(8080)),
        ("a_b-c.example:", "a_b-c.example", None),
        ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
        ("[::1]:80", "[::1]", Some(80)),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
    ] {
        let host = canonical_host(raw).unwrap();
        assert_eq!((&*host.name, host.port), (name, port), "{raw}");
    }
}

#[test]
fn malformed_hosts_are_refused() {
    let long = "a".repeat(256);
    for raw in [
        "",
        ".",
        "..",
        ":80",
        "a..b",
        ".a",
        "a..",
        "user@a",
        "a,b",
        "a b",
        " a",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a%41",
        "[::1",
        "::1",
        "[::1]x",
        "[::1%25eth0]",
        "[1.2.3.4]",
        "[]",
        "a:65536",
        "a:+80",
        "a:8x",
        "a:80:80",
        "a\0",
        "é",
        &long,
    ] {
        assert!(canonical_host(raw).is_err(), "{raw:?}");
    }
}

#[test]
fn an_encoded_sub_delimiter_compares_like_itself() {
    assert_eq!(comparable("%40me"), "@me");
    assert_eq!(comparable("a%3Ab%2C"), "a:b,");
    assert_eq!(comparable("%2F%2B%3B%C3%A9"), "%2F%2B%3B%C3%A9");
}

/// Characters of random segments: plain ones, and encodings that stay.
const PIECES: [&str; 20] = [
    "a", "b", "Z", "0", "9", "-", "_", "~", ".", "@", ":", ";", "%2F", "%5C", "%00", "%25", "%C3", "%7B", "%20", "%3F",
];

pub(in crate::route) fn random_canonical(random: &mut fastrand::Rng) -> String {
    let mut path = String::new();
    for _ in 0..random.usize(0..5) {
        let segment: String = (0..random.usize(1..6)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
        path.push('/');
        let dots = segment == "." || segment == ".." || is_dot_with_parameter(&segment);
        path.push_str(if dots { "x" } else { &segment });
    }
    if path.is_empty() || random.bool() {
        path.push('/');
    }
    path
}

/// Another spelling of a canonical path.
pub(in crate::route) fn respell(path: &str, random: &mut fastrand::Rng) -> String {
    let mut spelled = String::new();
    for byte in path.bytes() {
        match byte {
            b'/' => spelled.push_str(["/", "//", "/./", "/%2e/", "/x/../", "/%2F/%2E./", "///"][random.usize(..7)]),
            _ if is_unreserved(byte) && !spelled.ends_with('%') && random.u8(..4) == 0 && !in_encoding(&spelled) => {
                let encoded = format!("%{byte:02x}");
                spelled.push_str(&if random.bool() { encoded.to_ascii_uppercase() } else { encoded });
            }
            b'A'..=b'F' if in_encoding(&spelled) && random.bool() => {
                spelled.push(char::from(byte.to_ascii_lowercase()));
            }
            _ => spelled.push(char::from(byte)),
        }
    }
    spelled
}

/// Whether the next byte belongs to a percent-encoding.
fn in_encoding(text: &str) -> bool {
    text.rfind('%').is_some_and(|at| text.len() - at < 3)
}

#[test]
fn all_spellings_of_a_resource_have_one_canonical_form() {
    let mut random = fastrand::Rng::with_seed(0x70_11);
    let mut rewritten = 0;
    for _ in 0..150_000 {
        let path = random_canonical(&mut random);
        assert!(matches!(canonical_path(&path).unwrap().text, Cow::Borrowed(_)), "{path}");
        let spelled = respell(&path, &mut random);
        assert_eq!(canonical(&spelled), path, "{spelled}");
        rewritten += u32::from(spelled != path);
    }
    assert!(rewritten > 100_000, "only {rewritten} spellings differed from the canonical form");
}

#[test]
fn the_canonical_form_of_any_text_is_its_own_canonical_form() {
    let mut random = fastrand::Rng::with_seed(0x70_12);
    let alphabet = b"ab/.%2eEfF05C{|;@ #\\";
    let mut accepted = 0;
    for _ in 0..150_000 {
        let raw: String =
            (0..random.usize(0..12)).map(|_| char::from(alphabet[random.usize(..alphabet.len())])).collect();
        let Ok(first) = canonical_path(&format!("/{raw}")).map(|path| path.text.into_owned()) else { continue };
        let again = canonical_path(&first).unwrap();
        assert!(matches!(again.text, Cow::Borrowed(text) if text == first), "/{raw}");
        accepted += 1;
    }
    assert!(accepted > 10_000, "only {accepted} texts were paths");
}
