//! One server of the store, or the master behind sentinels: its connection, its breaker, and what
//! decisions learn about it. A background task keeps the connection (`keeper.rs`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use redis::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::super::key::Subject;
use super::super::super::stats::StoreErrorKind;
use super::super::breaker::Breaker;
use super::super::settings::ServerAddress;
use super::answers;
use super::clock::{Clock, own_clock};
use super::command::Command;
use super::connection::Connection;
use super::keeper;
use super::keys::KeyForm;
use super::log::{Outage, Said};
use super::order::{Asking, Order, Told};
use super::permit::InFlight;
use super::place::Place;
use super::sentinel;
use super::shared::{Absence, Shared};
use super::silence::Silence;

/// A node with its background tasks, which end when this is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    node: Rc<Node>,
    tasks: Vec<JoinHandle<()>>,
}

/// What decisions and the background tasks share.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) shared: Rc<Shared>,
    pub(super) place: Place,
    /// For the log, without credentials.
    name: String,
    connection: RefCell<Option<Rc<Connection>>>,
    pub(super) breaker: RefCell<Breaker>,
    /// The server of the last connection.
    last: RefCell<Option<ServerAddress>>,
    /// Wakes the keeper.
    pub(super) attention: Notify,
    /// Wakes decisions that came before the first attempt to connect had ended.
    tried: Notify,
    pub(super) scripts_missing: Cell<bool>,
    in_flight: Cell<usize>,
    silence: Silence,
    /// Whether a call beside decisions failed, so that a probe is to look.
    pub(super) suspected: Cell<bool>,
    pub(super) clock: Clock,
    /// The last error that the server itself told, in its words.
    refusal: RefCell<String>,
    absence: RefCell<Option<Absence>>,
    said: Cell<Said>,
    /// Whose state the probes write; in a Cluster one of a slot that the node has.
    probed: RefCell<Subject>,
}

impl Kept {
    /// Starts connecting in the background. Must be called inside a worker's runtime.
    pub(super) fn start(shared: &Rc<Shared>, place: Place) -> Self {
        let node = Rc::new(Node::new(shared, place));
        let mut tasks = vec![tokio::task::spawn_local(keeper::keep(Rc::clone(&node)))];
        if let Place::Master(sentinels) = &node.place {
            tasks.push(tokio::task::spawn_local(sentinel::watch(Rc::clone(&node), Rc::clone(sentinels))));
        }
        Self { node, tasks }
    }

