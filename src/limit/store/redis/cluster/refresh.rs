//! The background task that keeps the map of slots: read at the start, after redirections, while a shard is
//! away (a replica may take its place), and now and then.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::super::connection::ConnectError;
use super::super::control::Control;
use super::super::login::Login;
use super::{Inner, MOST_NODES, map};
use crate::limit::store::settings::ServerAddress;
use map::Range;

/// Redirections within this are answered by one reading, and workers do not read in step.
const GATHER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(120));
/// Between two readings while a shard is away.
const AWAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));
/// Between two readings while nothing seems to change.
const QUIET: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));
/// Nodes that do not answer are asked one after the other for this long.
const LONGEST: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(super) async fn refresh(inner: Rc<Inner>) {
    for round in 0.. {
        match read(&inner, round).await {
            Ok(ranges) => inner.install(&ranges),
            Err(error) => failed(&inner, error),
        }
        pause(&inner).await;
    }
}

async fn pause(inner: &Inner) {
    if !inner.shared.is_whole() {
        return tokio::time::sleep(between(AWAY)).await;
    }
    let _ = tokio::time::timeout(between(QUIET), inner.shared.changed.notified()).await;
    tokio::time::sleep(between(GATHER)).await;
}

fn between((least, most): (Duration, Duration)) -> Duration {
    least + most.saturating_sub(least).mul_f64(fastrand::f64())
}

/// An old map is better than none.
fn failed(inner: &Inner, error: ConnectError) {
    inner.shared.count_error(error.kind);
    inner.shared.tls.forget();
    if inner.nodes.borrow().is_empty() {
        inner.unmapped(&error.into());
    } else {
        debug!(%error, "the map of slots could not be read");
    }
}

/// The map of the first node that has one.
async fn read(inner: &Inner, round: usize) -> Result<Vec<Range>, ConnectError> {
    let began = Instant::now();
    let mut failure = None;
    for address in candidates(inner, round) {
        match read_from(inner, &address).await {
            Ok(ranges) => return Ok(ranges),
            Err(error) => failure = Some(error),
        }
        if began.elapsed() >= LONGEST {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::protocol("there is no node to ask for the map of slots")))
}

/// Whom to ask: whoever a redirection led to last, then nodes that answer decisions, then all that are known;
/// each round begins with another one.
fn candidates(inner: &Inner, round: usize) -> Vec<ServerAddress> {
    let nodes = inner.nodes.borrow();
    let (mut up, mut others) = (Vec::new(), inner.seeds.clone());
    for member in &*nodes {
        let list = if member.kept.node().is_up() { &mut up } else { &mut others };
        list.push(member.address.clone());
    }
    for list in [&mut up, &mut others] {
        let begin = round % list.len().max(1);
        list.rotate_left(begin);
    }
    let mut candidates = Vec::new();
    for address in inner.newest.take().into_iter().chain(up).chain(others) {
        if !candidates.contains(&address) {
            candidates.push(address);
        }
    }
    candidates
}

async fn read_from(inner: &Inner, address: &ServerAddress) -> Result<Vec<Range>, ConnectError> {
    let settings = &inner.shared.settings;
    let login = Login::of_servers(settings).await;
    let control = Control::open(address, login, inner.shared.tls.config().await?).await?;
    let answer = control.ask(&["CLUSTER", "SLOTS"]).await.map_err(|error| error.at(&address.to_string()))?;
    let ranges = map::read(&answer, address)?;
    let mut nodes: Vec<_> = ranges.iter().map(|range| &range.node).collect();
    nodes.sort_by_key(|node| (&node.host, node.port));
    nodes.dedup();
    if nodes.len() > MOST_NODES {
        return Err(ConnectError::protocol(&format!("a cluster of more than {MOST_NODES} shards is not supported")));
    }
    Ok(ranges)
}
