//! From a request to its route: host, then path, then method, headers and query.
//!
//! A route with several hosts or paths is several alternatives. All alternatives stand in one list,
//! most specific first, and the first one that matches a request is its route: exact host before
//! wildcard before none; then, segment by segment, static before `{param}` before a regular expression
//! before `*`; then more method, header and query conditions before fewer; then file order. Of a regular
//! expression the segments that it visibly begins with are static. That list is the meaning; the index
//! is a shortcut to the same answers.

pub mod access;
mod alternative;
pub mod condition;
pub mod cors;
pub mod fields;
pub mod fixed;
mod index;
pub mod path;
pub mod pattern;
mod preflight;
pub mod regex;
pub mod rewrite;
pub mod target;
pub mod template;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use self::index::Index;
use crate::limit::policy::Policy;
use crate::upstream::Upstream;
use crate::upstream::retry::Retries;
pub use access::Access;
pub use alternative::{Alternative, Considered};
pub use condition::Wanted;
pub use cors::Cors;
pub use fields::FieldEdits;
pub use fixed::FixedAnswer;
pub use path::PathMatch;
pub use pattern::{HostPattern, PathTemplate, PatternError};
pub use regex::{PathRegex, Pattern};
pub use rewrite::Rewrite;
pub use template::Template;

/// Where requests that match go, and under which limits.
#[derive(Debug)]
pub struct Route {
    /// Unique name.
    pub name: Arc<str>,
    /// Position in the configuration file; the last one is the implicit route of unmatched requests.
    pub index: usize,
    /// What its name has through every reload: the number of its statistics.
    pub ordinal: usize,
    /// What it matches.
    pub matches: Match,
    /// Where to; `None` for routes with an answer of their own, and for the implicit route of unmatched requests,
    /// which answers 404.
    pub upstream: Option<Arc<Upstream>>,
    /// What it does beside forwarding; most routes do nothing of it.
    pub extras: Option<Box<Extras>>,
    /// Global limits first, then the route's own, in file order.
    pub policies: Box<[Arc<Policy>]>,
    /// Until the response head; `None`: as long as the upstream says.
    pub timeout: Option<Duration>,
    /// Which requests are sent again.
    pub retries: Option<Box<Retries>>,
    /// Whether `%2F`, `%5C`, `%00` and `%25` in the path are refused (400) or kept encoded.
    pub encoded_path: EncodedPath,
}

/// What a route does beside forwarding.
#[derive(Debug, Default)]
pub struct Extras {
    /// The answer instead of an upstream's.
    pub answer: Option<FixedAnswer>,
    /// What becomes of the target.
    pub rewrite: Rewrite,
    /// What is changed in the request's fields.
    pub request_headers: FieldEdits,
    /// What is changed in the answer's fields, whoever answers.
    pub response_headers: FieldEdits,
    /// Largest request body, bytes.
    pub max_body_size: Option<u64>,
    /// Who is let in, beside those that the file lets in at all.
    pub access: Access,
    /// Which pages of other origins may read the answers.
    pub cors: Option<Cors>,
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
    pub paths: Vec<PathMatch>,
    /// Any of these methods; GET means HEAD too, or HEAD would walk around what holds for GET.
    pub methods: Vec<Method>,
    /// All of these fields, each as wanted.
    pub headers: Vec<(HeaderName, Wanted)>,
    /// All of these query parameters, each as wanted.
    pub query: Vec<(Box<str>, Wanted)>,
}

/// What routes tell requests apart by. What a route captures is borrowed from the path alone (`'p`).
#[derive(Debug, Clone, Copy)]
pub struct Head<'p, 'h> {
    /// Canonical host; empty when there is none.
    pub host: &'h str,
    /// Canonical path.
    pub path: &'p str,
    /// The same in the form in which paths are compared ([`target::comparable`]).
    pub compared: &'p str,
    /// Query without `?`, as sent.
    pub query: Option<&'h str>,
    /// The method.
    pub method: &'h Method,
    /// The fields.
    pub headers: &'h HeaderMap,
}

/// Path parameters of one match: name and canonical value, in path order; `*` gives `rest`.
pub type Params<'a> = SmallVec<[(&'a str, &'a str); 4]>;

/// A found route and what its path template captured.
#[derive(Debug)]
pub struct Found<'r, 'p> {
    /// The route.
    pub route: &'r Arc<Route>,
    /// Captured parameters, borrowed from the canonical path and the template.
    pub params: Params<'p>,
}

impl Extras {
    /// Every template in it.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let answer = match &self.answer {
            Some(FixedAnswer::Redirect(redirect)) => (Some(redirect.to()), [].as_slice()),
            Some(FixedAnswer::Respond(respond)) => (None, respond.headers.as_slice()),
            None => (None, [].as_slice()),
        };
        let edits = self.request_headers.values().chain(self.response_headers.values()).chain(answer.1);
        let fields = edits.filter_map(|(_, value)| match value {
            fields::FieldValue::Filled(template) => Some(template),
            fields::FieldValue::Fixed(_) => None,
        });
        answer.0.into_iter().chain(fields).chain(self.rewrite.templates())
    }
}

impl Route {
    /// The answer that it gives instead of an upstream's.
    #[must_use]
    pub fn answer(&self) -> Option<&FixedAnswer> {
        self.extras.as_ref()?.answer.as_ref()
    }

    /// Whether it is the implicit route of requests that match no other.
    #[must_use]
    pub fn is_unmatched(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether it lets this client in.
    #[must_use]
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        self.extras.as_ref().is_none_or(|extras| extras.access.admits(client))
    }
}

impl Found<'_, '_> {
    /// Whether a query parameter that the route has a condition on occurs twice, so that the upstream could read
    /// another value than the one that matched.
    #[must_use]
    pub fn is_ambiguous(&self, query: Option<&str>) -> bool {
        self.route.matches.query.iter().any(|(name, _)| condition::parameters(query, name).nth(1).is_some())
    }
}

impl Match {
    /// Whether it is no condition at all.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.hosts.is_empty()
            && self.paths.is_empty()
            && self.methods.is_empty()
            && self.headers.is_empty()
            && self.query.is_empty()
    }
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
    /// Whether any route answers browsers that ask beforehand.
    answers_preflights: bool,
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
        let answers_preflights = routes.iter().any(|route| route.cors().is_some());
        Self { sorted, index, routes, unmatched, answers_preflights }
    }

    /// The route of a request.
    ///
    /// It is the first alternative of the sorted list that matches, found without walking the list.
    #[must_use]
    pub fn find<'r: 'p, 'p>(&'r self, head: &Head<'p, '_>) -> Found<'r, 'p> {
        let accepts = |position: usize| self.sorted[position].accepts(head);
        match self.index.find(head.host, head.path, accepts) {
            Some(position) => self.sorted[position].found(head),
            None => self.nothing(),
        }
    }

    /// What a request finds that is not to be routed: the implicit route, with the limits of every request.
    #[must_use]
    pub fn nothing<'r: 'p, 'p>(&'r self) -> Found<'r, 'p> {
        Found { route: &self.unmatched, params: Params::new() }
    }

    /// Every alternative, most specific first, with whether it matches the request or why not. The
    /// first that matches is the route that [`Router::find`] returns.
    pub fn explain<'a>(&'a self, head: &'a Head<'_, '_>) -> impl Iterator<Item = Step<'a>> {
        self.sorted.iter().map(move |alternative| Step { alternative, outcome: alternative.consider(head) })
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
