//! The whole process but its arguments: starts the threads, knows the addresses, ends them in order.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::config::{Config, ShutdownSettings};
use crate::limit::stats::LimitStats;
use crate::limit::store::memory::MemoryStore;
use crate::proxy::connection::Phase;
use crate::proxy::listener;
use crate::telemetry::metrics::Sources;
use crate::telemetry::{AccessLog, WorkerStats};
use crate::upstream::{Address, echo};
use crate::worker::caps::Caps;
use crate::worker::{self, Worker};

/// The admin address of a configuration that names none. When it is taken, another proxy probably
/// runs on this machine; that is no reason not to start.
pub const DEFAULT_ADMIN_PORT: u16 = 9901;

/// A running proxy. The tests' entrance too. Dropping it ends its threads without a drain.
#[derive(Debug)]
pub struct Server {
    /// Real addresses by listener name; the admin listener last, as `admin`.
    addresses: Vec<(Arc<str>, SocketAddr)>,
    /// How far from its end; every thread listens.
    phase: watch::Sender<Phase>,
    /// Closed when the last worker has ended.
    ended: mpsc::Receiver<Infallible>,
    /// How to end.
    shutdown: ShutdownSettings,
    /// Every thread but the access log's.
    threads: Vec<JoinHandle<()>>,
    /// Flushed at the end.
    access_log: Option<AccessLog>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Which listener.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Every socket of the process, bound before any thread starts.
struct Sockets {
    /// By listener, then by worker.
    listeners: Vec<Vec<TcpListener>>,
    /// The admin listener's.
    admin: Option<TcpListener>,
    /// The echo upstream's.
    echo: Option<TcpListener>,
}

impl Server {
    /// Binds every address, then starts the workers, the echo upstream and the admin listener.
    ///
    /// # Errors
    /// When an address cannot be bound or a thread not be started; then nothing is left running.
    pub fn start(config: Arc<Config>) -> Result<Self, StartError> {
        let sockets = Sockets::bind(&config)?;
        let addresses = sockets.addresses(&config)?;
        let (phase, _) = watch::channel(Phase::Running);
        let (alive, ended) = mpsc::channel(1);
        let access_log = config.access_log.as_ref().map(AccessLog::start).transpose()?;
        let shutdown = config.shutdown;
        let mut server = Self { addresses, phase, ended, shutdown, threads: Vec::new(), access_log };
        server.spawn(config, sockets, &alive)?;
        for (listener, address) in &server.addresses {
            tracing::info!(listener = &**listener, %address, "listening");
        }
        Ok(server)
    }

    /// The listeners' real addresses, by name; the admin listener's is called `admin`.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.addresses.clone()
    }

    /// Completes when every worker has ended; before [`Server::shutdown`] only if all of them failed.
    pub async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
    }

    /// Ends in order: not ready any more, after `shutdown.delay` no new connections, and
    /// `shutdown.grace` later no old ones either. Completes as soon as no worker is left.
    pub async fn shutdown(&mut self) {
        self.phase.send_replace(Phase::Leaving);
        tokio::time::sleep(self.shutdown.delay).await;
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(self.shutdown.grace, self.ended()).await.is_err() {
            tracing::warn!(grace = ?self.shutdown.grace, "connections still open after the grace period are cut");
        }
        self.stop();
    }

    /// Ends at once: every connection is cut.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopped);
    }

    /// Waits (blocking) for the threads of a server that was shut down or stopped.
    pub fn wait(mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread had panicked");
            }
        }
        if let Some(access_log) = &self.access_log {
            access_log.flush();
        }
    }

    /// Starts the threads.
    fn spawn(&mut self, config: Arc<Config>, sockets: Sockets, alive: &mpsc::Sender<Infallible>) -> io::Result<()> {
        let caps = Arc::new(Caps::new(&config));
        let memory = Arc::new(MemoryStore::new(config.store.max_keys));
        let echo = sockets.echo.as_ref().map(TcpListener::local_addr).transpose()?;
        let endpoints = config.upstreams.iter().map(|upstream| upstream.endpoints.len()).sum();
        let mut sources = Sources::new(Arc::clone(&config), Arc::clone(&memory), self.access_log.clone());
        let shared = Arc::new(ArcSwap::new(Arc::clone(&config)));
        for (index, sockets) in by_worker(sockets.listeners, config.workers).into_iter().enumerate() {
            let worker = Worker {
                sockets,
                config: Arc::clone(&shared),
                memory: Arc::clone(&memory),
                stats: Arc::new(WorkerStats::new(config.listeners.len(), config.router.routes().count(), endpoints)),
                limit_stats: Arc::new(LimitStats::new(config.policies.len())),
                access_log: self.access_log.clone(),
                echo,
                caps: Arc::clone(&caps),
                phase: self.phase.subscribe(),
                alive: alive.clone(),
            };
            sources.add(Arc::clone(&worker.stats), Arc::clone(&worker.limit_stats));
            self.thread(format!("worker-{index}"), move || worker.run())?;
        }
        if let Some(socket) = sockets.echo {
            let phase = self.phase.subscribe();
            self.thread("echo".to_owned(), move || worker::runtime()?.block_on(serve_echo(socket, phase)))?;
        }
        if let (Some(socket), Some(settings)) = (sockets.admin, &config.admin) {
            let admin = Admin::new(settings.clone(), sources, self.phase.subscribe());
            self.thread("admin".to_owned(), move || worker::runtime()?.block_on(admin.serve(socket)))?;
        }
        Ok(())
    }

    /// Starts one named thread; a failure inside it is logged, not fatal to the others.
    fn thread(&mut self, name: String, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let body = move || {
            if let Err(error) = work() {
                tracing::error!(%error, thread = std::thread::current().name(), "thread ended");
            }
        };
        self.threads.push(Builder::new().name(name).spawn(body)?);
        Ok(())
    }
}

