//! What is forwarded where, and under which limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Check;
use super::limits::Scope;
use super::upstreams::{RESPONSE_TIMEOUT, Upstreams};
use crate::config::file::{self, File};
use crate::config::frames::Span;
use crate::config::shape::{Setting, Spanned};
use crate::limit::policy::Policy;
use crate::route::{EncodedPath, Match, Route, Router};
use crate::upstream::Upstream;

/// What the routes came to.
pub(super) struct Routed {
    pub(super) router: Router,
    pub(super) policies: Vec<Arc<Policy>>,
    pub(super) max_waits: Vec<Option<Duration>>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) places: Places,
}

/// Where routes and policies stand in the file, by their names, for warnings.
#[derive(Debug, Default)]
pub(super) struct Places {
    routes: HashMap<Arc<str>, Span>,
    policies: HashMap<Arc<str>, Span>,
    tiers: HashMap<Arc<str>, Span>,
}

impl Places {
    /// Where the tiers of a policy say what they go by.
    pub(super) fn tiers(&self, policy: &str) -> Option<Span> {
        self.tiers.get(policy).copied()
    }

    pub(super) fn policy(&self, name: &str) -> Option<Span> {
        self.policies.get(name).copied()
    }

    /// The name of every policy, in alphabetical order.
    pub(super) fn policies(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.policies.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn route(&self, name: &str) -> Option<Span> {
        self.routes.get(name).copied()
    }

    /// Notes where a policy stands, unless one of its name stands elsewhere.
    pub(super) fn add_policy(&mut self, name: &str, span: Span) -> bool {
        let new = !self.policies.contains_key(name);
        self.policies.entry(name.into()).or_insert(span);
        new
    }

    /// Notes where a policy's tiers say what they go by.
    pub(super) fn add_tiers(&mut self, policy: &str, span: Span) {
        self.tiers.entry(policy.into()).or_insert(span);
    }

    fn add_route(&mut self, name: &Arc<str>, span: Span) {
        self.routes.entry(Arc::clone(name)).or_insert(span);
    }
}

/// Everything found so far.
struct Progress {
    routes: Vec<Arc<Route>>,
    policies: Vec<Arc<Policy>>,
    max_waits: Vec<Option<Duration>>,
    global: Vec<Arc<Policy>>,
    places: Places,
    ipv6_prefix: u8,
    store_error: file::OnStoreError,
}

impl Check<'_> {
    pub(super) fn routes(&mut self, file: &File, mut upstreams: Upstreams, ipv6_prefix: u8) -> Routed {
        let mut progress = Progress {
            routes: Vec::new(),
            policies: Vec::new(),
            max_waits: Vec::new(),
            global: Vec::new(),
            places: Places::default(),
            ipv6_prefix,
            store_error: default_on_store_error(file),
        };
        // The same in both forms: routes that come later take nothing away from what was counted.
        let prefix = "default";
        let scope = Scope { name: prefix, paths: None, timeout: shortest_timeout(file, &upstreams) };
        progress.global = self.limits(&file.limits, &scope, &mut progress_parts(&mut progress));
        self.short_form(file, &mut upstreams, &mut progress);
        for route in file.routes.get().iter().flat_map(|list| &list.0) {
            self.route(route, &mut upstreams, &mut progress);
        }
        let unmatched = unmatched(&progress, self.ordinals.routes.of(""));
        Routed {
            router: Router::new(progress.routes, unmatched),
            policies: progress.policies,
            max_waits: progress.max_waits,
            upstreams: upstreams.all,
            places: progress.places,
        }
    }

    /// `upstream:` at the top is one route for everything.
    fn short_form(&mut self, file: &File, upstreams: &mut Upstreams, progress: &mut Progress) {
        let Some(named) = file.upstream.spanned() else {
            let no_routes = match &file.routes {
                Setting::Absent => true,
                Setting::Invalid => false,
                Setting::Given { value, .. } => value.value.0.is_empty() && self.is_sound(),
            };
            if file.upstream.is_absent() && no_routes {
                self.error_of_file("nothing says where requests go", "add `upstream: http://127.0.0.1:3000`");
            }
            return;
        };
        if let Some(key) = file.routes.key() {
            self.error(
                key,
                "`upstream` at the top is the short form of one route for everything",
                "keep one of the two: beside `routes`, add a route without `match` for the rest",
            );
            return;
        }
        let Some(upstream) = self.resolve(named, upstreams) else { return };
        progress.routes.push(Arc::new(Route {
            name: "default".into(),
            index: 0,
            ordinal: self.ordinals.routes.of("default"),
            matches: Match::default(),
            timeout: None,
            retries: None,
            upstream: Some(upstream),
            extras: None,
            policies: progress.global.clone().into(),
            encoded_path: EncodedPath::Reject,
        }));
    }

