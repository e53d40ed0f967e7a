//! The whole process but its arguments: starts the threads, knows the addresses, ends them in order.

mod descriptors;
mod inherited;
mod logs;
mod reloading;
mod sockets;
mod upgrading;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{Admin, metrics::Sources};
use crate::config::{Config, ListenAddress, Loaded, Origin, Report, ShutdownSettings};
use crate::jwt::keeper as jwt_keeper;
use crate::reload::{self, Failure, Handle, Outcome, Request, Source};
use crate::signal::{Asked, LogsMoved, Signals};
use crate::telemetry::AccessLog;
use crate::telemetry::traces::Exporter;
use crate::upstream::keeper;
use crate::worker::{self, Order, Phase, Shared, Worker};
pub use inherited::Inherited;
use sockets::{Opened, Sockets, by_worker};
use upgrading::Upgrade;

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
    /// What the workers share.
    shared: Arc<Shared>,
    /// Where each worker takes orders.
    orders: Vec<mpsc::UnboundedSender<Order>>,
    /// Listeners that are open.
    open: Vec<Opened>,
    /// The admin listener's socket, as those of the others are kept.
    admin: Option<TcpListener>,
    /// Whether another process accepts from here on.
    handed_over: watch::Sender<bool>,
    /// Threads that run whatever the configuration says by now.
    running: Running,
    /// What is known of reloads.
    reloads: Arc<ArcSwap<reload::State>>,
}