    pub(super) fn node(&self) -> &Rc<Node> {
        &self.node
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Node {
    fn new(shared: &Rc<Shared>, place: Place) -> Self {
        Self {
            name: place.name(shared),
            shared: Rc::clone(shared),
            place,
            connection: RefCell::new(None),
            breaker: RefCell::new(Breaker::new(Instant::now())),
            last: RefCell::new(None),
            attention: Notify::new(),
            tried: Notify::new(),
            scripts_missing: Cell::new(false),
            in_flight: Cell::new(0),
            silence: Silence::default(),
            suspected: Cell::new(false),
            clock: Clock::default(),
            refusal: RefCell::default(),
            absence: RefCell::new(Some(Absence::begin(shared))),
            said: Cell::default(),
            probed: RefCell::new(Subject::from_slice(b"~probe")),
        }
    }

    /// Whether decisions are asked (the breaker is closed).
    pub(super) fn is_up(&self) -> bool {
        self.breaker.borrow().is_closed()
    }

    /// Whether decisions are not sent: it is away, or nothing is known of it yet.
    pub(super) fn is_away(&self) -> bool {
        !self.breaker.borrow().is_closed()
    }

    /// One call before its deadline, counted; at once an error while the breaker is open.
    pub(super) async fn call(
        &self,
        order: &Order<'_>,
        deadline: Instant,
        asking: Asking,
    ) -> Result<Told, StoreErrorKind> {
        if self.breaker.borrow().is_untried() {
            let _ = tokio::time::timeout_at(deadline.into(), self.tried.notified()).await;
        }
        let Some(connection) = self.open_connection() else {
            return Err(self.breaker.borrow().cause().unwrap_or(StoreErrorKind::Refused));
        };
        let result = self.ask(&connection, order, deadline, asking).await;
        self.learn(&connection, result.as_ref().err().copied());
        result
    }

    /// The same on this connection, whatever the breaker says.
    pub(super) async fn ask(
        &self,
        connection: &Connection,
        order: &Order<'_>,
        deadline: Instant,
        asking: Asking,
    ) -> Result<Told, StoreErrorKind> {
        let Some(_permit) = InFlight::enter(&self.in_flight) else {
            self.shared.count_error(StoreErrorKind::Timeout);
            return Err(StoreErrorKind::Timeout);
        };
        let exchange = self.exchange(connection, order, asking);
        let result = match tokio::time::timeout_at(deadline.into(), exchange).await {
            Ok(result) => result,
            Err(_) => Err(StoreErrorKind::Timeout),
        };
        if let Err(kind) = result {
            self.shared.count_error(kind);
        }
        self.silence.count(result.as_ref().err().copied());
        if self.is_silent() {
            self.attention.notify_one();
        }
        result
    }

    /// EVALSHA; a server that does not know the script gets the same call with the text, once. Neither
    /// that nor a refused clock has executed anything, so nothing is charged twice.
    async fn exchange(
        &self,
        connection: &Connection,
        order: &Order<'_>,
        asking: Asking,
    ) -> Result<Told, StoreErrorKind> {
        let form = KeyForm::of(&self.shared.settings);
        let mut now_us = order.now_us().unwrap_or_else(|| self.clock.now_us());
        let mut value = self.send(connection, &order.by_sha(connection, form, now_us), asking).await?;
        if answers::refuses_time(&value) && now_us == 0 {
            now_us = own_clock();
            value = self.send(connection, &order.by_sha(connection, form, now_us), asking).await?;
            // Rights that are missing in general are missing with our clock as well.
            if !matches!(value, Value::ServerError(_)) {
                self.use_own_clock();
            }
        }
        if answers::is_unknown_script(&value) {
            self.shared.count_error(StoreErrorKind::Noscript);
            self.scripts_missing.set(true);
            self.attention.notify_one();
            value = self.send(connection, &order.by_text(form, now_us), asking).await?;
        }
        if let Value::ServerError(error) = &value {
            *self.refusal.borrow_mut() = format!("{} {}", error.code(), error.details().unwrap_or_default());
        }
        let Place::Shard(address) = &self.place else { return order.read(value) };
        let told = order.read_from_shard(value, address);
        if matches!(told, Ok(Told::Elsewhere(_))) {
            self.shared.count_error(StoreErrorKind::Moved);
        }
        told
    }

    /// Sends a call at once; ASKING holds for the one that follows it.
    fn send(
        &self,
        connection: &Connection,
        call: &Command,
        asking: Asking,
    ) -> impl Future<Output = Result<Value, StoreErrorKind>> + use<> {
        self.shared.stats.store_calls.increment();
        let asked = (asking == Asking::Yes).then(|| connection.send(&Command::of(&["ASKING"])));
        let reply = connection.send(call);
        async move {
            if let Some(asked) = asked {
                asked.await?;
            }
            reply.await
        }
    }

    /// Sends a command that is no decision, once, while the breaker is closed. An error of the server's says
    /// nothing about decisions.
    pub(super) async fn command(&self, command: &Command, deadline: Instant) -> Result<Value, StoreErrorKind> {
        if self.breaker.borrow().is_untried() {
            let _ = tokio::time::timeout_at(deadline.into(), self.tried.notified()).await;
        }
        let Some(connection) = self.open_connection() else {
            return Err(self.breaker.borrow().cause().unwrap_or(StoreErrorKind::Refused));
        };
        let reply = match tokio::time::timeout_at(deadline.into(), connection.send(command)).await {
            Ok(reply) => reply,
            Err(_) => Err(StoreErrorKind::Timeout),
        };
        let error = reply.as_ref().err().copied();
        if let Some(kind) = error {
            self.shared.count_error(kind);
            // Such calls are too rare for the breaker to open by them.
            self.suspected.set(true);
            self.attention.notify_one();
        }
        self.silence.count(error);
        self.learn(&connection, error);
        reply
    }

    /// Sends a call whose reply nobody waits for; false when there is no connection.
    pub(super) fn post(&self, order: &Order<'_>) -> bool {
        let Some(connection) = self.open_connection() else { return false };
        let now_us = order.now_us().unwrap_or_else(|| self.clock.now_us());
        let call = order.by_sha(&connection, KeyForm::of(&self.shared.settings), now_us);
        drop(self.send(&connection, &call, Asking::No));
        true
    }

    /// The connection, if decisions may use it.
    fn open_connection(&self) -> Option<Rc<Connection>> {
        if self.is_up() { self.connection.borrow().clone() } else { None }
    }

    /// The server that there is a connection to.
    pub(super) fn is_connected_to(&self, address: &ServerAddress) -> bool {
        self.connection.borrow().as_ref().is_some_and(|connection| connection.address() == address)
    }

    /// The server lets no script read its clock.
    pub(super) fn use_own_clock(&self) {
        if self.clock.refused(&self.shared) {
            self.shared.stats.store_log.keeps_clock(&self.name);
            // Wakes the keeper, which tries the server's again and again.
            self.attention.notify_one();
        }
    }

    /// The server's scripts read its clock.
    pub(super) fn use_servers_clock(&self) {
        self.clock.given();
        self.shared.stats.store_log.gives_clock(&self.name);
    }

    /// What happened, for the log: the server's own words where it said any.
    fn reason(&self, cause: StoreErrorKind) -> String {
        match cause {
            StoreErrorKind::Refused => "there is no connection".to_owned(),
            StoreErrorKind::Reset => "the connection ended".to_owned(),
            StoreErrorKind::Timeout => {
                format!("no answer within {} ms", self.shared.settings.timeout.as_millis())
            }
            _ => self.refusal.borrow().clone(),
        }
    }

    /// Whether the peer is to be taken for dead.
    pub(super) fn is_silent(&self) -> bool {
        self.silence.is_death()
    }

    /// What a call's end says about the server, unless it was made on a connection that is gone.
    fn learn(&self, connection: &Rc<Connection>, error: Option<StoreErrorKind>) {
        if !self.connection.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, connection)) {
            return;
        }
        if self.is_up() {
            self.shared.tally.count(error);
        }
        let now = Instant::now();
        let Some(kind) = error else { return self.breaker.borrow_mut().succeeded(now) };
        let opened = self.breaker.borrow_mut().failed(now, kind);
        if opened {
            self.shared.begin_epoch();
            self.went_away();
            self.attention.notify_one();
        }
    }

