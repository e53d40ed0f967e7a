//! The whole process but its arguments: starts the threads, knows the addresses, ends them in order.

mod descriptors;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{mpsc, watch};

use crate::admin::{Admin, metrics::Sources};
use crate::config::{AccessLogClass, AccessLogFormat, AccessLogSettings, Config, ListenAddress, ShutdownSettings};
use crate::jwt::keeper as jwt_keeper;
use crate::proxy::listener;
use crate::signal::Signals;
use crate::telemetry::{AccessLog, access_log};
use crate::upstream::keeper;
use crate::worker::{self, Bound, Phase, Shared, Worker};

/// The admin address of a configuration that names none. When it is taken, another proxy probably
/// runs on this machine; that is no reason not to start.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);

/// A running proxy. The tests' entrance too. Dropping it ends its threads without a drain.
#[derive(Debug)]
pub struct Server {
    /// Real addresses by listener name; the admin listener last, as `admin`.
    addresses: Vec<(Arc<str>, ListenAddress)>,
    /// How far from its end; every thread listens.
    phase: watch::Sender<Phase>,
    /// What `/readyz` says.
    ready: Arc<AtomicBool>,
    /// Closed when the last worker has ended.
    workers: mpsc::Receiver<Infallible>,
    /// How to end.
    shutdown: ShutdownSettings,
    /// Every thread but those of the logs.
    threads: Vec<JoinHandle<()>>,
    /// Flushed at the end.
    access_log: Option<AccessLog>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address} ({what}): {}", obstacle(address, cause))]
    Bind {
        /// The address.
        address: ListenAddress,
        /// Which listener.
        what: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// Why a process did not run to its ordinary end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gave no event queue or no signal handlers.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// No worker is left; the log says why.
    #[error("every worker has failed")]
    Failed,
}

/// Every socket of the process, bound before any thread starts.
#[derive(Debug)]
struct Sockets {
    /// By listener, then by worker.
    listeners: Vec<Vec<Bound>>,
    /// The admin listener's.
    admin: Option<TcpListener>,
    /// The echo upstream's.
    echo: Option<TcpListener>,
}

/// Why an address cannot be bound, and what to do.
fn obstacle(address: &ListenAddress, cause: &io::Error) -> String {
    let is_unix = matches!(address, ListenAddress::Unix(_));
    let help = match cause.kind() {
        io::ErrorKind::AddrInUse if is_unix => "another process listens there; end that one, or choose another path",
        io::ErrorKind::PermissionDenied if is_unix => "this user may not write there; choose another directory",
        io::ErrorKind::NotFound if is_unix => "the directory does not exist; create it first",
        io::ErrorKind::AddrInUse => "already in use by another process; end that one, or choose another port",
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one",
        _ => return cause.to_string(),
    };
    help.to_owned()
}

/// Runs a server until TERM or INT drains it; a second one stops it at once. `started` is told the
/// real addresses by listener name, once all of them are open.
///
/// # Errors
/// When it cannot start, or when every worker fails.
pub fn run(config: &Arc<Config>, started: impl FnOnce(&[(Arc<str>, ListenAddress)])) -> Result<(), RunError> {
    worker::runtime().map_err(RunError::Signals)?.block_on(async {
        let mut signals = Signals::listen().map_err(RunError::Signals)?;
        descriptors::raise_limit(config);
        let mut server = Server::start(config)?;
        started(&server.addresses);
        tokio::select! {
            signal = signals.end() => tracing::info!(signal, "draining"),
            () = server.ended() => return Err(RunError::Failed),
        }
        tokio::select! {
            () = server.shutdown() => {}
            signal = signals.end_again() => tracing::warn!(signal, "second signal, stopping at once"),
        }
        server.stop();
        server.wait();
        tracing::info!("stopped");
        Ok(())
    })
}

impl Server {
    /// Binds every address, then starts the workers, the echo upstream and the admin listener.
    ///
    /// # Errors
    /// When an address cannot be bound or a thread not be started; then nothing is left running.
    pub fn start(config: &Arc<Config>) -> Result<Self, StartError> {
        let sockets = Sockets::bind(config)?;
        let addresses = sockets.addresses(config)?;
        let (alive, workers) = mpsc::channel(1);
        let mut server = Self {
            addresses,
            phase: watch::Sender::new(Phase::Running),
            ready: Arc::new(AtomicBool::new(true)),
            workers,
            shutdown: config.shutdown,
            threads: Vec::new(),
            access_log: config.access_log.as_ref().map(start_access_log).transpose()?,
        };
        server.spawn(config, sockets, &alive)?;
        for (listener, address) in &server.addresses {
            tracing::info!(listener = &**listener, %address, "listening");
        }
        Ok(server)
    }

