//! The RateLimit fields (draft-ietf-httpapi-ratelimit-headers-11), their legacy cousins and Retry-After.
//! The draft may still change: only this module writes these fields.

use http::HeaderMap;

use super::decision::Verdict;

/// Which rate-limit fields responses carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderStyle {
    /// `RateLimit-Policy` and `RateLimit`.
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    Legacy,
    /// Both.
    Both,
    /// Neither.
    None,
}

impl Verdict<'_> {
    /// Adds the rate-limit fields to a response, after upstream's own; Retry-After on denials.
    pub fn write_headers(&self, style: HeaderStyle, headers: &mut HeaderMap) {
        let _ = (style, headers);
        todo!()
    }
}
