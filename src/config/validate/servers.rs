//! Which Redis servers there are: one, a master behind sentinels, or a Cluster.

use std::collections::HashMap;
use std::sync::Arc;

use super::Check;
use crate::config::Config;
use crate::config::file::{self, File};
use crate::config::shape::{OneOrMany, Setting, Short};
use crate::config::values::RedisNode;
use crate::limit::store::settings::{Backend, HashTags, SentinelSettings, ServerAddress, Servers};

impl Check<'_> {
    /// Exactly one of `url`, `sentinel` and `cluster`.
    pub(super) fn redis_servers(&mut self, redis: &file::Redis, file: &File) -> Option<Servers> {
        let absent = [redis.url.is_absent(), redis.sentinel.is_absent(), redis.cluster.is_absent()];
        if absent.iter().all(|&absent| absent) {
            if let Some(key) = file.store.key() {
                self.error(
                    key,
                    "`redis` has no `url`, no `sentinel` and no `cluster`",
                    "write `url: redis://127.0.0.1:6379/0` below it",
                );
            }
            return None;
        }
        let mut keys = [redis.url.key(), redis.sentinel.key(), redis.cluster.key()].into_iter().flatten();
        if let (Some(_), Some(second)) = (keys.next(), keys.next()) {
            let message = "`redis` is given in two shapes";
            self.error(second, message, "keep one of `url`, `sentinel` and `cluster`");
        }
        if let Some(url) = redis.url.spanned() {
            self.only_database_of_url(redis);
            if let Some(key) = redis.tls.key()
                && !url.tls
            {
                self.error(key, "`tls` is given, but the address begins with redis://", "write rediss:// in `url`");
            }
            return Some(Servers::One { address: ServerAddress::new(&url.host, url.port), database: url.database });
        }
        if let Some(sentinel) = redis.sentinel.get() {
            return self.sentinel(redis, sentinel);
        }
        self.cluster(redis)
    }

    fn only_database_of_url(&mut self, redis: &file::Redis) {
        if let Some(key) = redis.database.key() {
            self.error(key, "the database stands in `url`", "write it there: redis://host:6379/3");
        }
    }

    fn sentinel(&mut self, redis: &file::Redis, sentinel: &file::Sentinel) -> Option<Servers> {
        if let Some(key) = redis.sentinel.key() {
            if sentinel.master.is_absent() {
                self.error(key, "`sentinel` has no `master`", "write the name that `sentinel monitor NAME …` gives it");
            }
            if sentinel.nodes.is_absent() {
                self.error(key, "`sentinel` has no `nodes`", "list the sentinels: [10.0.0.1:26379, 10.0.0.2:26379]");
            }
        }
        let database = self.number(&redis.database, 0, 0..=16_383);
        let password = self.password(&sentinel.password_file, &sentinel.password, None);
        Some(Servers::Sentinel(Box::new(SentinelSettings {
            master: sentinel.master.get()?.0.as_str().into(),
            nodes: self.nodes(&sentinel.nodes)?,
            database: i64::try_from(database).unwrap_or(0),
            username: sentinel.username.get().cloned(),
            password,
        })))
    }

    fn cluster(&mut self, redis: &file::Redis) -> Option<Servers> {
        if let Some(key) = redis.database.key() {
            self.error(key, "a cluster has only the database 0", "leave `database` out");
        }
        self.nodes(&redis.cluster).map(Servers::Cluster)
    }

    /// The nodes of a list, of which there must be one.
    fn nodes(&mut self, setting: &Setting<OneOrMany<RedisNode>>) -> Option<Vec<ServerAddress>> {
        let nodes: Vec<_> = setting.get()?.0.iter().map(|node| node.value.0.clone()).collect();
        if let (true, Some(key)) = (nodes.is_empty(), setting.key()) {
            self.error(key, "this list names no node", "write host:port, such as 10.0.0.1:6379");
        }
        Some(nodes)
    }

    /// Slots are a Cluster's.
    pub(super) fn hash_tag(&mut self, redis: &file::Redis) {
        if let Some(key) = redis.hash_tag.key()
            && redis.cluster.is_absent()
        {
            self.error(key, "`hash_tag` has a meaning with `cluster` only", "leave it out: one server needs no groups");
        }
    }
}

/// With `hash_tag: route`, which limit's keys are tagged with which route. Limits of every request are
/// keyed the same on every route, so they are tagged only where one route takes everything.
pub(super) fn tag_routes(config: &mut Config, file: &File) {
    let Some(Short::Long(store)) = file.store.get() else { return };
    let tag = store.redis.get().map(|redis| redis.hash_tag.or(file::HashTag::Subject));
    let Backend::Redis(redis) = &mut config.store.backend else { return };
    if tag != Some(file::HashTag::Route) {
        return;
    }
    let routes: Vec<_> = config.router.routes().filter(|route| !route.name.is_empty()).collect();
    let alone = matches!(&routes[..], [route] if route.matches.is_everything());
    let global = config.router.routes().last().filter(|_| !alone);
    let is_global = |index| global.is_some_and(|route| route.policies.iter().any(|policy| policy.index == index));
    let mut tags = HashMap::new();
    for route in routes {
        let own = route.policies.iter().filter(|policy| !is_global(policy.index));
        tags.extend(own.map(|policy| (Box::from(&*policy.name), Box::from(&*route.name))));
    }
    redis.hash_tags = HashTags::Route(Arc::new(tags));
}
