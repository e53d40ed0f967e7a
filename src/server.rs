//! The whole process but its arguments: starts the threads, knows the addresses, ends them in order.

mod descriptors;
mod errors;
mod inherited;
mod logs;
mod reloading;
mod sockets;
mod threads;
mod upgrading;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};

use crate::config::{Config, ListenAddress, Loaded, Origin, Report, ShutdownSettings};
use crate::handover::Predecessor;
use crate::reload::{self, Failure, Handle, Request, Source};
use crate::signal::{Asked, LogsMoved, Signals};
use crate::telemetry::AccessLog;
use crate::telemetry::traces::Exporter;
use crate::worker::{self, Order, Phase, Shared};
pub use errors::{RunError, StartError};
use inherited::Inherited;
use sockets::{Opened, Sockets};
use threads::Running;
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

/// Runs a server, in the place of another process if one gives it its sockets, until TERM or INT drains it; a second
/// one stops it at once. HUP, changed files and the admin listener make it read its configuration again; USR2 and the
/// admin listener have another process take its place. `started` is told the real addresses by listener name, once all of them are open; `report`
/// what is wrong or doubtful about a configuration that was read again.
///
/// # Errors
/// When it cannot start, or when every worker fails.
pub fn run(
    loaded: Loaded,
    origin: Origin,
    predecessor: Option<Predecessor>,
    started: impl FnOnce(&Config, &[(Arc<str>, ListenAddress)]),
    report: impl Fn(&Report),
) -> Result<(), RunError> {
    worker::runtime().map_err(RunError::Signals)?.block_on(async {
        let mut signals = Signals::listen().map_err(RunError::Signals)?;
        let mut source = Source::new(origin, &loaded);
        let config = Arc::new(loaded.config);
        descriptors::raise_limit(&config);
        let (handle, mut requests) = Handle::new(source.origin());
        let moved = LogsMoved::listen().map_err(RunError::Signals)?;
        let mut server = match predecessor {
            None => Server::start(&config, Inherited::of_systemd(), Some(handle), Phase::Running)?,
            Some(predecessor) => Server::succeed(predecessor, &config, handle, &mut signals).await?,
        };
        tokio::task::spawn_local(logs::reopen(moved, server.log_file(&config)));
        started(&config, &server.addresses);
        drop(config);
        notify(NotifyState::Ready);
        let mut upgrade = Upgrade::default();
        loop {
            let running = Arc::clone(&server.shared.config);
            let wanted = tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Reload => Request::Reload(None),
                    Asked::Upgrade => Request::Upgrade(None),
                    Asked::End(signal) => {
                        tracing::info!(signal, "draining");
                        break;
                    }
                },
                Some(request) = requests.recv() => request,
                // The process that starts has read what is configured now.
                () = source.change(&running), if !upgrade.is_under_way() => Request::Reload(None),
                () = server.ended() => return Err(RunError::Failed),
                files = upgrade.ready() => match files {
                    Some(files) => {
                        server.hand_over(&files);
                        break;
                    }
                    None => continue,
                },
            };
            match wanted {
                wanted if wanted.is_abandoned() => {}
                Request::Reload(Some(waiting)) if upgrade.is_under_way() => {
                    let why = "another process is starting, which has read the configuration".to_owned();
                    let _ = waiting.send(Err(Arc::new(Failure::Refused(why))));
                }
                Request::Upgrade(waiting) => upgrade.begin(&server, &source, waiting),
                Request::Reload(waiting) => {
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
        let is_handed_over = server.is_handed_over();
        tokio::select! {
            () = server.shutdown() => {}
            signal = cut_short(&mut signals, is_handed_over) => {
                tracing::warn!(signal, "second signal, stopping at once");
            }
        }
        server.stop();
        server.wait();
        tracing::info!("stopped");
        Ok(())
    })
}

/// Waits for the signal that ends the process at once: the second one, also where the drain began without one.
async fn cut_short(signals: &mut Signals, is_first_to_come: bool) -> &'static str {
    if is_first_to_come {
        let signal = signals.end().await;
        tracing::info!(signal, "connections may still finish, as they do already");
    }
    signals.end_again().await
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
    pub fn start(
        config: &Arc<Config>,
        inherited: Inherited,
        handle: Option<Handle>,
        phase: Phase,
    ) -> Result<Self, StartError> {
        let sockets = Sockets::bind(config, inherited)?;
        let addresses = sockets.addresses(config)?;
        let opened = config.listeners.iter().zip(&sockets.listeners);
        let open = opened.map(|(listener, sockets)| Opened::new(listener, sockets)).collect::<io::Result<_>>()?;
        let (alive, workers) = mpsc::channel(1);
        let access_log = config.access_log.as_ref().map(logs::start).transpose()?;
        let (tracer, exporter) = config.tracing.as_ref().map(Exporter::new).unzip();
        let mut server = Self {
            addresses,
            phase: watch::Sender::new(phase),
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
        // Who asks at this address is meant for the other process, where there is one.
        if !self.is_handed_over() {
            self.ready.store(false, Ordering::Relaxed);
            self.phase.send_replace(Phase::Leaving);
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
        self.ready.fetch_and(self.is_handed_over(), Ordering::Relaxed);
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
}
