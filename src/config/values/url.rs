//! The addresses of Redis.

use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word};
use crate::limit::store::settings::ServerAddress;
use crate::route::target::canonical_host;

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct RedisUrl {
    pub(in crate::config) host: String,
    pub(in crate::config) port: u16,
    pub(in crate::config) database: i64,
    pub(in crate::config) tls: bool,
    pub(in crate::config) username: Option<String>,
    pub(in crate::config) password: Option<String>,
}

const REDIS: &str = "write redis://host:6379/0, or rediss:// for TLS";

impl Word for RedisUrl {
    fn parse(text: &str) -> Result<Self, Problem> {
        // The text may hold a password: messages do not repeat it.
        let wrong = |what: &str| Problem::new(format!("this is not the address of a Redis server: {what}"), REDIS);
        let (tls, rest) = match text.split_once("://") {
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => return Err(wrong("it begins with neither redis:// nor rediss://")),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            number => number
                .parse()
                .ok()
                .filter(|number| (0..=1_000_000).contains(number))
                .ok_or_else(|| wrong("what follows the slash is not a database number"))?,
        };
        let (credentials, authority) = match authority.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, authority),
        };
        let (username, password) = credentials.map_or(Ok((None, None)), split_credentials)?;
        let host = canonical_host(authority).map_err(|_| wrong("it has no valid host and port"))?;
        if host.name.is_empty() || host.port == Some(0) {
            return Err(wrong("it has no valid host and port"));
        }
        Ok(Self {
            host: host.name.trim_matches(['[', ']']).to_owned(),
            port: host.port.unwrap_or(6379),
            database,
            tls,
            username,
            password,
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(rediss?://.*|.*\\$\\{.*)$" })
    }
}

/// A node of a Cluster, or a sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct RedisNode(pub(in crate::config) ServerAddress);

const NODE: &str = "write host:port, such as 10.0.0.1:6379 or [2001:db8::1]:6379";

impl Word for RedisNode {
    fn parse(text: &str) -> Result<Self, Problem> {
        // The text may hold a password: messages do not repeat it.
        if text.contains("://") || text.contains('@') {
            return Err(Problem::new(
                "this is a URL, and a node is only host and port",
                "write host:port; TLS is `tls: {}` beside the nodes, users and passwords have keys of their own",
            ));
        }
        let wrong = |what: &str| Problem::new(format!("`{text}` {what}"), NODE);
        if text.contains(['/', '?', '#']) {
            return Err(wrong("is not host and port"));
        }
        let host = canonical_host(text).map_err(|_| wrong("is not host and port"))?;
        match host.port {
            Some(port) if port != 0 && !host.name.is_empty() => Ok(Self(ServerAddress::new(&host.name, port))),
            _ => Err(wrong("has no valid host and port")),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([^/@]+:[0-9]+|.*\\$\\{.*)$" })
    }
}

/// `user:password`, percent-decoded; an empty part is none.
fn split_credentials(text: &str) -> Result<(Option<String>, Option<String>), Problem> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |part: &str| {
        let decoded = percent_encoding::percent_decode_str(part).decode_utf8();
        decoded.map(|decoded| Some(decoded.into_owned()).filter(|decoded| !decoded.is_empty())).map_err(|_| {
            Problem::new("the user name or password in this address is not UTF-8", "use `username` and `password_file`")
        })
    };
    Ok((decode(username)?, decode(password)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_host_and_port() {
        for (text, shown) in
            [("10.0.0.1:7000", "10.0.0.1:7000"), ("[::1]:1", "[::1]:1"), ("Redis-1:6379", "redis-1:6379")]
        {
            assert_eq!(<RedisNode as Word>::parse(text).unwrap().0.to_string(), shown);
        }
        for text in ["10.0.0.1", ":7000", "a:0", "a:70000", "a:1/0", "", "::1:6379"] {
            let problem = <RedisNode as Word>::parse(text).unwrap_err();
            assert!(problem.help.as_ref().unwrap().contains("host:port"), "{text}: {problem:?}");
        }
        let problem = <RedisNode as Word>::parse("redis://:hunter2@h:1").unwrap_err();
        assert!(!format!("{problem:?}").contains("hunter2"));
    }

    #[test]
    fn a_redis_address_is_taken_apart_and_its_password_never_repeated() {
        let url = <RedisUrl as Word>::parse("rediss://user:p%40ss@redis.internal:7000/3").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.database, url.tls), ("redis.internal", 7000, 3, true));
        assert_eq!((url.username.as_deref(), url.password.as_deref()), (Some("user"), Some("p@ss")));
        let problem = <RedisUrl as Word>::parse("redis://:hunter2@h:x/0").unwrap_err();
        assert!(!format!("{problem:?}").contains("hunter2"));
    }
}