/// Which threads were started that not every configuration needs.
#[derive(Debug, Default)]
struct Running {
    certificates: bool,
    upstreams: bool,
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
    /// The access log's file could not be opened.
    #[error("cannot write the access log {}: {cause}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
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

/// Runs a server, with the sockets it was given, until TERM or INT drains it; a second one stops it at once. HUP,
/// changed files and the admin listener make it read its configuration again; USR2 and the admin listener have another
/// process take its place. `started` is told the real addresses by listener name, once all of them are open; `report`
/// what is wrong or doubtful about a configuration that was read again.
///
/// # Errors
/// When it cannot start, or when every worker fails.
pub fn run(
    loaded: Loaded,
    origin: Origin,
    inherited: Inherited,
    started: impl FnOnce(&Config, &[(Arc<str>, ListenAddress)]),
    report: impl Fn(&Report),
) -> Result<(), RunError> {
    worker::runtime().map_err(RunError::Signals)?.block_on(async {
        let mut signals = Signals::listen().map_err(RunError::Signals)?;
        let mut source = Source::new(origin, &loaded);
        let config = Arc::new(loaded.config);
        descriptors::raise_limit(&config);
        let (handle, mut requests) = Handle::new();
        let moved = LogsMoved::listen().map_err(RunError::Signals)?;
        let mut server = Server::start(&config, inherited, Some(handle))?;
        tokio::task::spawn_local(logs::reopen(moved, server.log_file(&config)));
        started(&config, &server.addresses);
        drop(config);
        notify(NotifyState::Ready);
        let mut upgrade = Upgrade::default();
        loop {
            let running = Arc::clone(&server.shared.config);
            let wanted = tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Reload => Wanted::Reload(None),
                    Asked::Upgrade => Wanted::Upgrade(None),
                    Asked::End(signal) => {
                        tracing::info!(signal, "draining");
                        break;
                    }
                },
                // The process that starts has read what is configured now.
                Some(request) = requests.recv(), if !upgrade.is_under_way() => request.into(),
                () = source.change(&running), if !upgrade.is_under_way() => Wanted::Reload(None),
                () = server.ended() => return Err(RunError::Failed),
                addresses = upgrade.ready() => match addresses {
                    Some(addresses) => {
                        server.hand_over(&addresses);
                        break;
                    }
                    None => continue,
                },
            };
            match wanted {
                Wanted::Upgrade(waiting) => upgrade.begin(&server, &source, waiting),
                Wanted::Reload(waiting) => {
                    let outcome = server.reload(&mut source, &report).await;
                    // Whoever asked may have left.
                    let _ = waiting.map(|waiting| waiting.send(outcome));
                }
            }
        }
        // Whoever asks for a reload from here on is told that there will be none.
        drop((requests, upgrade));
        if !server.is_handed_over() {
            notify(NotifyState::Stopping);
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

/// What the process is asked to do, and who waits for it.
enum Wanted {
    Reload(Option<oneshot::Sender<Result<Outcome, Arc<Failure>>>>),
    Upgrade(Option<oneshot::Sender<Result<u32, String>>>),
}

impl From<Request> for Wanted {
    fn from(request: Request) -> Self {
        match request {
            Request::Reload(waiting) => Self::Reload(Some(waiting)),
            Request::Upgrade(waiting) => Self::Upgrade(Some(waiting)),
        }
    }
}

/// Tells a service manager that waits for it (`sd_notify(3)`); nobody else hears it.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

impl Server {
    /// Binds every address, then starts the workers, the echo upstream and the admin listener.
    ///
    /// # Errors
    /// When an address cannot be bound or a thread not be started; then nothing is left running.
    pub fn start(config: &Arc<Config>, inherited: Inherited, handle: Option<Handle>) -> Result<Self, StartError> {
        let sockets = Sockets::bind(config, inherited)?;
        let addresses = sockets.addresses(config)?;
        let opened = config.listeners.iter().zip(&sockets.listeners);
        let open = opened.map(|(listener, sockets)| Opened::new(listener, sockets)).collect::<io::Result<_>>()?;
        let (alive, workers) = mpsc::channel(1);
        let access_log = config.access_log.as_ref().map(logs::start).transpose()?;
        let (tracer, exporter) = config.tracing.as_ref().map(Exporter::new).unzip();
        let mut server = Self {
            addresses,
            phase: watch::Sender::new(Phase::Running),
            ready: Arc::new(AtomicBool::new(true)),
            workers,
            shutdown: config.shutdown,
            threads: Vec::new(),
            shared: Arc::new(Shared::new(config, access_log.clone()).tracing(tracer)),
            access_log,
            orders: Vec::new(),
            open,
            admin: sockets.admin.as_ref().map(TcpListener::try_clone).transpose()?,
            handed_over: watch::Sender::new(false),
            running: Running::default(),
            reloads: Arc::new(ArcSwap::from_pointee(reload::State {
                loaded: SystemTime::now(),
                at: None,
                failure: None,
            })),
        };
        if let Some(exporter) = exporter {
            server.export(exporter)?;
        }
        server.spawn(config, sockets, (&alive, handle))?;
        for (listener, address) in &server.addresses {
            tracing::info!(listener = &**listener, %address, "listening");
        }
        Ok(server)
    }

    /// The access log, where it is a file.
    fn log_file(&self, config: &Config) -> Option<AccessLog> {
        let file = config.access_log.as_ref().and_then(|settings| settings.file.as_ref());
        file.and(self.access_log.clone())
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
        if !self.is_handed_over() {
            tokio::time::sleep(delay).await;
        }
        self.open.clear();
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
    fn spawn(
        &mut self,
        config: &Arc<Config>,
        sockets: Sockets,
        (alive, handle): (&mpsc::Sender<Infallible>, Option<Handle>),
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let (running, fallback) = (Arc::clone(&shared.config), Arc::clone(&shared.fallback));
        let mut sources = Sources::new(running, fallback, self.access_log.clone());
        sources.show_pressure(Arc::clone(&shared.pressure));
        if let Some(tracer) = &shared.tracer {
            sources.show_traces(tracer.counts());
        }
        sources.show_reloads(Arc::clone(&self.reloads));
        if config.max_memory.is_some() {
            let shared = Arc::clone(&shared);
            self.thread("memory", Some(Phase::Stopped), || worker::memory::watch(shared))?;
        }
        if let Some(keys) = &shared.keys {
            sources.show_keys(Arc::clone(keys));
            let keys = Arc::clone(keys);
            self.thread("jwks", Some(Phase::Stopped), || jwt_keeper::keep(keys))?;
        }
        if shared.overrides.is_some() {
            let shared = Arc::clone(&shared);
            self.thread("overrides", Some(Phase::Stopped), || worker::keep_overrides(shared))?;
        }
        if let Some(socket) = sockets.echo {
            self.start_echo(socket)?;
        }
        self.start_keepers(config)?;
        let named: Vec<_> = config.listeners.iter().map(Arc::clone).zip(sockets.listeners).collect();
        for (index, sockets) in by_worker(named, config.workers).into_iter().enumerate() {
            let (worker, orders) = Worker::new(&shared, sockets, self.phase.subscribe(), alive);
            self.orders.push(orders);
            sources.add(Arc::clone(&worker.stats), Arc::clone(&worker.limit_stats));
            self.thread(&format!("worker-{index}"), None, || worker.serve())?;
        }
        if let (Some(socket), Some(settings)) = (sockets.admin, &config.admin) {
            let admin = Admin::new(settings, sources, Arc::clone(&self.ready))
                .with(shared.overrides.clone(), Arc::clone(&shared.control))
                .reloading(handle);
            let (mut phase, mut handed_over) = (self.phase.subscribe(), self.handed_over.subscribe());
            self.thread("admin", None, || async move {
                // A dropped server ends its threads too.
                let handed_over = async { drop(handed_over.wait_for(|handed_over| *handed_over).await) };
                let stopped = async { drop(phase.wait_for(|phase| *phase >= Phase::Stopped).await) };
                admin.serve(socket, handed_over, stopped).await
            })?;
        }
        Ok(())
    }

    /// Starts what exports spans. It ends last: it has the last ones to send.
    fn export(&mut self, exporter: Exporter) -> io::Result<()> {
        let mut phase = self.phase.subscribe();
        self.thread("traces", None, || async move {
            let stopped = async {
                // A dropped server ends its threads too.
                let _ = phase.wait_for(|phase| *phase >= Phase::Stopped).await;
            };
            exporter.run(stopped).await;
            Ok(())
        })
    }

    /// Starts what looks after certificates and servers, where that does not run yet.
    fn start_keepers(&mut self, config: &Config) -> io::Result<()> {
        let has_tls = config.listeners.iter().any(|listener| listener.tls.is_some());
        if has_tls && !std::mem::replace(&mut self.running.certificates, true) {
            let shared = Arc::clone(&self.shared);
            self.thread("certificates", Some(Phase::Stopped), || worker::certificates::keep(shared))?;
        }
        if keeper::is_needed(&config.upstreams) && !std::mem::replace(&mut self.running.upstreams, true) {
            let shared = Arc::clone(&self.shared);
            self.thread("upstreams", Some(Phase::Stopped), || worker::keep_upstreams(shared))?;
        }
        Ok(())
    }

    /// Starts the echo upstream.
    fn start_echo(&mut self, socket: TcpListener) -> io::Result<()> {
        let address = socket.local_addr()?;
        self.thread("echo", Some(Phase::Stopped), || worker::serve_echo(socket))?;
        // Once only: nobody starts a second one.
        let _ = self.shared.echo.set(address);
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
