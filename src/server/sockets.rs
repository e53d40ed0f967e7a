//! The addresses of a process: bound, or taken over from whoever started it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::StartError;
use super::inherited::{ADMIN, Inherited};
use crate::config::{AdminSettings, Config, ListenAddress, Listener};
use crate::handover::{Label, Passed};
use crate::proxy::listener;
use crate::worker::{self, Bound, SocketFile};

/// The admin address of a configuration that names none. When it is taken, another proxy probably
/// runs on this machine; that is no reason not to start.
const DEFAULT_ADMIN: SocketAddr = AdminSettings::DEFAULT_ADDRESS;

/// Every socket of the process, bound before any thread starts.
#[derive(Debug)]
pub(super) struct Sockets {
    /// By listener, then by worker.
    pub(super) listeners: Vec<Vec<Bound>>,
    /// The admin listener's.
    pub(super) admin: Option<TcpListener>,
    /// The echo upstream's.
    pub(super) echo: Option<TcpListener>,
}

impl Sockets {
    /// Binds everything the configuration asks for that was not given.
    pub(super) fn bind(config: &Config, mut inherited: Inherited) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let given = inherited.of(listener, config.workers)?;
            listeners.push(if given.is_empty() { bind_listener(listener, config.workers)? } else { given });
        }
        let admin = config
            .admin
            .as_ref()
            .map(|admin| inherited.of_admin(admin.address).map_or_else(|| bind_admin(admin.address), Ok));
        let admin = admin.transpose()?;
        inherited.tell_left();
        let echo = worker::uses_echo(config).then(bind_echo).transpose()?;
        Ok(Self { listeners, admin, echo })
    }

    /// Real addresses by name.
    pub(super) fn addresses(&self, config: &Config) -> io::Result<Vec<(Arc<str>, ListenAddress)>> {
        let mut addresses = Vec::new();
        for (listener, sockets) in config.listeners.iter().zip(&self.listeners) {
            for socket in sockets.iter().take(1) {
                addresses.push((Arc::clone(&listener.name), socket.address()?));
            }
        }
        if let Some(socket) = &self.admin {
            addresses.push((ADMIN.into(), ListenAddress::Tcp(socket.local_addr()?)));
        }
        Ok(addresses)
    }
}

/// A listener that is open, and its sockets once more, to be given to another process. They are dropped before the
/// workers close theirs: a socket that is open and not accepted from would keep clients waiting.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) listener: Arc<Listener>,
    sockets: Vec<Bound>,
}

impl Opened {
    /// Keeps what is needed of the sockets of a listener.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn new(listener: &Arc<Listener>, sockets: &[Bound]) -> io::Result<Self> {
        // The workers' sockets of a Unix listener are one.
        let most = if matches!(listener.address, ListenAddress::Unix(_)) { 1 } else { sockets.len() };
        let sockets = sockets.iter().take(most).map(Bound::again).collect::<io::Result<_>>()?;
        Ok(Self { listener: Arc::clone(listener), sockets })
    }

    /// Its sockets, to be given away.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn lend(&self) -> io::Result<Vec<Passed>> {
        let lend = |bound: &Bound| {
            let (socket, file) = bound.lend()?;
            let (name, configured) = (self.listener.name.to_string(), self.listener.address.to_string());
            Ok(Passed { label: Label { name, configured, file }, socket })
        };
        self.sockets.iter().map(lend).collect()
    }

    /// Lets the file of a Unix socket be as the listener in this one's place has it.
    ///
    /// # Errors
    /// When the file is not there any more.
    pub(super) fn follow_mode(&self, next: &Config) -> io::Result<()> {
        let heir = next.heir_of(&self.listener).filter(|heir| heir.mode != self.listener.mode);
        let Some(heir) = heir else { return Ok(()) };
        self.sockets.iter().try_for_each(|socket| socket.set_mode(heir.mode))
    }

    /// The files of its Unix sockets that are ours, or may become so.
    pub(super) fn files(&self) -> impl Iterator<Item = &SocketFile> {
        self.sockets.iter().filter_map(Bound::file)
    }

    /// Looks after its files from now on.
    ///
    /// # Errors
    /// When one of them cannot get its mode.
    pub(super) fn keep_files(&self) -> io::Result<()> {
        self.files().filter(|file| file.is_left()).try_for_each(|file| {
            file.keep();
            file.set_mode(self.listener.mode)
        })
    }
}

/// A listener's sockets, one per worker.
pub(super) fn bind_listener(listener: &Listener, workers: usize) -> Result<Vec<Bound>, StartError> {
    let (address, what) = (listener.address.clone(), format!("listener {}", listener.name));
    worker::open(listener, workers).map_err(|cause| StartError::Bind { address, what, cause })
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
pub(super) fn bind_echo() -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(DEFAULT_ADMIN.ip(), 0);
    let failed =
        |cause| StartError::Bind { address: ListenAddress::Tcp(address), what: "echo upstream".to_owned(), cause };
    let mut sockets = listener::bind(address, 1).map_err(failed)?;
    sockets.pop().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))
}

/// One ordinary listening socket.
fn bind_one(address: SocketAddr, what: &str) -> Result<TcpListener, StartError> {
    let failed = |cause| StartError::Bind { address: ListenAddress::Tcp(address), what: what.to_owned(), cause };
    TcpListener::bind(listener::usable(address)).map_err(failed)
}

/// From sockets by listener to sockets by worker.
pub(super) fn by_worker(
    listeners: Vec<(Arc<Listener>, Vec<Bound>)>,
    workers: usize,
) -> Vec<Vec<(Arc<Listener>, Bound)>> {
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(listeners.len())).collect();
    for (listener, sockets) in listeners {
        for (number, socket) in sockets.into_iter().enumerate() {
            shares[number % workers].push((Arc::clone(&listener), socket));
        }
    }
    shares
}
