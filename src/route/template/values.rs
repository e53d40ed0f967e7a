//! What the variables of templates stand for in one request.

use std::borrow::Cow;
use std::slice;

use http::{HeaderMap, HeaderName};

use super::Variable;
use crate::limit::key::{AmbiguousKey, Facts, KeyPart, value_of};

/// One request, as templates see it.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// What limits know of it.
    pub facts: &'a Facts<'a>,
    /// The canonical path.
    pub path: &'a str,
    /// `https` or `http`.
    pub scheme: &'a str,
    /// Its id.
    pub request_id: &'a str,
    /// The name of the listener it came by.
    pub listener: &'a str,
}

/// Why a template cannot be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// What a variable asks for occurs twice.
    #[error("a variable asks for what occurs twice in the request")]
    Ambiguous,
    /// The result is nothing that can be sent.
    #[error("a variable's value cannot be sent there")]
    Invalid,
}

impl From<AmbiguousKey> for FillError {
    fn from(_: AmbiguousKey) -> Self {
        Self::Ambiguous
    }
}

impl<'a> Values<'a> {
    /// A variable's value, decoded; empty when the request has none.
    pub(super) fn of(&self, variable: &Variable) -> Result<Cow<'a, [u8]>, FillError> {
        let facts = self.facts;
        Ok(match variable {
            Variable::ClientIp => {
                Cow::Owned(facts.client_ip.map(|address| address.to_string().into_bytes()).unwrap_or_default())
            }
            Variable::Host => facts.host.as_bytes().into(),
            Variable::Method => facts.method.as_str().as_bytes().into(),
            Variable::Path => self.path.as_bytes().into(),
            Variable::Query => facts.query.unwrap_or_default().as_bytes().into(),
            Variable::Scheme => self.scheme.as_bytes().into(),
            Variable::RequestId => self.request_id.as_bytes().into(),
            Variable::Route => facts.route.as_bytes().into(),
            Variable::Listener => self.listener.as_bytes().into(),
            Variable::Part(KeyPart::Header(name)) => joined(facts.headers, name),
            Variable::Part(part) => {
                value_of(slice::from_ref(part), facts)?.map(|value| value.bytes).unwrap_or_default()
            }
        })
    }

    /// The value of those that are parts of a URL already.
    pub(super) fn in_url(&self, variable: &Variable) -> Option<&'a str> {
        match variable {
            Variable::Host => Some(self.facts.host),
            Variable::Path => Some(self.path),
            Variable::Query => Some(self.facts.query.unwrap_or_default()),
            Variable::Scheme => Some(self.scheme),
            Variable::Part(KeyPart::Path(name)) => {
                let params = self.facts.params.iter();
                let found = params.clone().find(|(param, _)| *param == &**name);
                Some(found.map_or("", |(_, value)| value))
            }
            _ => None,
        }
    }
}

/// All lines of a field as one list (RFC 9110 §5.3).
fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, [u8]> {
    let mut lines = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    match (lines.next(), lines.next()) {
        (None, _) => Cow::Borrowed(b""),
        (Some(line), None) => Cow::Borrowed(line),
        (Some(first), Some(second)) => {
            let all: Vec<_> = [first, second].into_iter().chain(lines).collect();
            Cow::Owned(all.join(&b", "[..]))
        }
    }
}
