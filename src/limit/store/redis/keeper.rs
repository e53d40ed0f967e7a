//! The background task of a worker's store: it keeps a connection, and probes while the breaker is open.
//!
//! A probe is the real script with a write on a key of its own: a server that answers PING but holds,
//! refuses or cannot store writes does not pass. Log lines tell changes of state, not repetitions.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tracing::debug;

use super::super::super::algorithm::{Algorithm, Bucket};
use super::super::super::key::Subject;
use super::super::super::stats::StoreErrorKind;
use super::super::Ask;
use super::connection::{ConnectError, Connection, Driver};
use super::log::Said;
use super::script::Script;
use super::{State, tls};

/// The first wait between two attempts to connect; it doubles up to one of the next two.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// So that decisions are exact again within a second after Redis answers.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// A server that refuses our credentials is asked less often.
const LONGEST_WAIT_REFUSED: Duration = Duration::from_secs(1);

/// Always admits and therefore always writes; the state expires within 2 ms.
const PROBE: Algorithm = Algorithm::TokenBucket(Bucket { capacity: 1_000_000, rate: 1, period: 1, tick: 1, debt: 0 });

/// Runs until it is aborted.
pub(super) async fn keep(state: Rc<State>) {
    let mut log = Log::new(&state);
    let mut tls: Option<Arc<ClientConfig>> = None;
    let mut wait = FIRST_WAIT;
    loop {
        let cause = match connect(&state, &mut tls).await {
            Ok((connection, driver)) => {
                let connection = Rc::new(connection);
                state.publish(Rc::clone(&connection));
                let (cause, proven) = tend(&state, &connection, driver, &mut log).await;
                if proven {
                    wait = FIRST_WAIT;
                }
                state.lost(cause);
                log.failing(cause);
                cause
            }
            Err(error) => {
                tls = None;
                state.count_error(error.kind);
                state.lost(error.kind);
                log.away(error.kind, &error.message);
                error.kind
            }
        };
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(longest_wait(cause));
    }
}

fn longest_wait(cause: StoreErrorKind) -> Duration {
    match cause {
        StoreErrorKind::Noauth | StoreErrorKind::Noperm => LONGEST_WAIT_REFUSED,
        _ => LONGEST_WAIT,
    }
}

async fn connect(state: &State, tls: &mut Option<Arc<ClientConfig>>) -> Result<(Connection, Driver), ConnectError> {
    if let (Some(wanted), None) = (&state.settings.tls, &tls) {
        let wanted = wanted.clone();
        let read = tokio::task::spawn_blocking(move || tls::client_config(&wanted)).await;
        *tls = Some(Arc::new(read.map_err(std::io::Error::other)??));
    }
    Connection::open(&state.settings, tls.clone()).await
}

/// Watches a published connection until it has to be replaced; says why, and whether it ever passed the probes.
async fn tend(state: &State, connection: &Connection, mut driver: Driver, log: &mut Log<'_>) -> (StoreErrorKind, bool) {
    let mut proven = false;
    let cause = loop {
        let was_closed = state.breaker.borrow().is_closed();
        if was_closed {
            tokio::select! {
                () = driver.ended() => break StoreErrorKind::Reset,
                () = state.attention.notified() => {}
            }
            let opened = state.breaker.borrow().cause();
            if let Some(cause) = opened {
                log.failing(cause);
            }
            if state.scripts_missing.take() {
                reload(state, connection).await;
            }
        } else {
            let wait = state.breaker.borrow().probe_wait(fastrand::f64());
            tokio::select! {
                () = driver.ended() => break StoreErrorKind::Reset,
                () = tokio::time::sleep(wait) => {}
            }
        }
        let failed = if was_closed { state.breaker.borrow().cause() } else { probe(state, connection, log).await };
        proven |= state.breaker.borrow().is_closed();
        if state.is_silent(Instant::now()) {
            break StoreErrorKind::Timeout;
        }
        if let Some(cause) = failed.filter(|&cause| needs_another_connection(cause)) {
            break cause;
        }
    };
    (cause, proven)
}

/// A demoted server and changed rights are left; other errors may pass on this connection.
fn needs_another_connection(cause: StoreErrorKind) -> bool {
    matches!(cause, StoreErrorKind::Readonly | StoreErrorKind::Noauth | StoreErrorKind::Noperm | StoreErrorKind::Reset)
}

/// One probe; why it failed, if it did.
async fn probe(state: &State, connection: &Connection, log: &mut Log<'_>) -> Option<StoreErrorKind> {
    let subject = Subject::from_slice(b"~probe");
    let ask = Ask::new("~probe", &PROBE, &subject, 1);
    match state.ask(connection, state.deadline(), state.clock(), &[ask]).await {
        Ok(_) => {
            let closed = state.breaker.borrow_mut().probe_succeeded(Instant::now());
            if closed {
                state.came_back();
                log.back();
            }
            None
        }
        Err(kind) => {
            state.probe_failed(kind);
            log.failing(kind);
            Some(kind)
        }
    }
}

async fn reload(state: &State, connection: &Connection) {
    debug!(store = %state.settings.display_url(), "the server forgot the scripts, loading them again");
    for script in Script::ALL {
        let loaded = tokio::time::timeout(super::connection::CONNECT_TIMEOUT, connection.load(script)).await;
        if !matches!(loaded, Ok(Ok(()))) {
            return;
        }
    }
}

/// Tells when the store goes and comes.
struct Log<'a> {
    state: &'a State,
    store: String,
    said: Said,
}

impl<'a> Log<'a> {
    fn new(state: &'a State) -> Self {
        Self { state, store: state.settings.display_url(), said: Said::default() }
    }

    /// Decisions or probes failed for this cause.
    fn failing(&mut self, cause: StoreErrorKind) {
        let reason = self.state.reason(cause);
        self.away(cause, &reason);
    }

    fn away(&mut self, cause: StoreErrorKind, error: &str) {
        self.state.stats.store_log.away(&mut self.said, &self.store, cause, error);
    }

    fn back(&mut self) {
        self.state.stats.store_log.back(&mut self.said, &self.store);
    }
}
