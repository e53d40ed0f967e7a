//! One alternative of a route: the route with one of its hosts and one of its paths. Here stands
//! what specificity is, when an alternative matches, and when one leaves nothing to another.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use http::{HeaderName, Method};

use super::condition::parameters;
use super::path::PathMatch;
use super::pattern::HostPattern;
use super::{Found, Head, Params, Route};

/// A route with one of its hosts and one of its paths.
#[derive(Debug, Clone)]
pub struct Alternative {
    /// The route.
    pub route: Arc<Route>,
    /// `None`: any host.
    pub host: Option<HostPattern>,
    /// `None`: any path.
    pub path: Option<PathMatch>,
}

/// Whether an alternative matches a request, or which condition failed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Considered<'a> {
    /// All conditions hold.
    Matched,
    /// Another host.
    Host,
    /// Another path.
    Path,
    /// Another method.
    Method,
    /// This field is missing or has another value.
    Header(&'a HeaderName),
    /// This query parameter is missing or has another value.
    Query(&'a str),
}

/// What a path condition says of the path behind its segments.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum End<'a> {
    /// There is nothing.
    Here,
    /// All of the path fits this.
    Regex(&'a str),
    /// Anything.
    Rest,
}

/// What a template asks of the path at one position; the smaller, the more specific.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SegmentRank {
    Static,
    Param,
    End,
    Regex,
    Rest,
}

/// Two alternatives of one place are asked about the same hosts and paths.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Place<'a> {
    host: Option<&'a HostPattern>,
    /// `None` stands for any one segment.
    segments: Vec<Option<&'a str>>,
    end: End<'a>,
}

impl Alternative {
    /// All alternatives of a route: each of its hosts with each of its paths.
    pub(super) fn of(route: &Arc<Route>) -> impl Iterator<Item = Self> {
        let hosts = some_or_any(&route.matches.hosts);
        let paths = some_or_any(&route.matches.paths);
        hosts.into_iter().flat_map(move |host| {
            let route = Arc::clone(route);
            paths.clone().into_iter().map(move |path| Self { route: Arc::clone(&route), host: host.clone(), path })
        })
    }

    /// The more specific one first.
    pub(super) fn by_specificity(&self, other: &Self) -> Ordering {
        let host = |alternative: &Self| match &alternative.host {
            Some(HostPattern::Exact(_)) => (0, Reverse(0)),
            Some(HostPattern::Wildcard(suffix)) => (1, Reverse(suffix.len())),
            None => (2, Reverse(0)),
        };
        host(self)
            .cmp(&host(other))
            .then_with(|| self.ranks().cmp(other.ranks()))
            .then_with(|| other.conditions().cmp(&self.conditions()))
            .then_with(|| self.route.index.cmp(&other.route.index))
    }

    fn ranks(&self) -> impl Iterator<Item = SegmentRank> {
        let end = match self.end() {
            End::Here => SegmentRank::End,
            End::Regex(_) => SegmentRank::Regex,
            End::Rest => SegmentRank::Rest,
        };
        let ranks = self.segments().map(|segment| segment.map_or(SegmentRank::Param, |_| SegmentRank::Static));
        ranks.chain(std::iter::once(end))
    }

    /// The segments that its paths begin with; `None` stands for any one segment.
    pub(super) fn segments(&self) -> impl Iterator<Item = Option<&str>> {
        self.path.iter().flat_map(PathMatch::segments)
    }

    /// What it says of the path behind them.
    pub(super) fn end(&self) -> End<'_> {
        match &self.path {
            Some(PathMatch::Template(template)) if !template.rest => End::Here,
            Some(PathMatch::Template(_)) | None => End::Rest,
            Some(PathMatch::Regex(regex)) => End::Regex(regex.pattern.text()),
        }
    }

    /// Number of method, header and query conditions; the methods of a route are one condition.
    fn conditions(&self) -> usize {
        let matches = &self.route.matches;
        usize::from(!matches.methods.is_empty()) + matches.headers.len() + matches.query.len()
    }

    /// Whether all conditions hold for a request whose host is meant and whose path begins with the segments.
    pub(super) fn accepts(&self, head: &Head<'_, '_>) -> bool {
        let fits = |path: &PathMatch| !matches!(path, PathMatch::Regex(_)) || path.matches(head);
        self.path.as_ref().is_none_or(fits) && self.failed_condition(head).is_none()
    }

    fn failed_condition(&self, head: &Head<'_, '_>) -> Option<Considered<'_>> {
        let matches = &self.route.matches;
        if !accepts_method(&matches.methods, head.method) {
            return Some(Considered::Method);
        }
        let field = matches.headers.iter().find(|(name, wanted)| !wanted.holds(head.headers.get_all(name).iter()));
        if let Some((name, _)) = field {
            return Some(Considered::Header(name));
        }
        self.failed_parameter(head).map(Considered::Query)
    }

    fn failed_parameter(&self, head: &Head<'_, '_>) -> Option<&str> {
        let mut conditions = self.route.matches.query.iter();
        let failed = conditions.find(|(name, wanted)| !wanted.holds(parameters(head.query, name)));
        failed.map(|(name, _)| &**name)
    }

    /// Whether the conditions on the query hold.
    pub(super) fn parameters_hold(&self, head: &Head<'_, '_>) -> bool {
        self.failed_parameter(head).is_none()
    }

    pub(super) fn consider(&self, head: &Head<'_, '_>) -> Considered<'_> {
        if self.host.as_ref().is_some_and(|pattern| !pattern.matches(head.host)) {
            return Considered::Host;
        }
        if self.path.as_ref().is_some_and(|path| !path.matches(head)) {
            return Considered::Path;
        }
        self.failed_condition(head).unwrap_or(Considered::Matched)
    }

    /// The answer for a request that it matches.
    pub(super) fn found<'r: 'p, 'p>(&'r self, head: &Head<'p, '_>) -> Found<'r, 'p> {
        let params = self.path.as_ref().map_or_else(Params::new, |path| path.capture(head));
        Found { route: &self.route, params }
    }

    /// Which hosts and paths it is asked about.
    pub(super) fn place(&self) -> Place<'_> {
        Place { host: self.host.as_ref(), segments: self.segments().collect(), end: self.end() }
    }

    /// Whether each request that the other one of the same place matches is matched by this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (own, others) = (&self.route.matches, &other.route.matches);
        let methods = own.methods.is_empty()
            || (!others.methods.is_empty() && others.methods.iter().all(|method| accepts_method(&own.methods, method)));
        methods
            && own.headers.iter().all(|condition| others.headers.contains(condition))
            && own.query.iter().all(|condition| others.query.contains(condition))
    }
}

impl PartialEq for Alternative {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.route, &other.route) && self.host == other.host && self.path == other.path
    }
}

impl Eq for Alternative {}

/// Whether a list of methods (empty: any) means this one; GET means HEAD too.
fn accepts_method(listed: &[Method], method: &Method) -> bool {
    listed.is_empty() || listed.contains(method) || (method == Method::HEAD && listed.contains(&Method::GET))
}

/// The listed conditions, or the one that always holds.
fn some_or_any<T: Clone>(listed: &[T]) -> Vec<Option<T>> {
    if listed.is_empty() { vec![None] } else { listed.iter().cloned().map(Some).collect() }
}
