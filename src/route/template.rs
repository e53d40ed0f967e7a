//! Texts with variables: `{path.tenant}`, `{client_ip}`. `{{` stands for a brace.
//!
//! A value enters a field as it is, and a URL percent-encoded: whatever a client writes, it stays within the place
//! that the template gives it.

mod foreign;
mod values;

use std::fmt;

use http::HeaderName;

use super::target::is_unreserved;
use crate::limit::key::{Key, KeyError, KeyPart};
pub use values::{FillError, Values};

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    pub(super) parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Itself.
    Text(Box<str>),
    /// What the request has there.
    Variable(Variable),
}

/// What a template can ask of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The client's address, behind trusted proxies.
    ClientIp,
    /// The canonical host, without a port.
    Host,
    /// The method.
    Method,
    /// The canonical path.
    Path,
    /// The query without `?`, as sent.
    Query,
    /// `https` or `http`, behind trusted proxies.
    Scheme,
    /// The request's id.
    RequestId,
    /// The route's name.
    Route,
    /// The listener's name.
    Listener,
    /// A parameter of the path or of the query, a field, a cookie, a claim, the certificate's subject.
    Part(KeyPart),
}

/// What is wrong with a template, with the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace that opens and does not close.
    #[error("a brace opens here and does not close; write `{{{{` for a brace that is no variable")]
    Unclosed,
    /// Not a variable.
    #[error("`{{{}}}` is no variable; {}", shown(.name), cure(.name))]
    Unknown {
        /// What stands between the braces.
        name: String,
    },
    /// A name that nothing can have.
    #[error(transparent)]
    Name(KeyError),
}

/// Variables without a name.
const PLAIN: [(&str, Variable); 9] = [
    ("client_ip", Variable::ClientIp),
    ("host", Variable::Host),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("scheme", Variable::Scheme),
    ("request_id", Variable::RequestId),
    ("route", Variable::Route),
    ("listener", Variable::Listener),
];

/// Variables with a name, each with an example of one.
const NAMED: [(&str, &str); 6] = [
    ("path", "path.tenant"),
    ("header", "header.x-api-key"),
    ("query", "query.id"),
    ("cookie", "cookie.session"),
    ("jwt", "jwt.sub"),
    ("tls", "tls.subject"),
];

/// What other proxies call them.
const ALIASES: [(&str, &str); 8] = [
    ("remote_addr", "client_ip"),
    ("remote_host", "client_ip"),
    ("ip", "client_ip"),
    ("uri", "path"),
    ("args", "query"),
    ("headers", "header.NAME"),
    ("cookies", "cookie.NAME"),
    ("claims", "jwt.CLAIM"),
];

/// What could be a name. All else may be part of a secret that the environment has filled in.
fn shown(name: &str) -> &str {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-$|=".contains(&byte);
    if name.len() <= 64 && name.bytes().all(legal) { name } else { "…" }
}

