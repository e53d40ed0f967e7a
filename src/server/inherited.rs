//! Sockets that the process was given when it was started: systemd's socket activation (`sd_listen_fds(3)`).

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;

use crate::config::{ListenAddress, Listener};
use crate::worker::Bound;

/// Those that no listener has taken yet.
#[derive(Debug)]
pub(super) struct Inherited(Vec<Given>);

#[derive(Debug)]
struct Given {
    /// `FileDescriptorName=`; systemd's own default is the name of the unit.
    name: String,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Inherited {
    /// All that were given.
    pub(super) fn take() -> Self {
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
            socket.map(|socket| Given { name, socket })
        });
        Self(sockets.collect())
    }

    /// A listener's sockets, by its name or its address; one for each worker at least, none if it has to be bound.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn of(&mut self, listener: &Listener, workers: usize) -> io::Result<Vec<Bound>> {
        let (mine, others) = std::mem::take(&mut self.0).into_iter().partition(|given: &Given| given.is_for(listener));
        self.0 = others;
        let mut sockets = mine.into_iter().map(Given::bound).collect::<io::Result<Vec<_>>>()?;
        // One socket is accepted from by several workers, and every socket by one.
        for number in 0..workers.saturating_sub(sockets.len()) {
            let Some(socket) = sockets.get(number) else { break };
            sockets.push(socket.again()?);
        }
        Ok(sockets)
    }

    /// Tells of those that nobody has taken.
    pub(super) fn tell_left(&self) {
        for given in &self.0 {
            let (name, address) = (&*given.name, given.address().map(|address| address.to_string()));
            tracing::warn!(name, address, "no listener has the name or address of a socket that systemd has opened");
        }
    }
}

impl Given {
    fn is_for(&self, listener: &Listener) -> bool {
        *self.name == *listener.name || self.address().is_some_and(|address| address == listener.address)
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

    fn bound(self) -> io::Result<Bound> {
        match self.socket {
            Socket::Tcp(socket) => socket.set_nonblocking(true).map(|()| Bound::Tcp(socket)),
            // Its file is not ours to remove.
            Socket::Unix(socket) => socket.set_nonblocking(true).map(|()| Bound::Unix(socket, None)),
        }
    }
}
