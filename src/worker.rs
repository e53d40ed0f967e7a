//! One core: its runtime, listeners, upstream pool and limiter.

pub mod caps;
pub mod certificates;
pub mod memory;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{Config, ProxyProtocol};
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
use crate::proxy::handshake::Turns;
use crate::proxy::listener::Listening;
pub use crate::proxy::listener::{Bound, open};
use crate::proxy::pool::Pool;
use crate::proxy::pressure::Pressure;
use crate::proxy::proxy_protocol::{self, Expected, Refused};
use crate::proxy::socket::{Peer, Socket};
use crate::proxy::{Proxy, connection, listener};
use crate::telemetry::{AccessLog, WorkerStats};
use crate::upstream::{Address, echo, keeper};
use caps::{Caps, Permit};

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
    /// Where the built-in echo server listens, when it runs.
    pub echo: Option<SocketAddr>,
}

/// One worker, ready to cross to its thread.
#[derive(Debug)]
pub struct Worker {
    /// What it shares with the others.
    shared: Arc<Shared>,
    /// Its own socket of every listener, by index in [`Config::listeners`].
    sockets: Vec<Bound>,
    /// What it counts about requests.
    pub stats: Arc<WorkerStats>,
    /// What it counts about limits.
    pub limit_stats: Arc<LimitStats>,
    /// How far the process is from its end.
    phase: watch::Receiver<Phase>,
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
    /// This worker's own copy of the phase: connections wait on it without touching other cores.
    phase: watch::Receiver<Phase>,
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

/// Accounts for one connection until its task ends, however it ends.
struct Connection {
    /// Makes room for another when dropped.
    permit: Permit,
    /// Where it is counted.
    open: Rc<Open>,
    /// Likewise, for the metrics.
    stats: Arc<WorkerStats>,
    /// Its listener's index.
    listener: usize,
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
    pub fn new(config: &Arc<Config>, access_log: Option<AccessLog>, echo: Option<SocketAddr>) -> Self {
        let memory = Arc::new(MemoryStore::new(config.store.max_keys));
        Self {
            config: Arc::new(ArcSwap::new(Arc::clone(config))),
            fallback: Arc::new(Fallback::new(Arc::clone(&memory))),
            memory,
            caps: Arc::new(Caps::new(config)),
            pressure: Arc::new(Pressure::new(config.max_memory)),
            store_log: Arc::default(),
            keys: config.jwt.as_ref().map(|settings| Arc::new(Keys::new(Arc::clone(settings)))),
            overrides: DynamicOverrides::new(&config.policies, &config.store.backend),
            control: Arc::default(),
            access_log,
            echo,
        }
    }
}

/// Keeps up with the overrides that stand in Redis, until dropped; at once done where there are none.
///
/// # Errors
/// None; it is one of the server's threads.
pub async fn keep_overrides(shared: Arc<Shared>) -> io::Result<()> {
    let config = shared.config.load_full();
    if let (Some(overrides), Backend::Redis(settings)) = (&shared.overrides, &config.store.backend) {
        let stats = LimitStats { store_log: Arc::clone(&shared.store_log), ..LimitStats::new(0) };
        Arc::clone(overrides).keep(settings, Arc::new(stats)).await;
    }
    Ok(())
}

/// Resolves the names of servers and checks them, until dropped.
///
/// # Errors
/// None; it is one of the server's threads.
pub async fn keep_upstreams(shared: Arc<Shared>) -> io::Result<()> {
    let config = shared.config.load_full();
    keeper::keep(&config.upstreams, &config.dns, shared.echo).await;
    Ok(())
}

impl Worker {
    /// A worker that accepts on these sockets, one per listener, and holds `alive` until it has ended.
    #[must_use]
    pub fn new(
        shared: &Arc<Shared>,
        sockets: Vec<Bound>,
        phase: watch::Receiver<Phase>,
        alive: &mpsc::Sender<Infallible>,
    ) -> Self {
        let config = shared.config.load();
        let endpoints = config.upstreams.iter().map(|upstream| upstream.servers.len()).sum();
        let store_log = Arc::clone(&shared.store_log);
        let top = if config.admin.is_some() { TopKeys::of(config.policies.len()) } else { TopKeys::default() };
        let limit_stats = LimitStats { top, store_log, ..LimitStats::new(config.policies.len()) };
        let stats = WorkerStats::new(config.listeners.len(), config.router.routes().count(), endpoints);
        Self {
            shared: Arc::clone(shared),
            sockets,
            stats: Arc::new(stats),
            limit_stats: Arc::new(limit_stats),
            phase,
            _alive: alive.clone(),
        }
    }

    /// Serves until the process ends: accepts until the drain, then waits for the connections.
    ///
    /// # Errors
    /// When a socket cannot be set up.
    pub async fn serve(mut self) -> io::Result<()> {
        let (local, phase) = watch::channel(*self.phase.borrow());
        let acceptor = Rc::new(self.acceptor(phase));
        let mut loops = JoinSet::new();
        for (listener, socket) in self.sockets.drain(..).enumerate() {
            loops.spawn_local(Rc::clone(&acceptor).accept(listener, Listening::begin(socket)?));
        }
        tokio::select! {
            () = drained(&mut loops, &acceptor.open) => {}
            () = relay(self.phase.clone(), local) => {}
        }
        // The slots of the last requests need not wait until they end by themselves.
        let _ = tokio::time::timeout(FAREWELL, acceptor.proxy.limiter.close()).await;
        Ok(())
    }

