//! The Redis store: one decision is one call of one atomic script (`lua/`).
//!
//! One worker owns one store, with a connection and a breaker of its own. A decision is sent once,
//! within its deadline, and never again when its fate is unknown: a charge that may have been made is
//! not repeated. When the breaker is open a decision fails without waiting; nothing is queued for later.

mod call;
pub mod command;
pub mod connection;
mod grant;
mod keeper;
pub mod log;
mod pipeline;
mod reply;
pub mod script;
mod settle;
mod tls;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::warn;

use self::connection::Connection;
use self::script::Script;
use super::super::stats::{LimitStats, StoreErrorKind};
use super::breaker::Breaker;
use super::settings::RedisSettings;
use super::{Ask, Reply};

/// Decisions that may be under way at once; one more fails at once.
const MOST_IN_FLIGHT: usize = 4096;
/// This many calls unanswered in a row, the first of them this long ago, and the peer is taken for dead.
const SILENCE: (u32, Duration) = (3, Duration::from_millis(500));

/// One worker's store. Ends its background task when dropped.
#[derive(Debug)]
pub struct RedisStore {
    state: Rc<State>,
    keeper: JoinHandle<()>,
}

/// What the decisions and the background task share.
#[derive(Debug)]
struct State {
    settings: RedisSettings,
    stats: Arc<LimitStats>,
    connection: RefCell<Option<Rc<Connection>>>,
    breaker: RefCell<Breaker>,
    /// Wakes the background task.
    attention: Notify,
    /// Wakes decisions that came before the first attempt to connect had ended.
    tried: Notify,
    scripts_missing: Cell<bool>,
    epoch: Cell<u64>,
    in_flight: Cell<usize>,
    unanswered: Cell<u32>,
    unanswered_since: Cell<Option<Instant>>,
    /// Set once a server refused to read its clock inside scripts.
    own_clock: Cell<bool>,
    /// The last error that the server itself told, in its words.
    refusal: RefCell<String>,
}

impl RedisStore {
    /// Starts connecting in the background. Must be called inside a worker's runtime.
    #[must_use]
    pub fn start(settings: &RedisSettings, stats: Arc<LimitStats>) -> Rc<Self> {
        stats.store_up.store(0, Ordering::Relaxed);
        let state = Rc::new(State {
            settings: settings.clone(),
            stats,
            connection: RefCell::new(None),
            breaker: RefCell::new(Breaker::new(Instant::now())),
            attention: Notify::new(),
            tried: Notify::new(),
            scripts_missing: Cell::new(false),
            epoch: Cell::new(0),
            in_flight: Cell::new(0),
            unanswered: Cell::new(0),
            unanswered_since: Cell::new(None),
            own_clock: Cell::new(false),
            refusal: RefCell::default(),
        });
        let keeper = tokio::task::spawn_local(keeper::keep(Rc::clone(&state)));
        Rc::new(Self { state, keeper })
    }

    /// Decides all of `asks` at once, by the server's clock, within the configured time.
    ///
    /// # Errors
    /// As [`RedisStore::decide_before`].
    pub async fn decide(&self, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        self.decide_before(self.state.deadline(), asks).await
    }

    /// The same before a deadline, of which other waiting has taken a part.
    ///
    /// # Errors
    /// Why the store did not decide. At once while the breaker is open, otherwise within the deadline.
    /// After [`StoreErrorKind::Timeout`] and [`StoreErrorKind::Reset`] it may have charged all the same.
    pub async fn decide_before(&self, deadline: Instant, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        self.decide_by(None, deadline, asks).await
    }

    /// The same by a given clock, microseconds since 1970 (tests; 0 is the server's).
    ///
    /// # Errors
    /// As [`RedisStore::decide`].
    pub async fn decide_at(&self, now_us: i64, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        self.decide_by(Some(now_us), self.state.deadline(), asks).await
    }

