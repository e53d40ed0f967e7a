//! One core: its runtime, listeners, upstream pool and limiter.

pub mod caps;
pub mod certificates;
mod connected;
mod entrances;
pub mod memory;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, watch};

use crate::config::{Config, Listener};
use crate::jwt::{Keys, Tokens};
use crate::limit::Limiter;
use crate::limit::control::Control;
use crate::limit::dynamic::DynamicOverrides;
use crate::limit::fallback::Fallback;
use crate::limit::stats::LimitStats;
use crate::limit::store::memory::MemoryStore;
use crate::limit::store::redis::log::StoreLog;
use crate::limit::store::settings::Backend;
use crate::limit::top::TopKeys;
pub use crate::proxy::connection::Phase;
use crate::proxy::handshake::Handshakes;
use crate::proxy::listener::Listening;
pub use crate::proxy::listener::{Bound, SocketFile, open, usable};
use crate::proxy::pool::Pool;
use crate::proxy::pressure::Pressure;
use crate::proxy::socket::{Peer, Socket};
use crate::proxy::{Proxy, listener};
use crate::telemetry::traces::Tracer;
use crate::telemetry::{AccessLog, WorkerStats};
use crate::upstream::{Address, echo, keeper};
use caps::Caps;
use connected::Connection;
use entrances::Entrances;
pub use entrances::Order;

/// Polls of tasks between two looks at the sockets, while there are tasks to poll. A poll takes
/// microseconds, so clocks stay true to a few milliseconds; tokio's 61 costs about 2 % more CPU.
const EVENT_INTERVAL: u32 = 256;

/// How long a worker goes on settling with the store once its last connection has closed.
const FAREWELL: Duration = Duration::from_millis(500);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The running snapshot.
    pub config: Arc<ArcSwap<Config>>,
    /// Limiter state: the store itself, or the fallback of an absent one.
    pub memory: Arc<MemoryStore>,
    /// The same, as it is used while the store is away.
    pub fallback: Arc<Fallback>,
    /// Connections open on all workers.
    pub caps: Arc<Caps>,
    /// Whether memory is scarce.
    pub pressure: Arc<Pressure>,
    /// What the workers have logged of the store.
    pub store_log: Arc<StoreLog>,
    /// The keys that tokens are verified with, when the configuration says whose.
    pub keys: Option<Arc<Keys>>,
    /// Overrides that are set while the process runs, where a limit allows any.
    pub overrides: Option<Arc<DynamicOverrides>>,
    /// What else is changed about limits while the process runs.
    pub control: Arc<Control>,
    /// The access log, when it is on.
    pub access_log: Option<AccessLog>,
    /// Where spans go, when requests are traced.
    pub tracer: Option<Tracer>,
    /// Where the built-in echo server listens, when it runs.
    pub echo: Arc<OnceLock<SocketAddr>>,
    /// How often the configuration was replaced.
    pub reloads: watch::Sender<u64>,
}

/// One worker, ready to cross to its thread.
#[derive(Debug)]
pub struct Worker {
    /// What it shares with the others.
    shared: Arc<Shared>,
    /// Its own socket of every listener.
    sockets: Vec<(Arc<Listener>, Bound)>,
    /// What it counts about requests.
    pub stats: Arc<WorkerStats>,
    /// What it counts about limits.
    pub limit_stats: Arc<LimitStats>,
    /// How far the process is from its end.
    phase: watch::Receiver<Phase>,
    /// What it is told to change.
    orders: mpsc::UnboundedReceiver<Order>,
    /// Held until it has ended.
    _alive: mpsc::Sender<Infallible>,
}

/// What the accept loops of one worker share.
#[derive(Debug)]
struct Acceptor {
    /// Serves the requests.
    proxy: Rc<Proxy>,
    /// Connections open on all workers.
    caps: Arc<Caps>,
    /// Connections open on this worker.
    open: Rc<Open>,
}

/// The connections open on this worker.
#[derive(Debug, Default)]
struct Open {
    /// How many.
    count: Cell<usize>,
    /// Told when the last one closes.
    none: Notify,
}

/// The runtime of a thread that serves: one thread, I/O and clocks.
///
/// # Errors
/// When the system gives no event queue.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build_local(LocalOptions::default())
}