    fn route(&mut self, route: &Spanned<file::Route>, upstreams: &mut Upstreams, progress: &mut Progress) {
        let name = self.route_name(route, &progress.places);
        let matches = self.matches(&route.r#match);
        self.one_destination(route);
        let upstream = route.upstream.spanned().and_then(|named| self.resolve(named, upstreams));
        let extras = self.extras(route, &matches);
        let default = upstream.as_ref().map_or(RESPONSE_TIMEOUT, |upstream| upstream.settings.response_timeout);
        let timeout = route.timeout.spanned().map(|_| self.time(&route.timeout, default));
        let scope = Scope { name: &name, paths: Some(&matches.paths), timeout: timeout.unwrap_or(default) };
        let own = self.limits(&route.limits, &scope, &mut progress_parts(progress));
        let index = progress.routes.len();
        let name: Arc<str> = name.into();
        progress.places.add_route(&name, route.name.spanned().map_or(route.span, |name| name.span));
        progress.routes.push(Arc::new(Route {
            ordinal: self.ordinals.routes.of(&name),
            name,
            index,
            matches,
            upstream,
            extras,
            policies: progress.global.iter().cloned().chain(own).collect(),
            timeout,
            retries: self.retries(&route.retries, timeout.unwrap_or(default)),
            encoded_path: match route.encoded_path.or(file::EncodedPath::Reject) {
                file::EncodedPath::Reject => EncodedPath::Reject,
                file::EncodedPath::Keep => EncodedPath::Keep,
            },
        }));
    }

    fn route_name(&mut self, route: &Spanned<file::Route>, places: &Places) -> String {
        match &route.name {
            Setting::Given { value, .. } => {
                if places.route(&value.value.0).is_some() {
                    let message = format!("there is a route `{}` already", value.value.0);
                    self.error(value.span, message, "names are unique: metrics and logs tell routes apart by them");
                }
                value.value.0.clone()
            }
            Setting::Absent => {
                self.error(route.span, "this route has no name", "write `name: …`; metrics and logs use it");
                format!("route at {}", route.span.start)
            }
            Setting::Invalid => format!("route at {}", route.span.start),
        }
    }
}

fn default_on_store_error(file: &File) -> file::OnStoreError {
    match file.store.get() {
        Some(crate::config::shape::Short::Long(store)) => store.on_store_error.or(file::OnStoreError::Local),
        _ => file::OnStoreError::Local,
    }
}

/// The shortest time that any route gives its upstream: what holds requests of all routes keeps within it.
fn shortest_timeout(file: &File, upstreams: &Upstreams) -> Duration {
    let routes = file.routes.get().map(|list| list.0.as_slice()).unwrap_or_default();
    let of_routes = routes.iter().filter_map(|route| route.timeout.get().copied());
    let of_upstreams = upstreams.all.iter().map(|upstream| upstream.settings.response_timeout);
    of_routes.chain(of_upstreams).min().unwrap_or(RESPONSE_TIMEOUT)
}

/// The parts of the progress that limits add to.
fn progress_parts(progress: &mut Progress) -> super::limits::Known<'_> {
    super::limits::Known {
        policies: &mut progress.policies,
        max_waits: &mut progress.max_waits,
        places: &mut progress.places,
        ipv6_prefix: progress.ipv6_prefix,
        store_error: progress.store_error,
    }
}

/// "No route" is a route: global limits hold there too.
fn unmatched(progress: &Progress, ordinal: usize) -> Arc<Route> {
    Arc::new(Route {
        name: "".into(),
        ordinal,
        index: progress.routes.len(),
        matches: Match::default(),
        upstream: None,
        extras: None,
        policies: progress.global.clone().into(),
        timeout: None,
        retries: None,
        encoded_path: EncodedPath::Reject,
    })
}
