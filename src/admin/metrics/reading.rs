//! All counters at one instant, summed over the workers: what rates are made of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Sources, checks};
use crate::config::Config;
use crate::limit::key::Subject;
use crate::limit::stats::{Counter, DecisionKind, LimitStats, StoreErrorKind};
use crate::limit::top::Met;
use crate::telemetry::histogram::Distribution;

/// Everything that is counted, at one instant.
#[derive(Debug)]
pub(in crate::admin) struct Reading {
    pub(in crate::admin) at: Instant,
    /// Whose names the ordinals stand for.
    pub(in crate::admin) config: Arc<Config>,
    /// By a route's ordinal.
    pub(in crate::admin) routes: Vec<Requests>,
    /// By a limit's ordinal, and kind of decision.
    pub(in crate::admin) limits: Vec<[u64; DecisionKind::ALL.len()]>,
    /// By a server's ordinal.
    pub(in crate::admin) servers: Vec<Requests>,
    /// Requests that a limit denied.
    pub(in crate::admin) limited: u64,
    pub(in crate::admin) overhead: Option<Distribution>,
    pub(in crate::admin) checks: Option<Distribution>,
    pub(in crate::admin) store: Store,
    pub(in crate::admin) held: u64,
    pub(in crate::admin) active: u64,
    pub(in crate::admin) idle: u64,
}

/// Requests of a route or of a server.
#[derive(Debug, Default)]
pub(in crate::admin) struct Requests {
    pub(in crate::admin) count: u64,
    /// Answered with 500 or more, or not at all.
    pub(in crate::admin) errors: u64,
    /// Of a route: denied by a limit, and such that a shadow limit would deny.
    pub(in crate::admin) denied: (u64, u64),
    pub(in crate::admin) durations: Option<Distribution>,
}

/// What the workers count of the store.
#[derive(Debug, Default)]
pub(in crate::admin) struct Store {
    pub(in crate::admin) calls: u64,
    pub(in crate::admin) errors: u64,
    pub(in crate::admin) timeouts: u64,
    /// Workers that have stopped asking it.
    pub(in crate::admin) away: usize,
}

impl Reading {
    /// Decisions of a limit, by kind.
    pub(in crate::admin) fn decided(&self, limit: usize, kinds: &[DecisionKind]) -> u64 {
        let decided = |kind: &DecisionKind| self.limits.get(limit).map_or(0, |counts| counts[*kind as usize]);
        kinds.iter().map(decided).sum()
    }

    /// The same over all limits.
    pub(in crate::admin) fn decided_in_all(&self, kinds: &[DecisionKind]) -> u64 {
        (0..self.limits.len()).map(|limit| self.decided(limit, kinds)).sum()
    }

    /// Requests answered, and those that ended in an error.
    pub(in crate::admin) fn requests(&self) -> (u64, u64) {
        self.routes.iter().fold((0, 0), |(count, errors), route| (count + route.count, errors + route.errors))
    }

    /// How long requests took, on all routes.
    pub(in crate::admin) fn durations(&self) -> Option<Distribution> {
        self.routes.iter().filter_map(|route| route.durations.clone()).reduce(Distribution::merge)
    }
}

impl Sources {
    /// Reads all counters.
    pub(in crate::admin) fn reading(&self) -> Reading {
        let config = self.config();
        let workers = || self.workers.iter();
        let kinds = |limit: usize, kind: DecisionKind| {
            let decided =
                |stats: &LimitStats| stats.decisions.get(limit).map_or(0, |kinds| kinds[kind as usize].value());
            self.limit_sum(decided)
        };
        let [listeners, routes, limits, servers] = config.ordinals.counts();
        let limits = (0..limits).map(|limit| DecisionKind::ALL.map(|(kind, _)| kinds(limit, kind))).collect();
        let connections = (0..listeners).flat_map(|index| workers().map(move |(stats, _)| stats.connections(index)));
        let (active, idle) = connections.fold((0, 0), |(active, idle), now| (active + now.active, idle + now.idle));
        let away = workers().filter(|(_, stats)| stats.store_up.load(Ordering::Relaxed) == 0).count();
        let routes = self.by_route(routes);
        Reading {
            at: Instant::now(),
            limited: routes.iter().map(|route| route.denied.0).sum(),
            routes,
            servers: self.by_server(servers),
            limits,
            overhead: workers().map(|(stats, _)| stats.overhead()).reduce(Distribution::merge),
            checks: workers().map(|(_, stats)| checks(stats)).reduce(Distribution::merge),
            store: Store {
                calls: self.limit_sum(|stats| stats.store_calls.value()),
                errors: self.limit_sum(|stats| stats.errors.iter().map(Counter::value).sum()),
                timeouts: self.limit_sum(|stats| stats.errors[StoreErrorKind::Timeout as usize].value()),
                away,
            },
            held: self.limit_sum(|stats| stats.held.load(Ordering::Relaxed)),
            active,
            idle,
            config,
        }
    }

    /// The keys of a limit that the workers met most.
    pub(in crate::admin) fn met(&self, policy: usize) -> HashMap<Subject, Met> {
        let mut met = HashMap::new();
        self.workers.iter().for_each(|(_, stats)| stats.top.read(policy, &mut met));
        met
    }

    /// The workers begin to count top keys anew.
    pub(in crate::admin) fn turn_top_keys(&self) {
        self.workers.iter().for_each(|(_, stats)| stats.top.turn());
    }

    /// How many workers there are.
    pub(in crate::admin) fn worker_count(&self) -> usize {
        self.workers.len()
    }

    fn by_route(&self, count: usize) -> Vec<Requests> {
        let mut routes: Vec<Requests> = (0..count).map(|_| Requests::default()).collect();
        for (stats, _) in &self.workers {
            stats.each_request(|route, _, code, count| {
                let Some(route) = routes.get_mut(route) else { return };
                route.count += count;
                route.errors += if code >= 500 { count } else { 0 };
            });
        }
        for (index, route) in routes.iter_mut().enumerate() {
            let durations = self.workers.iter().filter_map(|(stats, _)| stats.durations(index));
            route.durations = durations.reduce(Distribution::merge);
            let denied = self.workers.iter().map(|(stats, _)| stats.denials(index));
            route.denied = denied.fold((0, 0), |(limited, shadow), more| (limited + more.0, shadow + more.1));
        }
        routes
    }

    fn by_server(&self, count: usize) -> Vec<Requests> {
        let mut servers: Vec<Requests> = (0..count).map(|_| Requests::default()).collect();
        for (index, server) in servers.iter_mut().enumerate() {
            for (stats, _) in &self.workers {
                stats.each_answer(index, |code, count| {
                    server.count += count;
                    server.errors += if code.is_none_or(|code| code >= 500) { count } else { 0 };
                });
            }
        }
        servers
    }
}
