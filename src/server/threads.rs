//! The threads of a process: each has a name and a runtime of its own, and ends with a phase.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::Builder;

use tokio::sync::{mpsc, watch};

use super::Server;
use super::sockets::{Sockets, by_worker};
use crate::admin::{Admin, metrics::Sources};
use crate::config::Config;
use crate::jwt::keeper as jwt_keeper;
use crate::reload::Handle;
use crate::telemetry::traces::Exporter;
use crate::upstream::keeper;
use crate::worker::{self, Phase, Worker};

/// Which threads were started that not every configuration needs.
#[derive(Debug, Default)]
pub(super) struct Running {
    certificates: bool,
    upstreams: bool,
}

impl Server {
    /// Starts the threads.
    pub(super) fn spawn(
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
                let begins = phase.wait_for(|phase| *phase > Phase::Starting).await.map(|phase| *phase);
                if begins.is_ok_and(|phase| phase == Phase::Stopped) {
                    return Ok(());
                }
                // A dropped server ends its threads too.
                let handed_over = async { drop(handed_over.wait_for(|handed_over| *handed_over).await) };
                let stopped = async { drop(phase.wait_for(|phase| *phase >= Phase::Stopped).await) };
                admin.serve(socket, handed_over, stopped).await
            })?;
        }
        Ok(())
    }

    /// Starts what exports spans. It ends last: it has the last ones to send.
    pub(super) fn export(&mut self, exporter: Exporter) -> io::Result<()> {
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
    pub(super) fn start_keepers(&mut self, config: &Config) -> io::Result<()> {
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
    pub(super) fn start_echo(&mut self, socket: TcpListener) -> io::Result<()> {
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
