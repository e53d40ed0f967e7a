//! One alternative of a route: the route with one of its hosts and one of its paths. Here stands
//! what specificity is, when an alternative matches, and when one leaves nothing to another.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::pattern::{HostPattern, PathTemplate, Segment};
use super::{Found, Params, Route};

/// A route with one of its hosts and one of its paths.
#[derive(Debug, Clone)]
pub struct Alternative {
    /// The route.
    pub route: Arc<Route>,
    /// `None`: any host.
    pub host: Option<HostPattern>,
    /// `None`: any path.
    pub path: Option<PathTemplate>,
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
}

/// What a template asks of the path at one position; the smaller, the more specific.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SegmentRank {
    Static,
    Param,
    End,
    Rest,
}

/// Two alternatives of one place are asked about the same hosts and paths.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Place<'a> {
    host: Option<&'a HostPattern>,
    /// `None` stands for any one segment.
    segments: Vec<Option<&'a str>>,
    rest: bool,
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
        let segments = self.path.as_ref().map(|path| path.segments.as_slice()).unwrap_or_default();
        let end = if self.takes_rest() { SegmentRank::Rest } else { SegmentRank::End };
        let ranks = segments.iter().map(|segment| match segment {
            Segment::Static(_) => SegmentRank::Static,
            Segment::Param(_) => SegmentRank::Param,
        });
        ranks.chain(std::iter::once(end))
    }

    /// Whether any path that begins with its segments is meant.
    pub(super) fn takes_rest(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.rest)
    }

    /// Number of method and header conditions; the methods of a route are one condition.
    fn conditions(&self) -> usize {
        usize::from(!self.route.matches.methods.is_empty()) + self.route.matches.headers.len()
    }

    /// Whether the method and header conditions hold.
    pub(super) fn conditions_hold(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.failed_condition(method, headers).is_none()
    }

    fn failed_condition(&self, method: &Method, headers: &HeaderMap) -> Option<Considered<'_>> {
        let matches = &self.route.matches;
        if !accepts_method(&matches.methods, method) {
            return Some(Considered::Method);
        }
        let failed =
            matches.headers.iter().find(|(name, value)| !headers.get_all(name).iter().any(|sent| sent == value));
        failed.map(|(name, _)| Considered::Header(name))
    }

    pub(super) fn consider(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Considered<'_> {
        if self.host.as_ref().is_some_and(|pattern| !pattern.matches(host)) {
            return Considered::Host;
        }
        if self.path.as_ref().is_some_and(|template| !template.matches(path)) {
            return Considered::Path;
        }
        self.failed_condition(method, headers).unwrap_or(Considered::Matched)
    }

    /// The answer for a path that it matches.
    pub(super) fn found<'a>(&'a self, path: &'a str) -> Found<'a> {
        let params = self.path.as_ref().map_or_else(Params::new, |template| template.capture(path));
        Found { route: &self.route, params }
    }

    /// Which hosts and paths it is asked about.
    pub(super) fn place(&self) -> Place<'_> {
        let segments = self.path.as_ref().map(|path| path.segments.as_slice()).unwrap_or_default();
        let fixed = segments.iter().map(|segment| match segment {
            Segment::Static(text) => Some(&**text),
            Segment::Param(_) => None,
        });
        Place { host: self.host.as_ref(), segments: fixed.collect(), rest: self.takes_rest() }
    }

    /// Whether each request that the other one of the same place matches is matched by this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (own, others) = (&self.route.matches, &other.route.matches);
        let methods = own.methods.is_empty()
            || (!others.methods.is_empty() && others.methods.iter().all(|method| accepts_method(&own.methods, method)));
        methods && own.headers.iter().all(|condition| others.headers.contains(condition))
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