    /// Builds this worker's proxy on the current runtime.
    fn acceptor(&self, phase: watch::Receiver<Phase>) -> Acceptor {
        let shared = &self.shared;
        let config = shared.config.load();
        let handshakes =
            config.listeners.iter().map(|listener| listener.tls.as_ref().map_or(1, |tls| tls.max_handshakes));
        let proxy = Rc::new(Proxy {
            config: Arc::clone(&shared.config),
            limiter: Limiter::start(
                &config.store,
                Arc::clone(&shared.fallback),
                Arc::clone(&self.limit_stats),
                Arc::clone(&shared.control),
            ),
            tokens: shared.keys.as_ref().map(|keys| Tokens::new(Arc::clone(keys))),
            pool: Pool::new(shared.echo),
            pressure: Arc::clone(&shared.pressure),
            handshakes: handshakes.map(Turns::new).collect(),
            stats: Arc::clone(&self.stats),
            overrides: shared.overrides.clone(),
            access_log: shared.access_log.clone(),
        });
        Acceptor { proxy, caps: Arc::clone(&shared.caps), phase, open: Rc::default() }
    }
}

impl Acceptor {
    /// Accepts on one listener until the drain begins.
    async fn accept(self: Rc<Self>, listener: usize, socket: Listening) {
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
            () = self.accept_all(listener, &socket) => {}
        }
        // Closing the socket would reset what the kernel has already accepted for us.
        let Ok(waiting) = socket.drain() else { return };
        for (socket, peer) in waiting {
            self.open(listener, socket, peer);
        }
    }

    /// Accepts for ever.
    async fn accept_all(&self, listener: usize, socket: &Listening) {
        loop {
            let (socket, peer) = listener::accept(socket).await;
            self.open(listener, socket, peer);
        }
    }

    /// Serves a connection on a task of its own, if there is room for it.
    fn open(&self, listener: usize, socket: Socket, peer: Peer) {
        let stats = &self.proxy.stats;
        if self.proxy.pressure.sheds() {
            return stats.turned_away(listener, "memory");
        }
        let counted = peer.ip().filter(|_| !self.proxy.config.load().trusts(peer.ip()));
        let permit = match self.caps.admit(listener, counted) {
            Ok(permit) => permit,
            Err(full) => return stats.turned_away(listener, full.label()),
        };
        stats.opened(listener);
        self.open.count.set(self.open.count.get() + 1);
        let connection = Connection { permit, open: Rc::clone(&self.open), stats: Arc::clone(stats), listener };
        let (proxy, phase) = (Rc::clone(&self.proxy), self.phase.clone());
        let mut stopped = self.phase.clone();
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = connection.serve(socket, peer, proxy, phase) => {}
                // Cut here, so that what its requests have open with their limits is given back.
                _ = stopped.wait_for(|phase| *phase == Phase::Stopped) => {}
            }
        });
    }
}

impl Connection {
    /// Serves it until it ends, once it is clear who the client is.
    async fn serve(mut self, mut socket: Socket, peer: Peer, proxy: Rc<Proxy>, phase: watch::Receiver<Phase>) {
        let introduced = tokio::select! {
            biased;
            introduced = self.introduced(&mut socket, peer, &proxy) => introduced,
            () = connection::farewell(phase.clone()) => return,
        };
        match introduced {
            Ok(peer) => connection::serve(socket, peer, self.listener, proxy, phase).await,
            Err(reason) => {
                tracing::debug!(%peer, reason, "connection refused");
                self.stats.turned_away(self.listener, reason);
            }
        }
    }

    /// The client: the peer, or whom a load balancer tells of; that one is counted by its own address.
    async fn introduced(&mut self, socket: &mut Socket, peer: Peer, proxy: &Proxy) -> Result<Peer, &'static str> {
        let config = proxy.config.load_full();
        let Some(settings) = config.listeners.get(self.listener) else { return Ok(peer) };
        let expected = match settings.proxy_protocol {
            ProxyProtocol::Never => return Ok(peer),
            ProxyProtocol::Optional => Expected::Perhaps,
            ProxyProtocol::Required => Expected::Always,
        };
        if !config.trusts(peer.ip()) {
            // Where there may be none, its header is read as a request, and is a bad one.
            return if expected == Expected::Perhaps { Ok(peer) } else { Err(Refused::Untrusted.label()) };
        }
        let limit = settings.header_timeout;
        let client = proxy_protocol::read(socket, peer, expected, limit).await.map_err(Refused::label)?;
        let counted = client.ip().filter(|address| !config.trusts(Some(*address)));
        self.permit.count(counted).map_err(caps::Full::label)?;
        Ok(client)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.closed(self.listener);
        let count = self.open.count.get() - 1;
        self.open.count.set(count);
        if count == 0 {
            self.open.none.notify_waiters();
        }
    }
}

/// Waits until nothing is accepted any more and no connection is open.
async fn drained(loops: &mut JoinSet<()>, open: &Open) {
    while loops.join_next().await.is_some() {}
    let none = open.none.notified();
    if open.count.get() > 0 {
        none.await;
    }
}

/// Passes the process' phase on to this worker's connections; returns when it is to stop at once,
/// or when the server was dropped.
async fn relay(mut process: watch::Receiver<Phase>, worker: watch::Sender<Phase>) {
    loop {
        let phase = *process.borrow_and_update();
        worker.send_replace(phase);
        if phase == Phase::Stopped || process.changed().await.is_err() {
            return;
        }
    }
}