    /// A new connection is ready. What the breaker knows of another server is void.
    pub(super) fn publish(&self, connection: Rc<Connection>) {
        let before = self.last.replace(Some(connection.address().clone()));
        if before.is_some_and(|before| before != *connection.address()) {
            *self.breaker.borrow_mut() = Breaker::new(Instant::now());
            self.shared.begin_epoch();
        }
        if matches!(self.place, Place::Master(_)) {
            self.shared.stats.store_log.led_to(&self.name, connection.address());
        }
        *self.connection.borrow_mut() = Some(connection);
        self.clock.given();
        self.silence.end();
        self.scripts_missing.set(false);
    }

    /// There is no connection any more, or still none.
    pub(super) fn lost(&self, cause: StoreErrorKind) {
        *self.connection.borrow_mut() = None;
        self.failed(cause);
    }

    /// A probe failed, or the connection did.
    pub(super) fn failed(&self, cause: StoreErrorKind) {
        let was_up = self.is_up();
        let opened = self.breaker.borrow_mut().open(cause);
        if opened {
            // Of one that was never asked nothing is remembered, and nothing was sent to it.
            if was_up {
                self.shared.begin_epoch();
            }
            self.went_away();
        }
        self.tried.notify_waiters();
    }

    fn went_away(&self) {
        self.absence.borrow_mut().get_or_insert_with(|| Absence::begin(&self.shared));
        self.shared.changed.notify_one();
    }

    /// A probe was answered.
    pub(super) fn probed_well(&self) {
        let closed = self.breaker.borrow_mut().probe_succeeded(Instant::now());
        if closed {
            drop(self.absence.take());
            self.tried.notify_waiters();
            self.tell_back();
        }
    }

    /// Whose state the next probe writes.
    pub(super) fn probed(&self) -> Subject {
        self.probed.borrow().clone()
    }

    /// From now on probes write this state.
    pub(super) fn probe_with(&self, subject: Subject) {
        *self.probed.borrow_mut() = subject;
    }

    /// Logs that decisions or probes fail for this cause.
    pub(super) fn tell_failing(&self, cause: StoreErrorKind) {
        self.tell_away(&Outage { cause, error: self.reason(cause), help: cause.advice() });
    }

    /// Logs that there is no server to decide.
    pub(super) fn tell_away(&self, outage: &Outage) {
        self.said.set(self.shared.stats.store_log.away(self.said.get(), &self.name, outage));
    }

    fn tell_back(&self) {
        self.said.set(self.shared.stats.store_log.back(self.said.get(), &self.name));
    }

    /// The server has no part in the store any more.
    pub(super) fn dismiss(&self) {
        self.shared.stats.store_log.dismissed(self.said.take(), &self.name);
    }

    /// For the log.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}
