//! How requests are spread over the servers of an upstream, and which servers are left alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Check;
use crate::config::file;
use crate::config::shape::{OneOrMany, Setting, Short};
use crate::config::values::{Server, Share, StatusRange};
use crate::limit::key::Key;
use crate::units::DurationText;
use crate::upstream::balance::Balance;
use crate::upstream::breaker::{Breaker, BreakerSettings};
use crate::upstream::health::{Active, Check as HealthCheck, HealthPolicy, Passive};
use crate::upstream::load::{Bounds, Queue};
use crate::upstream::retry::{Budget, Retries, RetryOn};
use crate::upstream::sticky::Sticky;

/// Statuses of a server that is well, unless the file says otherwise.
const WELL: RangeInclusive<u16> = 200..=399;

impl Check<'_> {
    pub(super) fn balance(&mut self, keys: &file::Upstream, ipv6_prefix: u8) -> Balance {
        let balance = keys.balance.or(file::Balance::RoundRobin);
        if let (true, Some(key)) = (balance != file::Balance::Hash, keys.hash_key.key()) {
            self.error(key, "`hash_key` has a meaning with `balance: hash` only", "write `balance: hash` beside it");
        }
        match balance {
            file::Balance::RoundRobin => Balance::RoundRobin,
            file::Balance::LeastRequests => Balance::LeastRequests,
            file::Balance::Random => Balance::Random,
            file::Balance::Hash => {
                if let (true, Some(key)) = (keys.hash_key.is_absent(), keys.balance.key()) {
                    self.error(
                        key,
                        "nothing says what decides over the server",
                        "write `hash_key: client_ip` beside it",
                    );
                }
                let parts = keys.hash_key.get().map(|choice| choice.live(ipv6_prefix)).unwrap_or_default();
                Balance::Hash(Key { parts: vec![parts] })
            }
        }
    }

    pub(super) fn sticky(&mut self, keys: &file::Upstream, secret: &[u8]) -> Option<Sticky> {
        let given = keys.sticky.get()?;
        if let (true, Some(key)) = (given.cookie.is_absent(), keys.sticky.key()) {
            self.error(key, "`sticky` has no cookie", "write `cookie: tollgate_server` below it");
        }
        let max_age = given.max_age.spanned().map(|_| self.time(&given.max_age, Duration::ZERO));
        Some(Sticky::new(&given.cookie.get()?.0, max_age, secret))
    }

    pub(super) fn queue(&mut self, keys: &file::Upstream) -> Queue {
        let unbounded = keys.max_requests.is_absent() && keys.max_connections.is_absent();
        if let (true, Some(key)) = (unbounded, keys.queue.key()) {
            let help = "write `max_requests: 100` beside it, or leave it out";
            self.error(key, "nothing waits in `queue` without `max_requests` or `max_connections`", help);
        }
        let given = keys.queue.get().cloned().unwrap_or_default();
        let mut most = |setting: &Setting<u64>| setting.spanned().map(|_| self.number(setting, 1, 1..=1_000_000));
        let bounds = Bounds { requests: most(&keys.max_requests), connections: most(&keys.max_connections) };
        let size = self.number(&given.size, 1024, 0..=1_000_000);
        Queue::new(bounds, size, self.time(&given.timeout, Duration::from_secs(1)))
    }

    pub(super) fn breaker(&mut self, keys: &file::Upstream) -> Option<Breaker> {
        let given = keys.circuit_breaker.get()?;
        Some(Breaker::new(BreakerSettings {
            failures: self.share_above_zero(&given.failures, 0.5),
            min_requests: self.count(&given.min_requests, 20),
            within: self.time(&given.within, Duration::from_secs(10)),
            open_for: self.time(&given.open_for, Duration::from_secs(5)),
        }))
    }

    pub(super) fn health(&mut self, keys: &file::Upstream, servers: &[&Server]) -> HealthPolicy {
        let given = keys.health.get().cloned().unwrap_or_default();
        let passive = match given.passive.get() {
            Some(Short::Short(_)) => None,
            Some(Short::Long(given)) => Some(self.passive(given)),
            // Of one address there is no other to go to.
            None if servers.len() == 1 && !servers.iter().any(|server| server.address.is_name()) => None,
            None => Some(self.passive(&file::PassiveHealth::default())),
        };
        let active = match given.active.get() {
            Some(Short::Long(given)) => Some(self.active(given)),
            Some(Short::Short(_)) | None => None,
        };
        HealthPolicy { passive, active, slow_start: keys.slow_start.or(Duration::ZERO) }
    }

    fn passive(&mut self, given: &file::PassiveHealth) -> Passive {
        Passive {
            failures: self.count(&given.failures, 5),
            within: self.time(&given.within, Duration::from_secs(10)),
            eject_for: self.time(&given.eject_for, Duration::from_secs(10)),
            max_ejected: given.max_ejected.or(Share(0.5)).0,
            statuses: ranges(&given.status),
        }
    }

    fn active(&mut self, given: &file::ActiveHealth) -> Active {
        let kind = given.r#type.or(file::CheckType::Http);
        let of_http = [given.path.key(), given.host.key(), given.status.key()];
        for key in of_http.into_iter().flatten().filter(|_| kind != file::CheckType::Http) {
            self.error(key, "this is asked for by HTTP only", "write `type: http`, or leave it out");
        }
        if let (true, Some(key)) = (kind != file::CheckType::Grpc, given.service.key()) {
            self.error(key, "this is asked for by gRPC only", "write `type: grpc`, or leave it out");
        }
        let statuses = ranges(&given.status);
        let interval = self.time(&given.interval, Duration::from_secs(5));
        let timeout = self.time(&given.timeout, Duration::from_secs(1));
        if let Some(span) = given.timeout.spanned().or(given.interval.spanned()).map(|given| given.span)
            && timeout > interval
        {
            let message = format!(
                "a check may last {}, longer than the {} between two: a server that hangs is found out late",
                DurationText(timeout),
                DurationText(interval)
            );
            self.warn(span, message, "write a `timeout` below `interval`");
        }
        Active {
            check: match kind {
                file::CheckType::Tcp => HealthCheck::Tcp,
                file::CheckType::Grpc => {
                    HealthCheck::Grpc { service: given.service.get().map_or("", String::as_str).into() }
                }
                file::CheckType::Http => HealthCheck::Http {
                    path: given.path.get().map_or("/", |path| path.0.as_str()).into(),
                    host: given.host.get().map(|host| host.as_str().into()),
                    statuses: if statuses.is_empty() { vec![WELL] } else { statuses },
                },
            },
            interval,
            timeout,
            healthy_after: self.count(&given.healthy_after, 2),
            unhealthy_after: self.count(&given.unhealthy_after, 3),
        }
    }

    /// Which requests of a route are sent again, of which each is to be answered within `timeout`.
    pub(super) fn retries(&mut self, setting: &Setting<file::RetryKeys>, timeout: Duration) -> Option<Box<Retries>> {
        let (given, key) = (setting.get()?, setting.key()?);
        if given.attempts.is_absent() {
            self.error(key, "`retries` does not say how many", "write `attempts: 2` below it");
        }
        if let Some(each) = given.per_try_timeout.spanned().filter(|each| each.value >= timeout) {
            let message = format!("one attempt may take all of the route's time, {}", DurationText(timeout));
            self.warn(each.span, message, "write a shorter `per_try_timeout`: then a slow first attempt leaves time");
        }
        let listed = given.retry_on.get().map(|list| list.0.as_slice()).unwrap_or_default();
        let on: Vec<_> = listed.iter().map(|item| retry_on(&item.value)).collect();
        Some(Box::new(Retries {
            attempts: u32::try_from(self.number(&given.attempts, 1, 1..=10)).unwrap_or(1),
            on: if on.is_empty() { vec![RetryOn::ConnectError, RetryOn::Reset] } else { on },
            per_try_timeout: given.per_try_timeout.spanned().map(|_| self.time(&given.per_try_timeout, Duration::ZERO)),
            budget: Budget::new(given.budget.or(Share(0.2)).0),
        }))
    }

    /// A whole number from 1 on.
    fn count(&mut self, setting: &Setting<u64>, default: usize) -> u32 {
        u32::try_from(self.number(setting, default, 1..=1_000_000)).unwrap_or(u32::MAX)
    }

    fn share_above_zero(&mut self, setting: &Setting<Share>, default: f64) -> f64 {
        let Some(given) = setting.spanned() else { return default };
        if given.value.0 <= 0.0 {
            self.error(
                given.span,
                "of no failures at all it would open at once",
                "write a share above 0%, such as 50%",
            );
        }
        given.value.0
    }
}

fn ranges(setting: &Setting<OneOrMany<StatusRange>>) -> Vec<RangeInclusive<u16>> {
    let listed = setting.get().into_iter().flat_map(|list| &list.0);
    listed.map(|item| item.value.0.first..=item.value.0.last).collect()
}

fn retry_on(reason: &file::RetryReason) -> RetryOn {
    match reason {
        file::RetryReason::ConnectError => RetryOn::ConnectError,
        file::RetryReason::Reset => RetryOn::Reset,
        file::RetryReason::Timeout => RetryOn::Timeout,
        file::RetryReason::Status(StatusRange(range)) => RetryOn::Status(range.first..=range.last),
    }
}
