//! Another configuration takes the place of the running one: whole, or not at all.
//!
//! What may fail comes first: reading and checking it, the addresses of new listeners, new threads. Then one pointer is
//! replaced, and workers are told of listeners that came and went. Requests keep the configuration that they began
//! with; the state of limits, the health of servers and the connections to them stay.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;
use tokio::time::Instant;

use super::sockets::{Opened, bind_echo, bind_listener};
use super::{Server, StartError, descriptors, notify};
use crate::config::{Config, ListenAddress, Listener, Report};
use crate::reload::{Failure, Outcome, Source, State};
use crate::worker::{Bound, Order, uses_echo};

/// How long an address may still be taken by a listener that was closed a moment ago.
const CLOSING: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// What a new configuration needs, ready to be used.
struct Prepared {
    /// With their real addresses, and the workers' sockets.
    listeners: Vec<(Opened, ListenAddress, Vec<Bound>)>,
    echo: Option<TcpListener>,
}

impl Server {
    /// Reads the configuration again, and runs on it if it can be used and says something new. `report` is told what
    /// is wrong or doubtful about it.
    ///
    /// # Errors
    /// Why the running one stays.
    pub async fn reload(&mut self, source: &mut Source, report: &impl Fn(&Report)) -> Result<Outcome, Arc<Failure>> {
        notify(NotifyState::Reloading);
        let result = self.replace(source, report).await.map_err(Arc::new);
        notify(NotifyState::Ready);
        match &result {
            Ok(Outcome::Reloaded) => tracing::info!("configuration reloaded"),
            Ok(Outcome::Unchanged) => tracing::info!("configuration is unchanged, nothing to reload"),
            Err(failure) => {
                let why = match &**failure {
                    Failure::Wrong(found) => {
                        report(found);
                        "it has errors"
                    }
                    Failure::Refused(why) => why,
                };
                tracing::error!(why, "configuration not reloaded, the one before goes on");
            }
        }
        self.note(&result);
        result
    }

    fn note(&self, result: &Result<Outcome, Arc<Failure>>) {
        let at = SystemTime::now();
        let loaded = match result {
            Ok(Outcome::Reloaded) => at,
            _ => self.reloads.load().loaded,
        };
        self.reloads.store(Arc::new(State { loaded, at: Some(at), failure: result.as_ref().err().map(Arc::clone) }));
    }

    async fn replace(&mut self, source: &mut Source, report: &impl Fn(&Report)) -> Result<Outcome, Failure> {
        let running = self.shared.config.load_full();
        let Some(loaded) = source.read(&running).map_err(Failure::Wrong)? else { return Ok(Outcome::Unchanged) };
        if !loaded.warnings.is_empty() {
            report(&loaded.warnings);
        }
        let next = Arc::new(loaded.config);
        let fixed = running.needs_restart(&next);
        if !fixed.is_empty() {
            let what = fixed.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            return Err(Failure::Refused(format!(
                "a change of {what} takes effect only at a restart; `tollgate upgrade` makes one that refuses no connection"
            )));
        }
        let prepared = self.prepare(&next).await?;
        self.adopt(&next, prepared).map_err(refused)?;
        source.adopted(loaded.fingerprint, &next);
        Ok(Outcome::Reloaded)
    }

    /// Binds what is new.
    async fn prepare(&self, next: &Config) -> Result<Prepared, Failure> {
        let mut listeners = Vec::new();
        for listener in &next.listeners {
            let becomes = |open: &Opened| next.heir_of(&open.listener).is_some_and(|heir| Arc::ptr_eq(heir, listener));
            if !self.open.iter().any(becomes) {
                let sockets =
                    bind_patiently(listener, next.workers).await.map_err(|error| self.explained(error, listener))?;
                let address = sockets.first().map_or(Ok(listener.address.clone()), Bound::address).map_err(refused)?;
                let opened = Opened::new(listener, &sockets).map_err(refused)?;
                listeners.push((opened, address, sockets));
            }
        }
        let needs_echo = uses_echo(next) && self.shared.echo.get().is_none();
        Ok(Prepared { listeners, echo: needs_echo.then(bind_echo).transpose().map_err(refused)? })
    }

    /// Why an address could not be bound; the other listener may be one of ours, under other settings.
    fn explained(&self, error: StartError, listener: &Listener) -> Failure {
        let mut ours = self.open.iter().map(|open| &open.listener);
        let ours = ours.find(|open| open.address.is_beside(&listener.address));
        match (&error, ours) {
            (StartError::Bind { cause, .. }, Some(ours)) if cause.kind() == io::ErrorKind::AddrInUse => {
                let (name, address) = (&listener.name, &listener.address);
                Failure::Refused(format!(
                    "the listener {name} cannot move to {address}: this process listens there already, as {} on {}; \
                     that takes effect only at a restart",
                    ours.name, ours.address
                ))
            }
            _ => refused(error),
        }
    }

    /// From here on requests are under the new configuration.
    fn adopt(&mut self, next: &Arc<Config>, prepared: Prepared) -> io::Result<()> {
        if let Some(socket) = prepared.echo {
            self.start_echo(socket)?;
        }
        self.start_keepers(next)?;
        for opened in &self.open {
            opened.follow_mode(next)?;
        }
        descriptors::raise_limit(next);
        self.shared.config.store(Arc::clone(next));
        self.shutdown = next.shutdown;
        for Opened { listener, .. } in self.bequeath(next) {
            let (name, address) = (&*listener.name, &listener.address);
            tracing::info!(listener = name, %address, "closed, its connections may finish");
            self.order(|| Order::Close(Arc::clone(&listener), next.shutdown.grace));
        }
        for (opened, address, sockets) in prepared.listeners {
            let listener = &opened.listener;
            tracing::info!(listener = &*listener.name, %address, "listening");
            for (orders, socket) in self.orders.iter().zip(sockets) {
                let _ = orders.send(Order::Open(Arc::clone(listener), socket));
            }
            self.open.push(opened);
        }
        self.order(|| Order::Forget);
        self.shared.reloads.send_modify(|reloads| *reloads += 1);
        Ok(())
    }

    /// Passes what is open to the listeners that take its place; what none does is to be closed.
    fn bequeath(&mut self, next: &Config) -> Vec<Opened> {
        let mut closed = Vec::new();
        for mut opened in std::mem::take(&mut self.open) {
            match next.heir_of(&opened.listener) {
                Some(heir) => {
                    opened.listener = Arc::clone(heir);
                    self.open.push(opened);
                }
                None => closed.push(opened),
            }
        }
        closed
    }

    /// Tells every worker. One that has ended hears nothing.
    fn order(&self, order: impl Fn() -> Order) {
        for orders in &self.orders {
            let _ = orders.send(order());
        }
    }
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Refused(error.to_string())
}

async fn bind_patiently(listener: &Listener, workers: usize) -> Result<Vec<Bound>, StartError> {
    let deadline = Instant::now() + CLOSING;
    loop {
        match bind_listener(listener, workers) {
            Err(StartError::Bind { cause, .. })
                if cause.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}