/// Whether the built-in echo server is somebody's upstream.
#[must_use]
pub fn uses_echo(config: &Config) -> bool {
    let mut servers = config.upstreams.iter().flat_map(|upstream| &upstream.servers);
    servers.any(|server| server.address == Address::Echo)
}

/// Runs the built-in echo server until dropped.
///
/// # Errors
/// When the socket cannot be set up.
pub async fn serve_echo(socket: std::net::TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    echo::serve(TcpListener::from_std(socket)?).await;
    Ok(())
}

impl Shared {
    /// What the workers of a new process share.
    #[must_use]
    pub fn new(config: &Arc<Config>, access_log: Option<AccessLog>) -> Self {
        let memory = Arc::new(MemoryStore::new(config.store.max_keys));
        Self {
            config: Arc::new(ArcSwap::new(Arc::clone(config))),
            fallback: Arc::new(Fallback::new(Arc::clone(&memory))),
            memory,
            caps: Arc::default(),
            pressure: Arc::new(Pressure::new(config.max_memory)),
            store_log: Arc::default(),
            keys: config.jwt.as_ref().map(|settings| Arc::new(Keys::new(Arc::clone(settings)))),
            overrides: DynamicOverrides::new(&config.policies, &config.store.backend),
            control: Arc::default(),
            access_log,
            tracer: None,
            echo: Arc::default(),
            reloads: watch::Sender::new(0),
        }
    }

    /// The same with requests traced, if there is a tracer.
    #[must_use]
    pub fn tracing(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }
}

/// Keeps up with the overrides that stand in Redis, until dropped; at once done where there are none.
///
/// # Errors
/// None; it is one of the server's threads.
pub async fn keep_overrides(shared: Arc<Shared>) -> io::Result<()> {
    let config = shared.config.load_full();
    if let (Some(overrides), Backend::Redis(settings)) = (&shared.overrides, &config.store.backend) {
        let stats = LimitStats { store_log: Arc::clone(&shared.store_log), ..LimitStats::new() };
        Arc::clone(overrides).keep(settings, Arc::new(stats)).await;
    }
    Ok(())
}

/// Resolves the names of servers and checks them, until dropped; anew whenever the configuration was replaced.
///
/// # Errors
/// None; it is one of the server's threads.
pub async fn keep_upstreams(shared: Arc<Shared>) -> io::Result<()> {
    let mut reloads = shared.reloads.subscribe();
    loop {
        reloads.mark_unchanged();
        let config = shared.config.load_full();
        tokio::select! {
            () = keeper::keep(&config.upstreams, &config.dns, shared.echo.get().copied()) => {}
            _ = reloads.changed() => continue,
        }
        if reloads.changed().await.is_err() {
            return Ok(());
        }
    }
}

impl Worker {
    /// A worker that accepts on these sockets, one per listener, obeys orders, and holds `alive` until it has ended.
    #[must_use]
    pub fn new(
        shared: &Arc<Shared>,
        sockets: Vec<(Arc<Listener>, Bound)>,
        phase: watch::Receiver<Phase>,
        alive: &mpsc::Sender<Infallible>,
    ) -> (Self, mpsc::UnboundedSender<Order>) {
        let store_log = Arc::clone(&shared.store_log);
        let top = if shared.config.load().admin.is_some() { TopKeys::on() } else { TopKeys::default() };
        let limit_stats = LimitStats { top, store_log, ..LimitStats::new() };
        let (give, orders) = mpsc::unbounded_channel();
        let worker = Self {
            shared: Arc::clone(shared),
            sockets,
            stats: Arc::default(),
            limit_stats: Arc::new(limit_stats),
            phase,
            orders,
            _alive: alive.clone(),
        };
        (worker, give)
    }