    /// The listeners' real addresses, by name; the admin listener's is called `admin`.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, ListenAddress)> {
        self.addresses.clone()
    }

    /// Completes when every worker has ended; before [`Server::shutdown`] only if all of them failed.
    pub async fn ended(&mut self) {
        while self.workers.recv().await.is_some() {}
    }

    /// Ends in order: not ready any more, after `shutdown.delay` no new connections, and
    /// `shutdown.grace` later no old ones either. Completes as soon as no worker is left.
    pub async fn shutdown(&mut self) {
        let ShutdownSettings { delay, grace } = self.shutdown;
        self.ready.store(false, Ordering::Relaxed);
        self.phase.send_replace(Phase::Leaving);
        tokio::time::sleep(delay).await;
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            tracing::warn!(?grace, "connections that are still open after the grace period are cut");
        }
        self.stop();
    }

    /// Ends at once: every connection is cut.
    pub fn stop(&self) {
        self.ready.store(false, Ordering::Relaxed);
        self.phase.send_replace(Phase::Stopped);
    }

    /// Waits (blocking) for the threads of a server that was shut down or stopped.
    pub fn wait(mut self) {
        for thread in self.threads.drain(..) {
            // A panicked thread has been logged by the panic hook.
            let _ = thread.join();
        }
        if let Some(access_log) = &self.access_log {
            access_log.flush();
        }
    }

    /// Starts the threads.
    fn spawn(&mut self, config: &Arc<Config>, sockets: Sockets, alive: &mpsc::Sender<Infallible>) -> io::Result<()> {
        let echo = sockets.echo.as_ref().map(TcpListener::local_addr).transpose()?;
        let shared = Arc::new(Shared::new(config, self.access_log.clone(), echo));
        let mut sources = Sources::new(Arc::clone(config), Arc::clone(&shared.fallback), self.access_log.clone());
        sources.show_pressure(Arc::clone(&shared.pressure));
        self.watch(config, &shared)?;
        if let Some(keys) = &shared.keys {
            sources.show_keys(Arc::clone(keys));
            let keys = Arc::clone(keys);
            self.thread("jwks", Some(Phase::Stopped), || jwt_keeper::keep(keys))?;
        }
        if let Some(socket) = sockets.echo {
            self.thread("echo", Some(Phase::Stopped), || worker::serve_echo(socket))?;
        }
        if shared.overrides.is_some() {
            let shared = Arc::clone(&shared);
            self.thread("overrides", Some(Phase::Stopped), || worker::keep_overrides(shared))?;
        }
        if keeper::is_needed(&config.upstreams) {
            let shared = Arc::clone(&shared);
            self.thread("upstreams", Some(Phase::Stopped), || worker::keep_upstreams(shared))?;
        }
        for (index, sockets) in by_worker(sockets.listeners, config.workers).into_iter().enumerate() {
            let worker = Worker::new(&shared, sockets, self.phase.subscribe(), alive);
            sources.add(Arc::clone(&worker.stats), Arc::clone(&worker.limit_stats));
            self.thread(&format!("worker-{index}"), None, || worker.serve())?;
        }
        if let (Some(socket), Some(settings)) = (sockets.admin, &config.admin) {
            let admin = Admin::new(settings, sources, Arc::clone(&self.ready))
                .with(shared.overrides.clone(), Arc::clone(&shared.control));
            self.thread("admin", Some(Phase::Stopped), || admin.serve(socket))?;
        }
        Ok(())
    }

    /// Starts what looks after certificates and memory.
    fn watch(&mut self, config: &Config, shared: &Arc<Shared>) -> io::Result<()> {
        if config.listeners.iter().any(|listener| listener.tls.is_some()) {
            let shared = Arc::clone(shared);
            self.thread("certificates", Some(Phase::Stopped), || worker::certificates::keep(shared))?;
        }
        if config.max_memory.is_some() {
            let shared = Arc::clone(shared);
            self.thread("memory", Some(Phase::Stopped), || worker::memory::watch(shared))?;
        }
        Ok(())
    }

    /// Starts one named thread with a runtime of its own, on which it runs `work` to its end or
    /// until a phase is reached. What fails inside is logged and harms no other thread.
    fn thread<F>(
        &mut self,
        name: &str,
        until: Option<Phase>,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = io::Result<()>>,
    {
        let phase = self.phase.subscribe();
        let thread = move || {
            let ended = worker::runtime().and_then(|runtime| runtime.block_on(serve_until(work(), phase, until)));
            if let Err(error) = ended {
                tracing::error!(%error, thread = std::thread::current().name(), "thread ended");
            }
        };
        self.threads.push(Builder::new().name(name.to_owned()).spawn(thread)?);
        Ok(())
    }
}

