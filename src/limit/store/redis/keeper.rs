//! The background task of a node: it keeps a connection, probes while the breaker is open, and follows
//! the master where the sentinels say it went.
//!
//! A probe is the real script with a write on a key of its own: a server that answers PING but holds,
//! refuses or cannot store writes does not pass. Log lines tell changes of state, not repetitions.

use std::rc::Rc;
use std::time::Duration;

use redis::Value;
use tracing::debug;

use super::super::super::algorithm::{Algorithm, Bucket};
use super::super::super::stats::StoreErrorKind;
use super::super::Ask;
use super::super::settings::ServerAddress;
use super::connection::{CONNECT_TIMEOUT, ConnectError, Connection, Driver};
use super::keys::KeyForm;
use super::node::Node;
use super::order::{Asking, Order, Told};
use super::place::Place;
use super::redirect::Redirect;
use super::script::Script;

/// The first wait between two attempts to connect; it doubles up to one of the next two.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// So that decisions are exact again within a second after Redis answers.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// A server that refuses our credentials is asked less often.
const LONGEST_WAIT_REFUSED: Duration = Duration::from_secs(1);
/// A server that keeps its clock from scripts is asked for it again this often.
const CLOCK_PAUSE: Duration = Duration::from_secs(10);

/// Always admits and therefore always writes; the state expires within 2 ms.
const PROBE: Algorithm = Algorithm::TokenBucket(Bucket { capacity: 1_000_000, rate: 1, period: 1, tick: 1, debt: 0 });

/// A connection that nothing uses yet.
type Opened = (Connection, Driver);

/// Why a connection is not used any more.
enum End {
    Lost(StoreErrorKind),
    /// There is a better one.
    Moved(Opened),
}

/// Runs until it is aborted.
pub(super) async fn keep(node: Rc<Node>) {
    let mut wait = FIRST_WAIT;
    loop {
        let cause = match connect(&node).await {
            Ok(opened) => {
                let (cause, proven) = stay(&node, opened).await;
                if proven {
                    wait = FIRST_WAIT;
                }
                node.lost(cause);
                node.tell_failing(cause);
                cause
            }
            Err(error) => {
                node.shared.tls.forget();
                node.shared.count_error(error.kind);
                node.lost(error.kind);
                let cause = error.kind;
                node.tell_away(&error.into());
                cause
            }
        };
        let pause = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        // Who hears of a new master need not wait.
        let _ = tokio::time::timeout(pause, announcement(&node)).await;
        wait = (wait * 2).min(longest_wait(cause));
    }
}

fn longest_wait(cause: StoreErrorKind) -> Duration {
    match cause {
        StoreErrorKind::Noauth | StoreErrorKind::Noperm => LONGEST_WAIT_REFUSED,
        _ => LONGEST_WAIT,
    }
}

async fn connect(node: &Node) -> Result<Opened, ConnectError> {
    match &node.place {
        Place::Alone(address) | Place::Shard(address) => open(node, address).await,
        Place::Master(sentinels) => sentinels.find_master(node).await,
    }
}

/// Connects to this server.
pub(super) async fn open(node: &Node, address: &ServerAddress) -> Result<Opened, ConnectError> {
    let tls = node.shared.tls.config().await?;
    Connection::open(&node.shared.settings, address, tls).await
}

/// Uses a connection and those that take its place; says why the last one ended, and whether any of them
/// ever passed the probes.
async fn stay(node: &Node, mut opened: Opened) -> (StoreErrorKind, bool) {
    let mut proven = false;
    loop {
        let (connection, driver) = opened;
        let connection = Rc::new(connection);
        node.publish(Rc::clone(&connection));
        match tend(node, &connection, driver, &mut proven).await {
            End::Lost(cause) => return (cause, proven),
            End::Moved(next) => opened = next,
        }
    }
}