fn cure(name: &str) -> String {
    let (kind, rest) = shown(name).split_once(['.', ':']).map_or((name, None), |(kind, rest)| (kind, Some(rest)));
    if let Some((_, example)) = NAMED.iter().find(|(named, _)| *named == kind) {
        return match rest {
            Some(rest) if !rest.is_empty() => format!("did you mean `{{{kind}.{rest}}}`?"),
            _ => format!("write `{{{kind}.NAME}}`, such as `{{{example}}}`"),
        };
    }
    if let Some((_, meant)) = ALIASES.iter().find(|(alias, _)| *alias == kind) {
        return format!("did you mean `{{{meant}}}`?");
    }
    let kinds = PLAIN.iter().map(|(plain, _)| *plain).chain(NAMED.iter().map(|(named, _)| *named));
    let near = kinds.map(|word| (strsim::jaro_winkler(&kind.to_ascii_lowercase().replace('-', "_"), word), word));
    let near = near.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    match (near, rest) {
        (Some((_, word)), None) => format!("did you mean `{{{word}}}`?"),
        (Some((_, word)), Some(rest)) => format!("did you mean `{{{word}.{rest}}}`?"),
        (None, _) => {
            let plain: Vec<_> = PLAIN.iter().map(|(plain, _)| format!("{{{plain}}}")).collect();
            let named: Vec<_> = NAMED.iter().map(|(_, example)| format!("{{{example}}}")).collect();
            format!("there are {} and, with names, {}; `{{{{` is a brace", plain.join(" "), named.join(" "))
        }
    }
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// When a brace does not close, or names no variable.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if brace == "}" || after.starts_with('{') {
                plain.push_str(brace);
                rest = after.strip_prefix(brace).unwrap_or(after);
                continue;
            }
            let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::Variable(Variable::parse(name)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self { text: text.into(), parts })
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it asks for.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// Whether one of its variables is such a part of a request.
    pub fn asks_for(&self, mut is: impl FnMut(&KeyPart) -> bool) -> bool {
        self.variables().any(|variable| if let Variable::Part(part) = variable { is(part) } else { false })
    }

    /// The text with a letter in the place of each variable.
    #[must_use]
    pub fn sample(&self) -> String {
        let parts = self.parts.iter();
        parts.map(|part| if let Part::Text(text) = part { text } else { "x" }).collect()
    }

    /// The whole of it, when nothing is asked for.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Fills the values in as they are, decoded: for fields. Empty when it consists of variables that are.
    ///
    /// # Errors
    /// When a variable occurs twice in the request.
    pub fn fill(&self, values: &Values<'_>) -> Result<Vec<u8>, FillError> {
        let mut filled = Vec::with_capacity(self.text.len() + 32);
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => filled.extend_from_slice(&values.of(variable)?),
            }
        }
        Ok(filled)
    }

    /// Fills the values in for a URL. What the path and the query are made of is taken over as it is, in its own
    /// place; all else is percent-encoded.
    ///
    /// # Errors
    /// When a variable occurs twice in the request.
    pub(super) fn fill_url(&self, values: &Values<'_>) -> Result<String, FillError> {
        let mut url = String::with_capacity(self.text.len() + 64);
        for part in &self.parts {
            let variable = match part {
                Part::Text(text) => {
                    url.push_str(text);
                    continue;
                }
                Part::Variable(variable) => variable,
            };
            match values.in_url(variable).filter(|_| variable.fits_as_it_is(&url)) {
                Some(text) => url.push_str(text),
                None => push_encoded(&mut url, &values.of(variable)?),
            }
        }
        Ok(url)
    }
}

/// Percent-encodes all but what means the same either way (RFC 3986 §2.3).
pub(super) fn push_encoded(url: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if is_unreserved(byte) {
            url.push(char::from(byte));
        } else {
            super::target::push_encoded(url, byte);
        }
    }
}

impl Variable {
    fn parse(name: &str) -> Result<Self, TemplateError> {
        if let Some((_, variable)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
            return Ok(variable.clone());
        }
        let unknown = || TemplateError::Unknown { name: name.to_owned() };
        let (kind, rest) = name.split_once('.').ok_or_else(unknown)?;
        let kind = NAMED.iter().map(|(named, _)| *named).find(|named| *named == kind).ok_or_else(unknown)?;
        if rest.is_empty() {
            return Err(unknown());
        }
        if rest.contains('|') {
            // Keys have alternatives, variables have none.
            return Err(TemplateError::Name(KeyError::BadName { kind, name: rest.to_owned() }));
        }
        let parts = Key::parse_part(&format!("{kind}:{rest}"), 128).map_err(TemplateError::Name)?;
        match <[KeyPart; 1]>::try_from(parts) {
            Ok([part]) => Ok(Self::Part(part)),
            Err(_) => Err(unknown()),
        }
    }

    /// The field that it asks for.
    #[must_use]
    pub fn field(&self) -> Option<&HeaderName> {
        if let Self::Part(KeyPart::Header(name)) = self { Some(name) } else { None }
    }

    /// Whether its value may stand behind this beginning of a URL as the request's URL has it: the query in a query,
    /// all else in front of one.
    fn fits_as_it_is(&self, before: &str) -> bool {
        (*self == Self::Query) == before.contains(['?', '#'])
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(part) => write!(f, "{{{}}}", part.to_string().replacen(':', ".", 1)),
            plain => {
                let name = PLAIN.iter().find(|(_, variable)| variable == plain).map_or("", |(name, _)| name);
                write!(f, "{{{name}}}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