impl Sockets {
    /// Binds everything the configuration asks for.
    fn bind(config: &Config) -> Result<Self, StartError> {
        let listeners = config.listeners.iter().map(|listener| {
            listener::bind(listener.address, config.workers).map_err(|source| StartError::Bind {
                address: listener.address,
                what: format!("listener {}", listener.name),
                source,
            })
        });
        let listeners = listeners.collect::<Result<_, _>>()?;
        let admin = config.admin.as_ref().map(|admin| bind_admin(admin.address)).transpose()?;
        let uses_echo =
            config.upstreams.iter().flat_map(|upstream| &upstream.endpoints).any(|one| one.address == Address::Echo);
        let echo = uses_echo.then(|| bind_one(SocketAddr::from(([127, 0, 0, 1], 0)), "echo upstream")).transpose()?;
        Ok(Self { listeners, admin, echo })
    }

    /// Real addresses by name.
    fn addresses(&self, config: &Config) -> io::Result<Vec<(Arc<str>, SocketAddr)>> {
        let mut addresses = Vec::new();
        for (listener, sockets) in config.listeners.iter().zip(&self.listeners) {
            for socket in sockets.iter().take(1) {
                addresses.push((Arc::clone(&listener.name), socket.local_addr()?));
            }
        }
        if let Some(socket) = &self.admin {
            addresses.push(("admin".into(), socket.local_addr()?));
        }
        Ok(addresses)
    }
}

/// The admin socket. The default address may be taken: then any free port serves.
fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    let default = SocketAddr::from(([127, 0, 0, 1], DEFAULT_ADMIN_PORT));
    match bind_one(address, "admin listener") {
        Err(StartError::Bind { source, .. }) if address == default && source.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(%address, "the default admin address is taken, using another port; set admin.address");
            bind_one(SocketAddr::from(([127, 0, 0, 1], 0)), "admin listener")
        }
        result => result,
    }
}

/// One ordinary listening socket.
fn bind_one(address: SocketAddr, what: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Bind { address, what: what.to_owned(), source })
}

/// From sockets by listener to sockets by worker.
fn by_worker(listeners: Vec<Vec<TcpListener>>, workers: usize) -> Vec<Vec<TcpListener>> {
    let mut shares: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::with_capacity(listeners.len())).collect();
    for sockets in listeners {
        for (share, socket) in shares.iter_mut().zip(sockets) {
            share.push(socket);
        }
    }
    shares
}

/// Runs the echo upstream until the process ends; requests that drain still need it.
async fn serve_echo(socket: TcpListener, mut phase: watch::Receiver<Phase>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    tokio::select! {
        () = echo::serve(socket) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopped) => {}
    }
    Ok(())
}
