//! Secrets written in the file are covered before any of it is shown in a frame.

use std::sync::Arc;

use super::frames::Span;

/// The text with the same places and lengths, secrets covered by stars: what follows `password:` or
/// `authorization:`, and what stands between `://user:` and `@`. What comes from the environment is no secret here.
pub(super) fn mask(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for word in ["password", "authorization"] {
        for (at, _) in text.match_indices(word) {
            if let Some((start, end)) = value_after(text, at + word.len()) {
                cover(&mut bytes, text, start, end);
            }
        }
    }
    for (at, found) in text.match_indices("://") {
        let authority = &text[at + found.len()..];
        let authority =
            &authority[..authority.find(|c: char| c.is_whitespace() || "\"'".contains(c)).unwrap_or(authority.len())];
        if let Some(end) = authority.rfind('@')
            && let Some(colon) = authority[..end].find(':')
        {
            let start = at + found.len();
            cover(&mut bytes, text, start + colon + 1, start + end);
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// The same text with these places covered as well.
pub(super) fn hide(text: &Arc<str>, places: &[Span]) -> Arc<str> {
    let mut bytes = text.as_bytes().to_vec();
    for place in places {
        cover(&mut bytes, text, place.start, place.end);
    }
    String::from_utf8(bytes).map_or_else(|_| Arc::clone(text), Arc::from)
}

/// Where the value of a key ends that ended here, if it was one.
fn value_after(text: &str, after: usize) -> Option<(usize, usize)> {
    let rest = text[after..].trim_start_matches(['"', '\'']).trim_start_matches([' ', '\t']);
    let value = rest.strip_prefix(':')?.trim_start_matches([' ', '\t']);
    let start = text.len() - value.len();
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let end = match quote {
        Some(quote) => 1 + value[1..].find(quote).unwrap_or(value.len() - 1),
        None => value.find(['\n', '\r', ',', '}']).unwrap_or(value.len()),
    };
    Some((start + usize::from(quote.is_some()), start + end))
}

fn cover(bytes: &mut [u8], text: &str, start: usize, end: usize) {
    if text.get(start..end).is_some_and(|value| !value.contains("${")) {
        bytes[start..end].iter_mut().filter(|byte| !byte.is_ascii_whitespace()).for_each(|byte| *byte = b'*');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_covered_and_everything_else_keeps_its_place() {
        for (text, masked) in [
            ("password: hunter2\nx: 1", "password: *******\nx: 1"),
            ("{ \"password\": \"a b\", x: 1 }", "{ \"password\": \"* *\", x: 1 }"),
            ("{ password: geheim, x: 1 }", "{ password: ******, x: 1 }"),
            ("url: redis://u:pä@h:1/0 # x", "url: redis://u:***@h:1/0 # x"),
            ("url: 'redis://:p@q@h'", "url: 'redis://:***@h'"),
            ("password: ${P:-}", "password: ${P:-}"),
            ("password_file: /run/x", "password_file: /run/x"),
            ("url: http://h:1/a", "url: http://h:1/a"),
            ("set: { authorization: Bearer a1 }", "set: { authorization: ****** ** }"),
            ("header: authorization\nx: 1", "header: authorization\nx: 1"),
            ("# a password", "# a password"),
            ("password:", "password:"),
            ("password: \"", "password: \""),
        ] {
            assert_eq!(mask(text), masked);
        }
    }
}
