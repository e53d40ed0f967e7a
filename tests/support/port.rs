//! Ports for servers that come and go during a test.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 where nobody listens until the test starts something there. Linux gives a port
/// to nobody else while a socket is bound to it, and still lets a server listen on it.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _bound: Option<Socket>,
}

impl Port {
    /// Takes a free port.
    pub(crate) fn take() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("a socket option");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let address = socket.local_addr().expect("an address").as_socket().expect("an IP address");
        Self { number: address.port(), _bound: cfg!(target_os = "linux").then_some(socket) }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// The URL of an HTTP server there.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.number)
    }
}
