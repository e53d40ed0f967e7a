//! Regular expressions of the configuration: of linear time in what they are matched against, bounded in size,
//! over bytes, with ASCII classes. A value must fit as a whole; only `rewrite.regex` looks for parts.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use super::target::is_unreserved;
use super::{Params, PatternError};

/// Longest pattern, bytes.
const MAX_TEXT: usize = 1024;
/// Most memory that a compiled pattern may take, bytes.
const MAX_SIZE: usize = 1 << 20;

/// A regular expression. Equal to another one of the same text.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

/// A path condition that is a regular expression: its named groups are the path's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRegex {
    /// Fits the whole path, in the form in which paths are compared.
    pub pattern: Pattern,
    /// The segments that every path begins with, as far as the text shows them.
    pub(super) fixed: Vec<Box<str>>,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// Not a regular expression.
    #[error("this is not a regular expression: {reason}{place}")]
    Syntax {
        /// What the parser says.
        reason: String,
        /// `, at character 3` or nothing.
        place: String,
    },
    /// It would take too much memory.
    #[error("this regular expression is too large; write smaller repetitions, such as `[0-9]+` for `[0-9]{{1,9999}}`")]
    TooLarge,
}

impl Pattern {
    /// A pattern that a value must fit as a whole.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn whole(text: &str) -> Result<Self, RegexError> {
        // Alone first: `a)|(b` would break out of the group.
        compile(text)?;
        Ok(Self { text: text.into(), regex: compile(&format!("^(?:{text})$"))? })
    }

    /// A pattern that is looked for.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn part(text: &str) -> Result<Self, RegexError> {
        Ok(Self { text: text.into(), regex: compile(text)? })
    }

    /// Whether a value fits.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of its groups, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.regex.capture_names().flatten()
    }

    /// What its groups are called behind `$`: their names, or their numbers.
    #[must_use]
    pub fn group_names(&self) -> Vec<String> {
        let groups = self.regex.capture_names().enumerate().skip(1);
        groups.map(|(number, name)| name.map_or_else(|| number.to_string(), str::to_owned)).collect()
    }

    /// A group that a replacement asks for and that does not exist.
    #[must_use]
    pub fn unknown_group(&self, replacement: &str) -> Option<String> {
        let mut rest = replacement;
        while let Some(at) = rest.find('$') {
            let after = &rest[at + 1..];
            let (name, behind) = match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
                Some(braced) => braced,
                None => after.split_at(after.bytes().take_while(|&byte| is_group_byte(byte)).count()),
            };
            let numbered = name.parse::<usize>().is_ok_and(|number| number < self.regex.captures_len());
            if !name.is_empty() && !numbered && !self.names().any(|known| known == name) {
                return Some(name.to_owned());
            }
            // `$$` is a dollar.
            rest = if name.is_empty() { behind.strip_prefix('$').unwrap_or(behind) } else { behind };
        }
        None
    }

    pub(super) fn regex(&self) -> &Regex {
        &self.regex
    }
}

/// What a name behind `$` consists of.
fn is_group_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn compile(text: &str) -> Result<Regex, RegexError> {
    if text.len() > MAX_TEXT + "^(?:)$".len() {
        return Err(RegexError::TooLarge);
    }
    let mut builder = RegexBuilder::new(text);
    builder.unicode(false).size_limit(MAX_SIZE).dfa_size_limit(MAX_SIZE);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => RegexError::TooLarge,
        error => syntax(&error.to_string()),
    })
}

/// The library draws the pattern with a caret below, then says `error: …`.
fn syntax(drawn: &str) -> RegexError {
    let reason = drawn.lines().find_map(|line| line.strip_prefix("error: "));
    let caret = drawn.lines().find(|line| !line.is_empty() && line.chars().all(|one| matches!(one, ' ' | '^')));
    let column = caret.and_then(|line| line.find('^')).and_then(|at| at.checked_sub(4));
    RegexError::Syntax {
        reason: reason.unwrap_or("it cannot be read").to_owned(),
        place: column.map(|column| format!(", at character {}", column + 1)).unwrap_or_default(),
    }
}

