//! The expanded form of what reaches Redis.

use super::{Lines, quoted};
use crate::limit::store::settings::{HashTags, RedisSettings, RedisTls, Secret, ServerAddress, Servers};
use crate::units::DurationText;

/// Everything below `redis:`.
pub(super) fn redis(out: &mut Lines, settings: &RedisSettings) {
    out.line(2, "redis:");
    match &settings.servers {
        Servers::One { address, database } => out.pair(4, "url", quoted(&settings.url(address, *database))),
        Servers::Sentinel(sentinel) => {
            out.line(4, "sentinel:");
            out.pair(6, "master", quoted(&sentinel.master));
            nodes(out, 6, "nodes", &sentinel.nodes);
            login(out, 6, sentinel.username.as_deref(), sentinel.password.as_ref());
            out.pair(4, "database", sentinel.database);
        }
        Servers::Cluster(seeds) => {
            nodes(out, 4, "cluster", seeds);
            let route = matches!(settings.hash_tags, HashTags::Route(_));
            out.pair(4, "hash_tag", if route { "route" } else { "subject" });
        }
    }
    login(out, 4, settings.username.as_deref(), settings.password.as_ref());
    if let Some(given) = &settings.tls {
        let implied = matches!(settings.servers, Servers::One { .. });
        tls(out, given, implied);
    }
    out.pair(4, "key_prefix", quoted(&settings.key_prefix));
    out.pair(4, "timeout", DurationText(settings.timeout));
}

fn nodes(out: &mut Lines, indent: usize, key: &str, nodes: &[ServerAddress]) {
    out.list(indent, key, nodes.iter().map(ToString::to_string));
}

fn login(out: &mut Lines, indent: usize, username: Option<&str>, password: Option<&Secret>) {
    if let Some(username) = username {
        out.pair(indent, "username", quoted(username));
    }
    if password.is_some() {
        out.pair(indent, "password", quoted("***"));
    }
}

fn tls(out: &mut Lines, tls: &RedisTls, implied: bool) {
    if tls.ca.is_none() && tls.client.is_none() {
        if !implied {
            out.pair(4, "tls", "{}");
        }
        return;
    }
    out.line(4, "tls:");
    let (cert, key) = tls.client.as_ref().map_or((None, None), |(cert, key)| (Some(cert), Some(key)));
    for (name, path) in [("ca", tls.ca.as_ref()), ("cert", cert), ("key", key)] {
        if let Some(path) = path {
            out.pair(6, name, quoted(&path.to_string_lossy()));
        }
    }
}
