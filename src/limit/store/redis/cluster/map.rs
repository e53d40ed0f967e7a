//! Which node has which slots, as CLUSTER SLOTS tells it.

use redis::Value;

use super::super::connection::ConnectError;
use super::super::dial::{text, unexpected};
use super::super::keys::SLOTS;
use crate::limit::store::settings::ServerAddress;

/// Slots and the node that has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) node: ServerAddress,
}

/// No node.
const NONE: u16 = u16::MAX;

/// A node's number for each slot.
#[derive(Debug)]
pub(super) struct Owners(Box<[u16]>);

impl Owners {
    /// Nobody has anything.
    pub(super) fn new() -> Self {
        Self(vec![NONE; SLOTS].into())
    }

    pub(super) fn of(&self, slot: u16) -> Option<usize> {
        self.0.get(usize::from(slot)).filter(|&&owner| owner != NONE).map(|&owner| usize::from(owner))
    }

    pub(super) fn set(&mut self, first: u16, last: u16, owner: usize) {
        let slots = self.0.get_mut(usize::from(first)..=usize::from(last));
        slots.unwrap_or_default().fill(u16::try_from(owner).unwrap_or(NONE));
    }

    /// Nodes stand elsewhere now, or nowhere.
    pub(super) fn renumber(&mut self, places: &[Option<usize>]) {
        for owner in self.0.iter_mut().filter(|owner| **owner != NONE) {
            let place = places.get(usize::from(*owner)).copied().flatten();
            *owner = place.and_then(|place| u16::try_from(place).ok()).unwrap_or(NONE);
        }
    }

    /// Whether every slot has an owner.
    pub(super) fn is_complete(&self) -> bool {
        !self.0.contains(&NONE)
    }
}

/// Reads the answer of this node. Each entry is first slot, last slot, master, replicas; a node is host,
/// port, id, further facts.
///
/// # Errors
/// When it has another form.
pub(super) fn read(answer: &Value, from: &ServerAddress) -> Result<Vec<Range>, ConnectError> {
    let ranges = match answer {
        Value::Array(entries) => entries.iter().map(|entry| range(entry, from)).collect::<Option<_>>(),
        _ => None,
    };
    ranges.ok_or_else(|| unexpected(answer, "CLUSTER SLOTS"))
}

fn range(entry: &Value, from: &ServerAddress) -> Option<Range> {
    let Value::Array(items) = entry else { return None };
    let [first, last, Value::Array(master), ..] = &items[..] else { return None };
    let (first, last) = (slot(first)?, slot(last)?);
    let [host, Value::Int(port), further @ ..] = &master[..] else { return None };
    let host = match host {
        // A node that knows no address of its own is where it was asked.
        Value::Nil => &from.host,
        _ => match text(host)? {
            "" => &from.host,
            "?" => ip(further)?,
            host => host,
        },
    };
    let node = ServerAddress::new(host, u16::try_from(*port).ok()?);
    (first <= last).then_some(Range { first, last, node })
}

fn slot(value: &Value) -> Option<u16> {
    match value {
        Value::Int(slot) => u16::try_from(*slot).ok().filter(|&slot| usize::from(slot) < SLOTS),
        _ => None,
    }
}

/// The address of a node that is to be known by a name and has none (the `ip` among its further facts).
fn ip(further: &[Value]) -> Option<&str> {
    let [_id, facts, ..] = further else { return None };
    match facts {
        Value::Array(facts) => {
            facts.chunks_exact(2).find(|pair| text(&pair[0]) == Some("ip")).and_then(|pair| text(&pair[1]))
        }
        Value::Map(facts) => facts.iter().find(|(name, _)| text(name) == Some("ip")).and_then(|(_, ip)| text(ip)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(reply: &str) -> Result<Vec<Range>, ConnectError> {
        read(&redis::parse_redis_value(reply.as_bytes()).unwrap(), &ServerAddress::new("10.0.0.1", 7000))
    }

    fn master(host: &str, further: &str) -> Option<String> {
        let node = format!("*4\r\n{host}:7001\r\n$2\r\nid\r\n{further}");
        let ranges = parse(&format!("*1\r\n*3\r\n:0\r\n:16383\r\n{node}")).ok()?;
        Some(ranges[0].node.to_string())
    }

    #[test]
    fn masters_are_read_with_their_slots() {
        let node = |port: u16| format!("*4\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$2\r\nid\r\n*0\r\n");
        let reply =
            format!("*2\r\n*4\r\n:0\r\n:100\r\n{}{}*3\r\n:200\r\n:200\r\n{}", node(7001), node(7004), node(7002));
        let at = |port| ServerAddress::new("127.0.0.1", port);
        let expected = [Range { first: 0, last: 100, node: at(7001) }, Range { first: 200, last: 200, node: at(7002) }];
        assert_eq!(parse(&reply).unwrap(), expected);
    }

    #[test]
    fn a_node_may_not_know_its_address() {
        assert_eq!(master("$0\r\n\r\n", "*0\r\n").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(master("_\r\n", "*0\r\n").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(master("$2\r\nh1\r\n", "*0\r\n").as_deref(), Some("h1:7001"));
        let ip = "$2\r\nip\r\n$8\r\n10.0.0.9\r\n";
        assert_eq!(master("$1\r\n?\r\n", &format!("*2\r\n{ip}")).as_deref(), Some("10.0.0.9:7001"));
        assert_eq!(master("$1\r\n?\r\n", &format!("%1\r\n{ip}")).as_deref(), Some("10.0.0.9:7001"));
        assert_eq!(master("$1\r\n?\r\n", "*0\r\n"), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for reply in [
            "+OK\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n*2\r\n:0\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:5\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:70000\r\n",
            "*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
        ] {
            assert!(parse(reply).is_err(), "{reply:?}");
        }
        assert!(parse("*0\r\n").unwrap().is_empty(), "a cluster without slots");
    }

    #[test]
    fn owners_are_found_by_slot() {
        let mut owners = Owners::new();
        owners.set(0, 8000, 0);
        owners.set(8001, 16_382, 1);
        assert_eq!((owners.of(0), owners.of(8001), owners.of(16_383)), (Some(0), Some(1), None));
        assert!(!owners.is_complete());
        owners.set(16_383, 16_383, 2);
        assert!(owners.is_complete());
    }
}