    /// Serves until the process ends: accepts until the drain, then waits for the connections.
    ///
    /// # Errors
    /// When a socket cannot be set up.
    pub async fn serve(mut self) -> io::Result<()> {
        let acceptor = Rc::new(self.acceptor());
        let limiter = Rc::clone(&acceptor.proxy.limiter);
        let mut entrances = Entrances::new(acceptor, *self.phase.borrow());
        for (listener, socket) in self.sockets.drain(..) {
            entrances.open(listener, socket)?;
        }
        entrances.attend(self.phase.clone(), &mut self.orders).await;
        // The slots of the last requests need not wait until they end by themselves.
        let _ = tokio::time::timeout(FAREWELL, limiter.close()).await;
        Ok(())
    }

    /// Builds this worker's proxy on the current runtime.
    fn acceptor(&self) -> Acceptor {
        let shared = &self.shared;
        let config = shared.config.load();
        let proxy = Rc::new(Proxy {
            config: Arc::clone(&shared.config),
            limiter: Limiter::start(
                &config.store,
                Arc::clone(&shared.fallback),
                Arc::clone(&self.limit_stats),
                Arc::clone(&shared.control),
            ),
            tokens: shared.keys.as_ref().map(|keys| Tokens::new(Arc::clone(keys))),
            pool: Pool::new(Arc::clone(&shared.echo)),
            pressure: Arc::clone(&shared.pressure),
            handshakes: Handshakes::default(),
            stats: Arc::clone(&self.stats),
            overrides: shared.overrides.clone(),
            access_log: shared.access_log.clone(),
            tracer: shared.tracer.clone(),
        });
        Acceptor { proxy, caps: Arc::clone(&shared.caps), open: Rc::default() }
    }
}

impl Acceptor {
    /// Accepts on one listener until the drain begins.
    async fn accept(self: Rc<Self>, listener: Arc<Listener>, socket: Listening, phase: watch::Receiver<Phase>) {
        let mut drain = phase.clone();
        // Where another process goes on after all, what waits is its own.
        let begins = drain.wait_for(|phase| *phase > Phase::Starting).await.map(|phase| *phase);
        if begins.is_ok_and(|phase| phase == Phase::Stopped) {
            return;
        }
        tokio::select! {
            biased;
            _ = drain.wait_for(|phase| *phase >= Phase::Draining) => {}
            () = self.accept_all(&listener, &socket, &phase) => {}
        }
        // Closing the socket would reset what the kernel has already accepted for us.
        let Ok(waiting) = socket.drain() else { return };
        for (socket, peer) in waiting {
            self.open(&listener, socket, peer, &phase);
        }
    }

    /// Accepts for ever.
    async fn accept_all(&self, listener: &Arc<Listener>, socket: &Listening, phase: &watch::Receiver<Phase>) {
        loop {
            let (socket, peer) = listener::accept(socket).await;
            self.open(listener, socket, peer, phase);
        }
    }

    /// Serves a connection on a task of its own, if there is room for it.
    fn open(&self, listener: &Arc<Listener>, socket: Socket, peer: Peer, phase: &watch::Receiver<Phase>) {
        let config = self.proxy.config.load();
        // As the listener is configured by now; as it was, when it is being closed.
        let listener = config.heir_of(listener).unwrap_or(listener);
        let stats = &self.proxy.stats;
        if self.proxy.pressure.sheds() {
            return stats.turned_away(listener.ordinal, "memory");
        }
        let counted = peer.ip().filter(|_| !config.trusts(peer.ip()));
        let permit = match self.caps.admit(listener, counted, config.client_ip.ipv6_prefix) {
            Ok(permit) => permit,
            Err(full) => return stats.turned_away(listener.ordinal, full.label()),
        };
        stats.opened(listener.ordinal);
        self.open.count.set(self.open.count.get() + 1);
        let (open, listener) = (Rc::clone(&self.open), Arc::clone(listener));
        let connection = Connection { permit, open, stats: Arc::clone(stats), listener };
        let (proxy, phase) = (Rc::clone(&self.proxy), phase.clone());
        let mut stopped = phase.clone();
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = connection.serve(socket, peer, proxy, phase) => {}
                // Cut here, so that what its requests have open with their limits is given back.
                _ = stopped.wait_for(|phase| *phase == Phase::Stopped) => {}
            }
        });
    }
}

impl Open {
    /// Waits until no connection is open.
    async fn none_left(&self) {
        let none = self.none.notified();
        if self.count.get() > 0 {
            none.await;
        }
    }
}
