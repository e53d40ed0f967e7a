//! What a request costs: known when it comes (by method, field, body size), or only when it was answered.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::key::Facts;

/// Cost per request; at most 2^31.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// For methods not listed.
    pub default: u64,
    /// For these.
    pub by_method: Vec<(Method, u64)>,
    /// A request field that holds the cost, instead of the two above. It makes nothing free that is not so already.
    pub header: Option<HeaderName>,
    /// One more for each begun part of this many bytes of the request's body.
    pub body: Option<u64>,
    /// A field of the answer that holds the true cost.
    pub response_header: Option<HeaderName>,
    /// No cost that a field or a body makes is higher.
    pub most: u64,
}

/// Which answers change what was charged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settling {
    /// When given: only answers with these are counted, all others are given back.
    pub count: Option<Vec<Statuses>>,
    /// Answers with these are given back.
    pub refund: Vec<Statuses>,
    /// Whether a request is given back that the upstream failed to answer.
    pub refund_failures: bool,
}

/// A range of status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statuses {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// How a request ended, for those who settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The upstream answered.
    Upstream,
    /// We did, because the upstream failed.
    Failure,
    /// We did, for another reason.
    Ourselves,
}

/// The largest cost of one request.
pub const LARGEST: u64 = 1 << 31;

impl Cost {
    /// The same for every request.
    #[must_use]
    pub fn fixed(cost: u64) -> Self {
        Self { default: cost, by_method: vec![], header: None, body: None, response_header: None, most: LARGEST }
    }

    /// What a request costs when it comes.
    #[must_use]
    pub fn of(&self, facts: &Facts<'_>) -> u64 {
        if !self.is_dynamic() {
            return self.by_method(facts.method);
        }
        let base = self.without_body(facts);
        base.saturating_add(self.in_advance(facts)).max(self.least_unknown(facts)).min(self.most)
    }

    fn without_body(&self, facts: &Facts<'_>) -> u64 {
        let usual = self.by_method(facts.method);
        let stated = self.header.as_ref().and_then(|name| largest(facts.headers, name));
        stated.map_or(usual, |stated| stated.max(usual.min(1)))
    }

    /// Where the true cost is known afterwards only, nobody comes in for nothing: who costs 0 is never denied.
    fn least_unknown(&self, facts: &Facts<'_>) -> u64 {
        let is_unknown = self.response_header.is_some() || (self.body.is_some() && facts.has_unsized_body);
        u64::from(is_unknown)
    }

    /// HEAD costs what GET does, unless it is listed, or it would be a cheaper way to the same work.
    fn by_method(&self, method: &Method) -> u64 {
        // An upstream may take `post` for POST.
        let is = |listed: &Method, wanted: &Method| listed.as_str().eq_ignore_ascii_case(wanted.as_str());
        let listed = |wanted: &Method| self.by_method.iter().find(|(listed, _)| is(listed, wanted));
        let found = listed(method).or_else(|| listed(&Method::GET).filter(|_| *method == Method::HEAD));
        found.map_or(self.default, |&(_, cost)| cost)
    }

    /// What a body of this many bytes adds.
    #[must_use]
    pub fn of_body(&self, bytes: u64) -> u64 {
        self.body.map_or(0, |part| bytes.div_ceil(part.max(1)))
    }

    /// The part of the cost that is for the body: as its length is announced, or in advance where nothing else
    /// of the request costs anything.
    #[must_use]
    pub fn in_advance(&self, facts: &Facts<'_>) -> u64 {
        match number(facts.headers, &CONTENT_LENGTH) {
            _ if self.body.is_none() => 0,
            Some(bytes) => self.of_body(bytes),
            None if self.without_body(facts) == 0 => self.least_unknown(facts),
            None => 0,
        }
    }

    /// Whether a field or a body decides; such a cost never exceeds what the limit holds.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.header.is_some() || self.body.is_some() || self.response_header.is_some()
    }

    /// Whether more may have to be charged once the request was answered.
    #[must_use]
    pub fn may_grow(&self) -> bool {
        self.body.is_some() || self.response_header.is_some()
    }

    /// The true cost that an answer tells; `None` when it tells none.
    #[must_use]
    pub fn told(&self, headers: &HeaderMap) -> Option<u64> {
        self.response_header.as_ref().and_then(|name| number(headers, name)).map(|cost| cost.min(self.most))
    }

    /// The least cost above 0 that a request can have; 1 when all are free.
    #[must_use]
    pub fn least(&self) -> u64 {
        if self.is_dynamic() {
            return 1;
        }
        let listed = self.by_method.iter().map(|&(_, cost)| cost);
        listed.chain([self.default]).filter(|&cost| cost > 0).min().unwrap_or(1)
    }

    /// The largest cost that the file states.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.by_method.iter().map(|&(_, cost)| cost).fold(self.default, u64::max)
    }
}

impl Settling {
    /// Whether anything may be given back.
    #[must_use]
    pub fn may_refund(&self) -> bool {
        self.count.is_some() || !self.refund.is_empty() || self.refund_failures
    }

    /// Whether an answer gives the charge back. What the upstream never answered stays charged, whatever the client
    /// is told: it may have been done, and a client could break its requests off to get them for nothing.
    #[must_use]
    pub fn refunds(&self, status: StatusCode, answered: Answered) -> bool {
        let among = |ranges: &[Statuses]| ranges.iter().any(|range| range.contains(status));
        let uncounted = self.count.as_deref().is_some_and(|counted| !among(counted));
        match answered {
            Answered::Upstream => uncounted || among(&self.refund),
            Answered::Failure => self.refund_failures,
            Answered::Ourselves => false,
        }
    }
}

impl Statuses {
    /// Whether a status lies in the range.
    #[must_use]
    pub fn contains(&self, status: StatusCode) -> bool {
        (self.first..=self.last).contains(&status.as_u16())
    }
}

/// The largest whole number that a field's lines hold; `None` when none of them holds one.
fn largest(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get_all(name).iter().filter_map(whole_number).max()
}

/// The one whole number that a field holds; `None` when it is absent, repeated or anything else.
fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    whole_number(line).filter(|_| lines.next().is_none())
}

fn whole_number(line: &HeaderValue) -> Option<u64> {
    let digits = line.to_str().ok()?.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}
