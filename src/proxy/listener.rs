//! Listening sockets: one per worker and listener, on one address (`SO_REUSEPORT`), or a Unix socket
//! that all workers accept from.

mod unix;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::socket::{Peer, Socket};
use crate::config::{ListenAddress, Listener};
pub use unix::SocketFile;

/// Connections the kernel may hold that nobody has accepted (it caps this at `somaxconn`).
const BACKLOG: i32 = 4096;
/// First pause after the process ran out of descriptors or memory, doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One worker's socket of one listener, before it accepts.
#[derive(Debug)]
pub enum Bound {
    /// Its own.
    Tcp(StdListener),
    /// A clone of the only one; the file, if it is ours, goes with the last of them.
    Unix(StdUnixListener, Option<Arc<SocketFile>>),
}

/// A socket that accepts.
#[derive(Debug)]
pub enum Listening {
    /// TCP.
    Tcp(TcpListener),
    /// Unix; the file, if it is ours, goes with the last of its clones.
    Unix(UnixListener, Option<Arc<SocketFile>>),
}

/// Opens one socket per worker for a listener.
///
/// # Errors
/// When the address cannot be bound.
pub fn open(listener: &Listener, workers: usize) -> io::Result<Vec<Bound>> {
    match &listener.address {
        ListenAddress::Tcp(address) => Ok(bind(*address, workers)?.into_iter().map(Bound::Tcp).collect()),
        ListenAddress::Unix(path) => {
            let (socket, file) = unix::bind(path, listener.mode)?;
            let file = Arc::new(file);
            (0..workers).map(|_| Ok(Bound::Unix(socket.try_clone()?, Some(Arc::clone(&file))))).collect()
        }
    }
}

/// What stands for this address here: `0.0.0.0` for `[::]` on a machine without IPv6.
#[must_use]
pub fn usable(mut address: SocketAddr) -> SocketAddr {
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !has_ipv6() {
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
    }
    address
}

/// Opens one socket per worker on the [`usable`] address; with port 0 all share the port of the first.
/// `[::]` takes IPv4 connections too.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    let mut address = usable(address);
    if address.port() != 0 {
        // Sockets that share ports would not notice another process on the same one.
        socket(address)?.bind(&address.into())?;
    }
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers {
        let listener = listen(address)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Whether this machine lets anyone listen on IPv6 (some containers do not).
fn has_ipv6() -> bool {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    socket(any).and_then(|socket| socket.bind(&any.into())).is_ok()
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Accepts the next connection. Failures never end this: a connection that died in the queue is
/// passed over, and while descriptors or memory are short it pauses and tries again.
pub async fn accept(listener: &Listening) -> (Socket, Peer) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if died_in_queue(&error) => {}
            Err(error) => {
                if pause == FIRST_PAUSE {
                    tracing::warn!(%error, "cannot accept connections, retrying");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Bound {
    /// The real address.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(ListenAddress::Tcp),
            Self::Unix(socket, _) => {
                let address = socket.local_addr()?;
                Ok(ListenAddress::Unix(address.as_pathname().map(PathBuf::from).unwrap_or_default()))
            }
        }
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn again(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket, file) => Self::Unix(socket.try_clone()?, file.clone()),
        })
    }

    /// The socket once more, to be given away, and device and inode of its file, if that is ours.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn lend(&self) -> io::Result<(OwnedFd, Option<(u64, u64)>)> {
        Ok(match self.again()? {
            Self::Tcp(socket) => (socket.into(), None),
            Self::Unix(socket, file) => (socket.into(), file.map(|file| file.identity())),
        })
    }

    /// Says who may connect, where there is a file and it is ours.
    ///
    /// # Errors
    /// When the file is not there any more.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self {
            Self::Unix(_, Some(file)) => file.set_mode(mode),
            Self::Unix(_, None) | Self::Tcp(_) => Ok(()),
        }
    }

    /// The file of a Unix socket, if it is ours or may become so.
    #[must_use]
    pub fn file(&self) -> Option<&SocketFile> {
        match self {
            Self::Unix(_, file) => file.as_deref(),
            Self::Tcp(_) => None,
        }
    }

    /// A connection that waits already.
    fn take(&self) -> Option<(Socket, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some((TcpStream::from_std(stream).ok()?.into(), Peer::Address(peer)))
            }
            Self::Unix(socket, _) => {
                let (stream, _) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some((UnixStream::from_std(stream).ok()?.into(), Peer::Unix))
            }
        }
    }
}

impl Listening {
    /// Begins to accept, on the current runtime.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub fn begin(bound: Bound) -> io::Result<Self> {
        match bound {
            Bound::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket)?))
            }
            Bound::Unix(socket, file) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket)?, file))
            }
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, peer)| (stream.into(), Peer::Address(peer))),
            Self::Unix(socket, _) => socket.accept().await.map(|(stream, _)| (stream.into(), Peer::Unix)),
        }
    }

    /// Takes what the kernel has accepted for us so far, and closes.
    ///
    /// # Errors
    /// When there is no more.
    pub fn drain(self) -> io::Result<impl Iterator<Item = (Socket, Peer)>> {
        let bound = match self {
            Self::Tcp(socket) => Bound::Tcp(socket.into_std()?),
            Self::Unix(socket, file) => Bound::Unix(socket.into_std()?, file),
        };
        Ok(std::iter::from_fn(move || bound.take()))
    }
}

fn died_in_queue(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_port_the_first_was_given() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert_ne!(ports[0], 0);
        assert_eq!(ports, [ports[0]; 3]);
    }

    #[test]
    fn an_address_in_use_is_an_error_even_when_its_port_is_shared() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let error = bind(first[0].local_addr().unwrap(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let listeners = bind("[::]:0".parse().unwrap(), 1).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}
