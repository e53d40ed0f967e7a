//! Sockets that the process was given when it was started: by systemd (`sd_listen_fds(3)`), or by the process whose
//! place it takes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use listenfd::ListenFd;
use socket2::{Domain, SockRef};

use crate::config::{ListenAddress, Listener};
use crate::handover::{FileId, Label, Passed};
use crate::worker::{Bound, SocketFile, usable};

/// The name of the admin listener's socket.
pub(super) const ADMIN: &str = "admin";

/// Those that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Given>);

#[derive(Debug)]
struct Given {
    /// The listener's; from systemd `FileDescriptorName=`, whose default is the unit's name.
    name: String,
    from: Giver,
    socket: Socket,
}

#[derive(Debug, PartialEq, Eq)]
enum Giver {
    /// Whose names are meant.
    Systemd,
    /// Whose listener of this name was configured at this address; it may have moved since.
    Predecessor { configured: String, file: Option<FileId> },
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Inherited {
    /// All that systemd has opened.
    #[must_use]
    pub fn of_systemd() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut given = ListenFd::from_env();
        let sockets = (0..given.len()).filter_map(|number| {
            let name = names.next().unwrap_or_default();
            let tcp = given.take_tcp_listener(number).ok().flatten().map(Socket::Tcp);
            let socket = tcp.or_else(|| given.take_unix_listener(number).ok().flatten().map(Socket::Unix));
            if socket.is_none() {
                tracing::warn!(name, number, "what systemd has opened is no socket that listens; it is left alone");
            }
            socket.map(|socket| Given { name, from: Giver::Systemd, socket })
        });
        Self(sockets.collect())
    }

    /// All that the process before gives.
    ///
    /// # Errors
    /// When the system does not tell what kind of socket one of them is.
    pub fn of_predecessor(sockets: Vec<Passed>) -> io::Result<Self> {
        let sockets = sockets.into_iter().map(|Passed { label: Label { name, configured, file }, socket }| {
            Ok(Given { name, from: Giver::Predecessor { configured, file }, socket: Socket::of(socket)? })
        });
        sockets.collect::<io::Result<_>>().map(Self)
    }

    /// A listener's sockets, by its name or its address; one for each worker at least, none if it has to be bound.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn of(&mut self, listener: &Listener, workers: usize) -> io::Result<Vec<Bound>> {
        let mine = self.take(|given| given.is_for(&listener.name, &listener.address) && !given.has_lost_its_file());
        let mut sockets = mine.into_iter().map(Given::bound).collect::<io::Result<Vec<_>>>()?;
        // One socket is accepted from by several workers, and every socket by one.
        for number in 0..workers.saturating_sub(sockets.len()) {
            let Some(socket) = sockets.get(number) else { break };
            sockets.push(socket.again()?);
        }
        Ok(sockets)
    }

    /// The admin listener's socket.
    pub(super) fn of_admin(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let mine = self.take(|given| given.is_for(ADMIN, &ListenAddress::Tcp(address)));
        mine.into_iter().find_map(|given| match given.socket {
            Socket::Tcp(socket) => Some(socket),
            Socket::Unix(_) => None,
        })
    }

    fn take(&mut self, is_mine: impl Fn(&Given) -> bool) -> Vec<Given> {
        let (mine, others) = std::mem::take(&mut self.0).into_iter().partition(is_mine);
        self.0 = others;
        mine
    }

    /// Tells of those that nobody has taken. What a listener of the process before had that is gone now, it closes.
    pub(super) fn tell_left(&self) {
        for given in self.0.iter().filter(|given| given.from == Giver::Systemd) {
            let (name, address) = (&*given.name, given.address().map(|address| address.to_string()));
            tracing::warn!(name, address, "no listener has the name or address of a socket that systemd has opened");
        }
    }
}

impl Given {
    fn is_for(&self, name: &str, address: &ListenAddress) -> bool {
        let there = match address {
            ListenAddress::Tcp(address) => ListenAddress::Tcp(usable(*address)),
            ListenAddress::Unix(_) => address.clone(),
        };
        let by_name = match &self.from {
            Giver::Systemd => true,
            Giver::Predecessor { configured, .. } => *configured == address.to_string(),
        };
        (by_name && self.name == name) || self.address() == Some(there)
    }

    fn address(&self) -> Option<ListenAddress> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok().map(ListenAddress::Tcp),
            Socket::Unix(socket) => {
                let address = socket.local_addr().ok()?;
                Some(ListenAddress::Unix(address.as_pathname().map(PathBuf::from)?))
            }
        }
    }

    /// The file that may become ours to look after; the process before does so still.
    fn file(&self) -> Option<SocketFile> {
        match (&self.from, self.address()) {
            (Giver::Predecessor { file: Some(file), .. }, Some(ListenAddress::Unix(path))) => {
                SocketFile::of_other(&path, *file)
            }
            _ => None,
        }
    }

    /// Whether nobody can connect to it any more, because its file was removed or is another one by now.
    fn has_lost_its_file(&self) -> bool {
        match (&self.from, self.address()) {
            (Giver::Predecessor { file: Some(_), .. }, _) => self.file().is_none(),
            (_, Some(ListenAddress::Unix(path))) => std::fs::symlink_metadata(path).is_err(),
            _ => false,
        }
    }

    fn bound(self) -> io::Result<Bound> {
        let file = self.file().map(Arc::new);
        match self.socket {
            Socket::Tcp(socket) => socket.set_nonblocking(true).map(|()| Bound::Tcp(socket)),
            Socket::Unix(socket) => socket.set_nonblocking(true).map(|()| Bound::Unix(socket, file)),
        }
    }
}

impl Socket {
    fn of(socket: OwnedFd) -> io::Result<Self> {
        let is_unix = SockRef::from(&socket).local_addr()?.domain() == Domain::UNIX;
        Ok(if is_unix { Self::Unix(socket.into()) } else { Self::Tcp(socket.into()) })
    }
}