/// Watches a published connection until it has to be replaced.
async fn tend(node: &Node, connection: &Connection, mut driver: Driver, proven: &mut bool) -> End {
    loop {
        let was_up = node.is_up();
        let wait = node.breaker.borrow().probe_wait(fastrand::f64());
        tokio::select! {
            () = driver.ended() => {
                node.shared.count_error(StoreErrorKind::Reset);
                return End::Lost(StoreErrorKind::Reset);
            }
            () = node.attention.notified(), if was_up => {}
            () = announcement(node) => {}
            () = tokio::time::sleep(wait), if !was_up => {}
            () = tokio::time::sleep(CLOCK_PAUSE), if was_up && node.clock.is_own() => {
                try_servers_clock(node, connection).await;
            }
        }
        if let Some(next) = follow(node).await {
            return End::Moved(next);
        }
        let mut failed = if was_up { look(node, connection).await } else { probe(node, connection).await };
        if node.suspected.take() && failed.is_none() {
            failed = probe(node, connection).await;
        }
        *proven |= node.is_up();
        if node.is_silent() {
            return End::Lost(StoreErrorKind::Timeout);
        }
        if let Some(cause) = failed.filter(|&cause| needs_another_connection(cause)) {
            return End::Lost(cause);
        }
    }
}

/// A demoted server and changed rights are left; other errors may pass on this connection.
fn needs_another_connection(cause: StoreErrorKind) -> bool {
    matches!(cause, StoreErrorKind::Readonly | StoreErrorKind::Noauth | StoreErrorKind::Noperm | StoreErrorKind::Reset)
}

/// Waits until sentinels announce a master; for ever where there are none.
async fn announcement(node: &Node) {
    match &node.place {
        Place::Master(sentinels) => sentinels.heard().await,
        Place::Alone(_) | Place::Shard(_) => std::future::pending().await,
    }
}

/// The connection to the master that the sentinels announced, if it is one.
async fn follow(node: &Node) -> Option<Opened> {
    let Place::Master(sentinels) = &node.place else { return None };
    let address = sentinels.take_announced()?;
    if node.is_connected_to(&address) {
        return None;
    }
    match open(node, &address).await {
        Ok(opened) => Some(opened),
        Err(error) => {
            debug!(store = node.name(), %address, %error, "the announced master cannot be used");
            None
        }
    }
}

/// What a decision noticed; why the breaker opened, if it did.
async fn look(node: &Node, connection: &Connection) -> Option<StoreErrorKind> {
    let opened = node.breaker.borrow().cause();
    if let Some(cause) = opened {
        node.tell_failing(cause);
    }
    if node.scripts_missing.take() {
        reload(node, connection).await;
    }
    opened
}

/// One probe; why it failed, if it did.
async fn probe(node: &Node, connection: &Connection) -> Option<StoreErrorKind> {
    let subject = node.probed();
    let ask = Ask::new("~probe", &PROBE, &subject, 1);
    let order = Order::Decide { now_us: None, asks: &[ask] };
    match node.ask(connection, &order, node.shared.deadline(), Asking::No).await {
        Ok(Told::Elsewhere(Redirect::Unserved)) => node.shared.changed.notify_one(),
        Ok(told) => {
            // A node that has no slot yet, or not this one any more, answers all the same.
            if matches!(told, Told::Elsewhere(Redirect::Moved(_))) {
                node.shared.changed.notify_one();
            }
            if !node.clock.is_own() {
                node.use_servers_clock();
            }
            node.probed_well();
        }
        Err(kind) => {
            node.failed(kind);
            node.tell_failing(kind);
            return Some(kind);
        }
    }
    None
}

/// A probe by the server's clock, which decisions do not use at the moment.
async fn try_servers_clock(node: &Node, connection: &Connection) {
    let subject = node.probed();
    let ask = Ask::new("~probe", &PROBE, &subject, 1);
    let order = Order::Decide { now_us: Some(0), asks: &[ask] };
    let call = order.by_sha(connection, KeyForm::of(&node.shared.settings), 0);
    let reply = tokio::time::timeout_at(node.shared.deadline().into(), connection.send(&call)).await;
    if matches!(reply, Ok(Ok(Value::Array(_)))) {
        node.use_servers_clock();
    }
}

async fn reload(node: &Node, connection: &Connection) {
    debug!(store = node.name(), "the server forgot the scripts, loading them again");
    for script in Script::ALL {
        let loaded = tokio::time::timeout(CONNECT_TIMEOUT, connection.load(script)).await;
        if !matches!(loaded, Ok(Ok(()))) {
            return;
        }
    }
}
