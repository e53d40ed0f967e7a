//! What a Cluster's node says when a slot is not, or not only, its own. Nothing was executed then.

use redis::{ServerError, Value};

use super::super::settings::ServerAddress;

/// Where the keys of a call are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot has another owner.
    Moved(ServerAddress),
    /// These keys have left already for the server that is about to own the slot.
    Ask(ServerAddress),
    /// Some of the keys have left, others have not.
    Split,
    /// Nobody has the slot.
    Unserved,
}

impl Redirect {
    /// The redirection that an answer of this node is.
    pub(super) fn of(value: &Value, from: &ServerAddress) -> Option<Self> {
        let Value::ServerError(error) = value else { return None };
        match error.code() {
            "MOVED" => target(error, from).map(Self::Moved),
            "ASK" => target(error, from).map(Self::Ask),
            "TRYAGAIN" => Some(Self::Split),
            "CLUSTERDOWN" if error.details().is_some_and(|details| details.starts_with("Hash slot")) => {
                Some(Self::Unserved)
            }
            _ => None,
        }
    }
}

/// `3999 127.0.0.1:6381`; without a host it is the one that answered.
fn target(error: &ServerError, from: &ServerAddress) -> Option<ServerAddress> {
    let (_slot, address) = error.details()?.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    Some(ServerAddress::new(if host.is_empty() { &from.host } else { host }, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Redirect> {
        let value = redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
        Redirect::of(&value, &ServerAddress::new("10.0.0.1", 7000))
    }

    #[test]
    fn redirections_are_told_from_errors() {
        let at = |host, port| ServerAddress::new(host, port);
        assert_eq!(read("MOVED 3999 127.0.0.1:6381"), Some(Redirect::Moved(at("127.0.0.1", 6381))));
        assert_eq!(read("MOVED 3999 redis-3.internal:6381"), Some(Redirect::Moved(at("redis-3.internal", 6381))));
        assert_eq!(read("MOVED 3999 ::1:6381"), Some(Redirect::Moved(at("::1", 6381))));
        assert_eq!(read("MOVED 3999 :6381"), Some(Redirect::Moved(at("10.0.0.1", 6381))));
        assert_eq!(read("ASK 3999 127.0.0.1:6381"), Some(Redirect::Ask(at("127.0.0.1", 6381))));
        assert_eq!(read("TRYAGAIN Multiple keys request during rehashing of slot"), Some(Redirect::Split));
        assert_eq!(read("CLUSTERDOWN Hash slot not served"), Some(Redirect::Unserved));
        for text in ["CLUSTERDOWN The cluster is down", "MOVED", "MOVED 1", "MOVED 1 a:b", "READONLY x", "ERR MOVED"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
