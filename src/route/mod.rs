//! From a request to its route: host, then path, then method and headers.
//!
//! A route with several hosts or paths is several alternatives. All alternatives stand in one list,
//! most specific first, and the first one that matches a request is its route: exact host before
//! wildcard before none; then, segment by segment, static before `{param}` before `*`; then more
//! method and header conditions before fewer; then file order. That list is the meaning; the index
//! is a shortcut to the same answers.

mod alternative;
mod index;
pub mod pattern;
pub mod target;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use smallvec::SmallVec;

use self::index::Index;
use crate::limit::policy::Policy;
use crate::upstream::Upstream;
use crate::upstream::retry::Retries;
pub use alternative::{Alternative, Considered};
pub use pattern::{HostPattern, PathTemplate};

/// Where requests that match go, and under which limits.
#[derive(Debug)]
pub struct Route {
    /// Unique name.
    pub name: Arc<str>,
    /// Position in the configuration file; the last one is the implicit route of unmatched requests.
    pub index: usize,
    /// What it matches.
    pub matches: Match,
    /// Where to; `None` for the implicit route of unmatched requests, which answers 404.
    pub upstream: Option<Arc<Upstream>>,
    /// Global limits first, then the route's own, in file order.
    pub policies: Box<[Arc<Policy>]>,
    /// Until the response head; `None`: as long as the upstream says.
    pub timeout: Option<Duration>,
    /// Which requests are sent again.
    pub retries: Option<Box<Retries>>,
    /// Whether `%2F`, `%5C`, `%00` and `%25` in the path are refused (400) or kept encoded.
    pub encoded_path: EncodedPath,
}

/// What to do with percent-encoded separators in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedPath {
    /// 400.
    Reject,
    /// Forwarded still encoded; never decoded for routing.
    Keep,
}

/// What a route matches. All conditions must hold; an empty list is no condition.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// Any of these hosts.
    pub hosts: Vec<HostPattern>,
    /// Any of these paths.
    pub paths: Vec<PathTemplate>,
    /// Any of these methods; GET means HEAD too, or HEAD would walk around what holds for GET.
    pub methods: Vec<Method>,
    /// All of these fields with exactly these values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Path parameters of one match: name and canonical value, in path order; `*` gives `rest`.
pub type Params<'a> = SmallVec<[(&'a str, &'a str); 4]>;

/// A found route and what its path template captured.
#[derive(Debug)]
pub struct Found<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// Captured parameters, borrowed from the canonical path and the template.
    pub params: Params<'a>,
}

/// All routes, most specific first.
#[derive(Debug)]
pub struct Router {
    /// Sorted by specificity: the meaning of the configuration.
    sorted: Vec<Alternative>,
    /// The shortcut to the same answers.
    index: Index,
    /// The routes by the position of their most specific alternative.
    routes: Vec<Arc<Route>>,
    /// Taken by requests that match nothing; global limits hold there too.
    unmatched: Arc<Route>,
}

/// One alternative as [`Router::explain`] saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// The alternative: a route with one of its hosts and one of its paths.
    pub alternative: &'a Alternative,
    /// Whether it matches, or which condition failed first.
    pub outcome: Considered<'a>,
}

impl Router {
    /// Sorts the routes by specificity; `unmatched` takes what none of them matches.
    #[must_use]
    pub fn new(mut routes: Vec<Arc<Route>>, unmatched: Arc<Route>) -> Self {
        let mut sorted: Vec<Alternative> = routes.iter().flat_map(Alternative::of).collect();
        sorted.sort_by(Alternative::by_specificity);
        let index = Index::new(&sorted);
        let mut first = HashMap::new();
        for (position, alternative) in sorted.iter().enumerate() {
            first.entry(Arc::as_ptr(&alternative.route)).or_insert(position);
        }
        routes.sort_by_key(|route| first.get(&Arc::as_ptr(route)).copied());
        Self { sorted, index, routes, unmatched }
    }

    /// The route of a request with this canonical host (empty when it has none) and canonical path.
    ///
    /// It is the first alternative of the sorted list that matches, found without walking the list.
    #[must_use]
    pub fn find<'a>(&'a self, host: &str, path: &'a str, method: &Method, headers: &HeaderMap) -> Found<'a> {
        let accepts = |position: usize| self.sorted[position].conditions_hold(method, headers);
        match self.index.find(host, path, accepts) {
            Some(position) => self.sorted[position].found(path),
            None => self.nothing(),
        }
    }

    /// What a request finds that is not to be routed: the implicit route, with the limits of every request.
    #[must_use]
    pub fn nothing(&self) -> Found<'_> {
        Found { route: &self.unmatched, params: Params::new() }
    }

    /// Every alternative, most specific first, with whether it matches the request or why not. The
    /// first that matches is the route that [`Router::find`] returns.
    pub fn explain<'a>(
        &'a self,
        host: &'a str,
        path: &'a str,
        method: &'a Method,
        headers: &'a HeaderMap,
    ) -> impl Iterator<Item = Step<'a>> {
        self.sorted
            .iter()
            .map(move |alternative| Step { alternative, outcome: alternative.consider(host, path, method, headers) })
    }

    /// Every route, most specific first; the implicit one last.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().chain(std::iter::once(&self.unmatched))
    }

    /// Routes that no request can reach, each with one that takes its requests.
    #[must_use]
    pub fn shadowed(&self) -> Vec<(Arc<Route>, Arc<Route>)> {
        let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
        for (position, alternative) in self.sorted.iter().enumerate() {
            groups.entry(alternative.place()).or_default().push(position);
        }
        let mut taken_by: HashMap<*const Route, Option<&Arc<Route>>> = HashMap::new();
        for (position, alternative) in self.sorted.iter().enumerate() {
            let same_place = groups.get(&alternative.place()).map(Vec::as_slice).unwrap_or_default();
            let earlier = same_place.iter().take_while(|&&other| other < position);
            let coverer = earlier.map(|&other| &self.sorted[other]).find(|other| other.covers(alternative));
            let route = Arc::as_ptr(&alternative.route);
            match coverer {
                Some(other) if Arc::ptr_eq(&other.route, &alternative.route) => {}
                Some(other) => {
                    taken_by.entry(route).or_insert(Some(&other.route));
                }
                None => {
                    taken_by.insert(route, None);
                }
            }
        }
        let shadowing = |route: &Arc<Route>| taken_by.get(&Arc::as_ptr(route)).copied().flatten().cloned();
        self.routes.iter().filter_map(|route| shadowing(route).map(|by| (Arc::clone(route), by))).collect()
    }
}

#[cfg(test)]
mod tests;