impl PathRegex {
    /// Reads a pattern for the whole path.
    ///
    /// # Errors
    /// When it is none, or one of its groups has a name that no parameter can have.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let pattern = Pattern::whole(text).map_err(PatternError::Regex)?;
        if let Some(name) = pattern.names().find(|name| !super::pattern::is_param_name(name)) {
            return Err(PatternError::ParamName(name.into()));
        }
        Ok(Self { fixed: fixed_segments(text), pattern })
    }

    /// The groups of a path that fits.
    pub(super) fn capture<'a>(&'a self, compared: &'a str) -> Params<'a> {
        let Some(captures) = self.pattern.regex.captures(compared.as_bytes()) else { return Params::new() };
        let value = |name: &'a str| captures.name(name).and_then(|found| compared.get(found.range()));
        self.pattern.names().filter_map(|name| Some((name, value(name)?))).collect()
    }
}

/// The whole segments that a pattern begins with: `/api/v[0-9]+` begins with `/api/`. Where that is not certain,
/// none: then the route ranks lower than it could, and matches all the same.
fn fixed_segments(text: &str) -> Vec<Box<str>> {
    let text = text.strip_prefix('^').unwrap_or(text);
    let plain = |byte: u8| byte == b'/' || (is_unreserved(byte) && byte != b'.');
    let mut end = text.bytes().position(|byte| !plain(byte)).unwrap_or(text.len());
    if matches!(text.as_bytes().get(end), Some(b'?' | b'*' | b'+' | b'{')) {
        // What is repeated may be absent.
        end = end.saturating_sub(1);
    }
    let Some(fixed) = text[..end].strip_prefix('/').filter(|_| !text.contains('|')) else { return Vec::new() };
    let mut segments: Vec<Box<str>> = fixed.split('/').map(Box::from).collect();
    // The last one may go on.
    segments.pop();
    segments
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_must_fit_as_a_whole() {
        let pattern = Pattern::whole("v[0-9]+|beta").unwrap();
        assert!(pattern.matches(b"v12") && pattern.matches(b"beta"));
        assert!(!pattern.matches(b"xv12") && !pattern.matches(b"v12x") && !pattern.matches(b"v1\n"));
        assert!(Pattern::whole("^v$").unwrap().matches(b"v"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let told = |text: &str| Pattern::whole(text).unwrap_err().to_string();
        assert_eq!(told("a(b"), "this is not a regular expression: unclosed group, at character 2");
        assert_eq!(told("a)|(b"), "this is not a regular expression: unopened group, at character 2");
        assert!(told("(?=a)").contains("look-around"), "{}", told("(?=a)"));
        assert!(told("((a{100}){100}){100}").contains("too large"));
        assert!(told(&"a".repeat(1025)).contains("too large"));
    }

    #[test]
    fn named_groups_are_parameters() {
        let users = PathRegex::parse("/v[0-9]+/users/(?<id>[0-9]+)(/(?<more>.*))?").unwrap();
        assert_eq!(users.capture("/v2/users/7").to_vec(), [("id", "7")]);
        assert_eq!(users.capture("/v2/users/7/a/b").to_vec(), [("id", "7"), ("more", "a/b")]);
        assert_eq!(PathRegex::parse("/(?<a.b>.)"), Err(PatternError::ParamName("a.b".into())));
    }

    #[test]
    fn groups_that_do_not_exist_are_found_in_replacements() {
        let pattern = Pattern::part("(?<v>a)(b)").unwrap();
        for (replacement, expected) in [
            ("/$1/$2/$v/${v}x/$0/$$3/$", None),
            ("/$3", Some("3")),
            ("/$1x", Some("1x")),
            ("/${w}", Some("w")),
            ("$$$w", Some("w")),
        ] {
            assert_eq!(pattern.unknown_group(replacement).as_deref(), expected, "{replacement}");
        }
        assert_eq!(pattern.group_names(), ["v", "2"]);
    }

    #[test]
    fn only_segments_that_are_certain_are_fixed() {
        for (text, expected) in [
            ("^/api/v[0-9]+", &["api"][..]),
            ("/api/v1/users", &["api", "v1"]),
            ("/api/?x", &[]),
            ("/api/v?", &["api"]),
            ("/a/b|/c", &[]),
            ("/a/(b|c)", &[]),
            ("/a/b\\.html", &["a"]),
            ("/a.b/c", &[]),
            ("(?i)/api/x", &[]),
            ("/", &[]),
            (".*", &[]),
        ] {
            let fixed = fixed_segments(text);
            assert_eq!(fixed.iter().map(|segment| &**segment).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