    async fn decide_by(
        &self,
        now_us: Option<i64>,
        deadline: Instant,
        asks: &[Ask<'_>],
    ) -> Result<Reply, StoreErrorKind> {
        let state = &self.state;
        if state.breaker.borrow().is_untried() {
            let _ = tokio::time::timeout_at(deadline.into(), state.tried.notified()).await;
        }
        let Some(connection) = state.connection() else {
            return Err(state.breaker.borrow().cause().unwrap_or(StoreErrorKind::Refused));
        };
        let now_us = now_us.unwrap_or_else(|| state.clock());
        let result = state.ask(&connection, deadline, now_us, asks).await;
        state.learn(&connection, result.as_ref().err().copied());
        result
    }

    /// Whether decisions are asked (the breaker is closed).
    #[must_use]
    pub fn up(&self) -> bool {
        self.state.breaker.borrow().is_closed()
    }

    /// A number that changes each time the store goes away. What was remembered of it before is void then.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.state.epoch.get()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl State {
    /// The connection, if decisions may use it.
    fn connection(&self) -> Option<Rc<Connection>> {
        if self.breaker.borrow().is_closed() { self.connection.borrow().clone() } else { None }
    }

    /// What a script is given as its clock: 0, the server's, unless the server refuses that; then minus
    /// ours, by which no key may expire (`lua/prelude.lua`).
    fn clock(&self) -> i64 {
        if self.own_clock.get() { own_clock() } else { 0 }
    }

    /// When a decision that begins now has to be made.
    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// One decision before its deadline, counted.
    async fn ask(
        &self,
        connection: &Connection,
        deadline: Instant,
        now_us: i64,
        asks: &[Ask<'_>],
    ) -> Result<Reply, StoreErrorKind> {
        let Some(_permit) = InFlight::enter(&self.in_flight) else {
            self.count_error(StoreErrorKind::Timeout);
            return Err(StoreErrorKind::Timeout);
        };
        let result = match tokio::time::timeout_at(deadline.into(), self.call(connection, now_us, asks)).await {
            Ok(result) => result,
            Err(_) => Err(StoreErrorKind::Timeout),
        };
        if let Err(kind) = result {
            self.count_error(kind);
        }
        self.count_silence(result.as_ref().err().copied());
        result
    }

    /// EVALSHA; a server that does not know the script gets the same call with the text, once. Neither
    /// that nor a refused clock has executed anything, so nothing is charged twice.
    async fn call(&self, connection: &Connection, now_us: i64, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
        let script = Script::for_asks(asks);
        let prefix = &self.settings.key_prefix;
        let mut now_us = now_us;
        self.stats.store_calls.increment();
        let mut value = connection.send(&script.by_sha(connection.sha(script), prefix, now_us, asks)).await?;
        if script::refuses_time(&value) && now_us == 0 {
            now_us = own_clock();
            self.stats.store_calls.increment();
            value = connection.send(&script.by_sha(connection.sha(script), prefix, now_us, asks)).await?;
            // Rights that are missing in general are missing with our clock as well.
            if matches!(value, Value::Array(_)) {
                self.use_own_clock();
            }
        }
        if script::is_unknown_script(&value) {
            self.count_error(StoreErrorKind::Noscript);
            self.scripts_missing.set(true);
            self.attention.notify_one();
            self.stats.store_calls.increment();
            value = connection.send(&script.by_text(prefix, now_us, asks)).await?;
        }
        if let Value::ServerError(error) = &value {
            *self.refusal.borrow_mut() = format!("{} {}", error.code(), error.details().unwrap_or_default());
        }
        script::read_reply(value, asks)
    }

    /// What happened, for the log: the server's own words where it said any.
    fn reason(&self, cause: StoreErrorKind) -> String {
        match cause {
            StoreErrorKind::Refused => "there is no connection".to_owned(),
            StoreErrorKind::Reset => "the connection ended".to_owned(),
            StoreErrorKind::Timeout => format!("no answer within {} ms", self.settings.timeout.as_millis()),
            _ => self.refusal.borrow().clone(),
        }
    }

    fn use_own_clock(&self) {
        if !self.own_clock.replace(true) {
            warn!(
                store = %self.settings.display_url(),
                "redis does not let scripts read its clock: this proxy's clock is used, keep it synchronised"
            );
        }
    }

    fn count_error(&self, kind: StoreErrorKind) {
        self.stats.errors[kind as usize].increment();
    }

    fn count_silence(&self, error: Option<StoreErrorKind>) {
        if error == Some(StoreErrorKind::Timeout) {
            self.unanswered.set(self.unanswered.get().saturating_add(1));
            if self.unanswered_since.get().is_none() {
                self.unanswered_since.set(Some(Instant::now()));
            }
            if self.is_silent(Instant::now()) {
                self.attention.notify_one();
            }
        } else {
            self.unanswered.set(0);
            self.unanswered_since.set(None);
        }
    }

    /// Whether the peer has left several calls in a row unanswered for a while.
    fn is_silent(&self, now: Instant) -> bool {
        self.unanswered.get() >= SILENCE.0
            && self.unanswered_since.get().is_some_and(|since| now.saturating_duration_since(since) >= SILENCE.1)
    }

    /// What a decision's end says about the store, unless it was made on a connection that is gone.
    fn learn(&self, connection: &Rc<Connection>, error: Option<StoreErrorKind>) {
        if !self.connection.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, connection)) {
            return;
        }
        let now = Instant::now();
        let Some(kind) = error else { return self.breaker.borrow_mut().succeeded(now) };
        let opened = self.breaker.borrow_mut().failed(now, kind);
        if opened {
            self.went_away();
            self.attention.notify_one();
        }
    }

    fn publish(&self, connection: Rc<Connection>) {
        *self.connection.borrow_mut() = Some(connection);
        self.unanswered.set(0);
        self.unanswered_since.set(None);
        self.scripts_missing.set(false);
    }

    /// There is no connection any more, or still none.
    fn lost(&self, cause: StoreErrorKind) {
        *self.connection.borrow_mut() = None;
        let opened = self.breaker.borrow_mut().open(cause);
        if opened {
            self.went_away();
        }
        self.tried.notify_waiters();
    }

    fn probe_failed(&self, kind: StoreErrorKind) {
        let opened = self.breaker.borrow_mut().open(kind);
        if opened {
            self.went_away();
        }
        self.tried.notify_waiters();
    }

    fn went_away(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.stats.store_up.store(0, Ordering::Relaxed);
    }

    fn came_back(&self) {
        self.stats.store_up.store(1, Ordering::Relaxed);
        self.tried.notify_waiters();
    }
}

/// Minus this process' wall clock, microseconds since 1970.
fn own_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(-1, |since| -i64::try_from(since.as_micros()).unwrap_or(1))
}

/// One decision's place among those under way.
struct InFlight<'a>(&'a Cell<usize>);

impl<'a> InFlight<'a> {
    fn enter(count: &'a Cell<usize>) -> Option<Self> {
        if count.get() >= MOST_IN_FLIGHT {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(count))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