/// Runs `work` to its end or, when one is given, until a phase is reached.
async fn serve_until(
    work: impl Future<Output = io::Result<()>>,
    mut phase: watch::Receiver<Phase>,
    until: Option<Phase>,
) -> io::Result<()> {
    let Some(until) = until else { return work.await };
    tokio::select! {
        // A dropped server ends its threads too.
        _ = phase.wait_for(|phase| *phase >= until) => Ok(()),
        ended = work => ended,
    }
}

impl Sockets {
    /// Binds everything the configuration asks for.
    fn bind(config: &Config) -> Result<Self, StartError> {
        let listeners = config.listeners.iter().map(|listener| {
            let (address, what) = (listener.address.clone(), format!("listener {}", listener.name));
            worker::open(listener, config.workers).map_err(|cause| StartError::Bind { address, what, cause })
        });
        let listeners = listeners.collect::<Result<_, _>>()?;
        let admin = config.admin.as_ref().map(|admin| bind_admin(admin.address)).transpose()?;
        let echo = worker::uses_echo(config).then(bind_echo).transpose()?;
        Ok(Self { listeners, admin, echo })
    }

    /// Real addresses by name.
    fn addresses(&self, config: &Config) -> io::Result<Vec<(Arc<str>, ListenAddress)>> {
        let mut addresses = Vec::new();
        for (listener, sockets) in config.listeners.iter().zip(&self.listeners) {
            for socket in sockets.iter().take(1) {
                addresses.push((Arc::clone(&listener.name), socket.address()?));
            }
        }
        if let Some(socket) = &self.admin {
            addresses.push(("admin".into(), ListenAddress::Tcp(socket.local_addr()?)));
        }
        Ok(addresses)
    }
}

/// The admin socket. The default address may be taken: then any free port serves.
fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    match bind_one(address, "admin listener") {
        Err(StartError::Bind { cause, .. }) if address == DEFAULT_ADMIN && cause.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(%address, "the default admin address is taken, using another port; set admin.address");
            bind_one(SocketAddr::new(address.ip(), 0), "admin listener")
        }
        result => result,
    }
}

/// The echo upstream's socket, with room for as many waiting connections as a listener's.
fn bind_echo() -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(DEFAULT_ADMIN.ip(), 0);
    let failed =
        |cause| StartError::Bind { address: ListenAddress::Tcp(address), what: "echo upstream".to_owned(), cause };
    let mut sockets = listener::bind(address, 1).map_err(failed)?;
    sockets.pop().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))
}

/// One ordinary listening socket.
fn bind_one(address: SocketAddr, what: &str) -> Result<TcpListener, StartError> {
    let failed = |cause| StartError::Bind { address: ListenAddress::Tcp(address), what: what.to_owned(), cause };
    TcpListener::bind(address).map_err(failed)
}

/// From sockets by listener to sockets by worker.
fn by_worker(listeners: Vec<Vec<Bound>>, workers: usize) -> Vec<Vec<Bound>> {
    let mut shares: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::with_capacity(listeners.len())).collect();
    for sockets in listeners {
        for (share, socket) in shares.iter_mut().zip(sockets) {
            share.push(socket);
        }
    }
    shares
}

/// The access log on standard output. Without classes it holds every request unless sampled.
fn start_access_log(settings: &AccessLogSettings) -> io::Result<AccessLog> {
    let logs = |class| settings.only.contains(&class);
    let format = match settings.format {
        AccessLogFormat::Json => access_log::Format::Json,
        AccessLogFormat::Combined => access_log::Format::Combined,
    };
    let (limited, errors) = (logs(AccessLogClass::Limited), logs(AccessLogClass::Errors));
    AccessLog::start(access_log::Settings { format, limited, errors, sample: settings.sample }, io::stdout())
}
