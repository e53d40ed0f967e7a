//! Secrets written in the file are covered before any of it is shown in a frame.

use std::sync::Arc;

use super::frames::Span;

/// The text with the same places and lengths, secrets covered by stars: what follows a key that names one, what
/// stands between `://user:` and `@`, and what a URL's query has under such a name. What comes from the environment is no secret here.
pub(super) fn mask(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let mut at = 0;
    while let Some(begin) = text.as_bytes()[at..].iter().position(is_name).map(|found| at + found) {
        let length = text.as_bytes()[begin..].iter().take_while(|byte| is_name(byte)).count();
        at = begin + length;
        if opens_doors(&text[begin..at])
            && let Some((start, end)) = value_after(text, at)
        {
            cover(&mut bytes, text, start, end);
        }
    }
    for (at, found) in text.match_indices("://") {
        let authority = authority(text, at, at + found.len());
        if let Some(end) = authority.rfind('@')
            && let Some(colon) = authority[..end].find(':')
        {
            let start = at + found.len();
            cover(&mut bytes, text, start + colon + 1, start + end);
        }
        for (start, end) in secrets_of_query(authority) {
            let begin = at + found.len();
            cover(&mut bytes, text, begin + start, begin + end);
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// Whether what stands behind a key of this name opens doors: a password, or a field such as `x-api-key`. Names of
/// the configuration's own keys have no hyphen.
fn opens_doors(name: &str) -> bool {
    name.eq_ignore_ascii_case("password")
        || name.eq_ignore_ascii_case("authorization")
        || (name.contains('-') && is_of_secret(name))
}

fn is_of_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "token", "secret", "auth", "password", "sig"].iter().any(|part| name.contains(part))
}

/// Where the secrets stand in the query of a URL.
fn secrets_of_query(url: &str) -> Vec<(usize, usize)> {
    let Some(query) = url.find('?').map(|mark| mark + 1) else { return Vec::new() };
    let mut start = query;
    let parts = url[query..].split('&').filter_map(|part| {
        let begin = start;
        start += part.len() + 1;
        let (name, value) = part.split_once('=')?;
        let from = begin + name.len() + 1;
        let length = value.find([',', '}', ']', '#']).unwrap_or(value.len());
        is_of_secret(name).then_some((from, from + length))
    });
    parts.collect()
}

/// What follows `://`: as far as its quotation marks go, or its word.
fn authority(text: &str, at: usize, start: usize) -> &str {
    let scheme = text[..at].bytes().rev().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'+').count();
    let quote = text[..at - scheme].chars().next_back().filter(|before| matches!(before, '"' | '\'' | '`'));
    let rest = &text[start..];
    let ends = |c: char| match quote {
        Some(quote) => c == quote || c == '\n',
        None => c.is_whitespace() || "\"'`".contains(c),
    };
    &rest[..rest.find(ends).unwrap_or(rest.len())]
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
    if value.trim_start_matches(['|', '>', '-', '+']).trim_start_matches([' ', '\t']).starts_with(['\n', '\r']) {
        return below(text, after, start);
    }
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let end = match quote {
        Some(quote) => 1 + value[1..].find(quote).unwrap_or(value.len() - 1),
        None => value.find(['\n', '\r', ',', '}']).unwrap_or(value.len()),
    };
    Some((start + usize::from(quote.is_some()), start + end))
}

/// The lines below a key whose value begins there: those that are further to the right than its own.
fn below(text: &str, key: usize, start: usize) -> Option<(usize, usize)> {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let own = indent(&text[text[..key].rfind('\n').map_or(0, |end| end + 1)..]);
    let first = start + text[start..].find('\n')? + 1;
    let inside = |line: &&str| line.trim().is_empty() || indent(line) > own;
    let length: usize = text[first..].split_inclusive('\n').take_while(inside).map(str::len).sum();
    Some((first, first + length))
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
            ("r:\n  password:\n    hunter2\nx: 1", "r:\n  password:\n    *******\nx: 1"),
            ("password: >-\n  a\n  b\nx: 1", "password: >-\n  *\n  *\nx: 1"),
            ("a:\n  password:\n  x: 1", "a:\n  password:\n  x: 1"),
            ("set: { x-token: abc, y: 1 }", "set: { x-token: ***, y: 1 }"),
            ("headers: { X-Api-Key: a: b }", "headers: { X-Api-Key: ** * }"),
            ("key: client_ip", "key: client_ip"),
            ("url: \"redis://u:ab cd@h\"", "url: \"redis://u:** **@h\""),
            ("`http://u:pw@h:1` has a user", "`http://u:**@h:1` has a user"),
            ("[http://a:1, http://u:p@b]", "[http://a:1, http://u:*@b]"),
            ("endpoint: https://c/v1?api_key=abc&x=1", "endpoint: https://c/v1?api_key=***&x=1"),
            ("[https://c?token=ab, 'https://c?q=1&sig=2']", "[https://c?token=**, 'https://c?q=1&sig=*']"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }
}
