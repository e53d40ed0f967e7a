//! One core: its runtime, listeners, upstream pool and limiter.

pub mod caps;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::limit::Limiter;
use crate::limit::stats::LimitStats;
use crate::limit::store::memory::MemoryStore;
use crate::proxy::connection::{self, Phase};
use crate::proxy::{Proxy, listener, pool::Pool};
use crate::telemetry::{AccessLog, WorkerStats};
use caps::{Caps, Permit};

/// What a worker is given; everything in it may cross to its thread.
#[derive(Debug)]
pub struct Worker {
    /// Its own socket of every listener, by index in [`Config::listeners`].
    pub sockets: Vec<std::net::TcpListener>,
    /// The running snapshot.
    pub config: Arc<ArcSwap<Config>>,
    /// Limiter state, shared by all workers.
    pub memory: Arc<MemoryStore>,
    /// What this worker counts about requests.
    pub stats: Arc<WorkerStats>,
    /// What this worker counts about limits.
    pub limit_stats: Arc<LimitStats>,
    /// The access log, when it is on.
    pub access_log: Option<AccessLog>,
    /// Where the built-in echo server listens, when it runs.
    pub echo: Option<SocketAddr>,
    /// Connections open on all workers.
    pub caps: Arc<Caps>,
    /// How far the process is from its end.
    pub phase: watch::Receiver<Phase>,
    /// Held until the worker has ended.
    pub alive: mpsc::Sender<Infallible>,
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
    _permit: Permit,
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
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

impl Worker {
    /// Serves until the process ends. To be called on the worker's own thread.
    ///
    /// # Errors
    /// When the runtime or a socket cannot be set up.
    pub fn run(self) -> io::Result<()> {
        runtime()?.block_on(self.serve())
    }

    /// Accepts until the drain, then waits for the connections.
    async fn serve(mut self) -> io::Result<()> {
        let (local, phase) = watch::channel(*self.phase.borrow());
        let acceptor = Rc::new(self.acceptor(phase));
        let mut loops = JoinSet::new();
        for (listener, socket) in self.sockets.drain(..).enumerate() {
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket)?;
            loops.spawn_local(Rc::clone(&acceptor).accept(listener, socket));
        }
        let mut stopped = std::pin::pin!(relay(self.phase.clone(), local));
        tokio::select! {
            () = drained(&mut loops, &acceptor.open) => {}
            () = &mut stopped => {}
        }
        Ok(())
    }

    /// Builds this worker's proxy on the current runtime.
    fn acceptor(&self, phase: watch::Receiver<Phase>) -> Acceptor {
        let limiter =
            Limiter::start(&self.config.load().store, Arc::clone(&self.memory), Arc::clone(&self.limit_stats));
        let proxy = Rc::new(Proxy {
            config: Arc::clone(&self.config),
            limiter,
            pool: Pool::new(self.echo),
            stats: Arc::clone(&self.stats),
            access_log: self.access_log.clone(),
        });
        Acceptor { proxy, caps: Arc::clone(&self.caps), phase, open: Rc::default() }
    }
}

impl Acceptor {
    /// Accepts on one listener until the drain begins.
    async fn accept(self: Rc<Self>, listener: usize, socket: TcpListener) {
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
            () = self.accept_all(listener, &socket) => {}
        }
        // Closing the socket would reset what the kernel has already accepted for us.
        let Ok(socket) = socket.into_std() else { return };
        while let Ok((stream, peer)) = socket.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.open(listener, stream, peer);
            }
        }
    }

    /// Accepts for ever.
    async fn accept_all(&self, listener: usize, socket: &TcpListener) {
        loop {
            let (stream, peer) = listener::accept(socket).await;
            self.open(listener, stream, peer);
        }
    }

    /// Serves a connection on a task of its own, if there is room for it.
    fn open(&self, listener: usize, stream: TcpStream, peer: SocketAddr) {
        let stats = &self.proxy.stats;
        let address = peer.ip().to_canonical();
        let trusted = self.proxy.config.load().trusted_proxies.iter().any(|network| network.contains(&address));
        let permit = match self.caps.admit(listener, address, trusted) {
            Ok(permit) => permit,
            Err(full) => return stats.turned_away(listener, full.label()),
        };
        stats.opened(listener);
        self.open.count.set(self.open.count.get() + 1);
        let connection =
            Connection { _permit: permit, open: Rc::clone(&self.open), stats: Arc::clone(stats), listener };
        let (proxy, phase) = (Rc::clone(&self.proxy), self.phase.clone());
        tokio::task::spawn_local(async move {
            let _connection = connection;
            connection::serve(stream, peer, listener, proxy, phase).await;
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stats.panicked();
        }
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
