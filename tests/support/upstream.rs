//! Upstreams of which every byte is scripted, and what arrived at them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tungstenite::WebSocket;
use tungstenite::protocol::Role;

use super::wire::{self, Fields};

/// How long a scripted upstream waits for the proxy.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An upstream that runs a script on each connection.
pub(crate) struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Arrived>>>,
    connections: Arc<AtomicUsize>,
}

/// A request as it arrived, byte for byte but for its framing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrived {
    pub(crate) line: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// The upstream's end of one connection.
pub(crate) struct Peer {
    stream: BufReader<TcpStream>,
    seen: Arc<Mutex<Vec<Arrived>>>,
}

/// The beginning of an answer that grants WebSocket.
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n";

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.get_mut().flush()
    }
}

impl Upstream {
    /// Runs `script` on each connection, which is closed when the script ends.
    pub(crate) fn start(script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), script)
    }

    fn start_at(at: SocketAddr, script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (seen, connections, script) = (Arc::default(), Arc::<AtomicUsize>::default(), Arc::new(script));
        let (kept, counted): (Arc<Mutex<Vec<Arrived>>>, _) = (Arc::clone(&seen), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                let (seen, script) = (Arc::clone(&kept), Arc::clone(&script));
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(TIMEOUT));
                    let _ = stream.set_nodelay(true);
                    let _ = script(&mut Peer { stream: BufReader::new(stream), seen });
                });
            }
        });
        Self { address, seen, connections }
    }

    /// Answers every request on a connection with the same bytes.
    pub(crate) fn replying(reply: &'static str) -> Self {
        Self::start(move |peer| {
            loop {
                peer.request()?;
                peer.send(reply)?;
            }
        })
    }

    /// Answers one request with these bytes, then closes the connection.
    pub(crate) fn closing_after(reply: &'static str) -> Self {
        Self::start(move |peer| {
            peer.request()?;
            peer.send(reply)
        })
    }

    /// Reads every request whole, then lets `answer` write to it.
    pub(crate) fn answering(answer: impl Fn(&mut Peer, &Arrived) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start(move |peer| {
            loop {
                let request = peer.request()?;
                answer(peer, &request)?;
            }
        })
    }

    /// The same at this address.
    pub(crate) fn listening(
        at: SocketAddr,
        answer: impl Fn(&mut Peer, &Arrived) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(at, move |peer| {
            loop {
                let request = peer.request()?;
                answer(peer, &request)?;
            }
        })
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that arrived whole so far.
    pub(crate) fn seen(&self) -> Vec<Arrived> {
        self.seen.lock().expect("no script panics").clone()
    }

    /// The only request that arrived.
    #[track_caller]
    pub(crate) fn only(&self) -> Arrived {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Connections that were opened to it so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Arrived {
    /// Every value of a field, joined as a list; `None` when it is absent.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

impl Peer {
    /// Reads a whole request and keeps it.
    pub(crate) fn request(&mut self) -> io::Result<Arrived> {
        let mut arrived = self.head()?;
        if arrived.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk()? {
                arrived.body.extend(chunk);
            }
            arrived.trailers = wire::fields(&mut self.stream)?;
        } else if let Some(length) = arrived.field("content-length") {
            arrived.body = vec![0; length.parse().map_err(io::Error::other)?];
            self.stream.read_exact(&mut arrived.body)?;
        }
        self.seen.lock().expect("no script panics").push(arrived.clone());
        Ok(arrived)
    }

    /// Reads a body to its end and forgets it; how long it was.
    pub(crate) fn discard_body(&mut self, head: &Arrived) -> io::Result<u64> {
        if let Some(length) = head.field("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            return io::copy(&mut (&mut self.stream).take(length), &mut io::sink());
        }
        let mut total = 0;
        while let Some(chunk) = self.chunk()? {
            total += chunk.len() as u64;
        }
        wire::fields(&mut self.stream)?;
        Ok(total)
    }

    /// Reads a head only; nothing is kept.
    pub(crate) fn head(&mut self) -> io::Result<Arrived> {
        Ok(Arrived {
            line: wire::line(&mut self.stream)?,
            fields: wire::fields(&mut self.stream)?,
            ..Arrived::default()
        })
    }

    /// Reads one chunk of a chunked body; `None` is the last, whose trailers are still to be read.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        wire::chunk(&mut self.stream)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a 200 with this text as its body.
    pub(crate) fn answer(&mut self, text: &str) -> io::Result<()> {
        let length = text.len();
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"))
    }

    /// Answers an upgrade to WebSocket and speaks it from then on.
    pub(crate) fn websocket(&mut self, request: &Arrived) -> io::Result<WebSocket<&mut Self>> {
        let key = request.field("sec-websocket-key").ok_or_else(|| io::Error::other("no key"))?;
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        self.send(format!("{SWITCHING}sec-websocket-accept: {accept}\r\n\r\n"))?;
        Ok(WebSocket::from_raw_socket(self, Role::Server, None))
    }

    /// Reads as many bytes as these and compares.
    pub(crate) fn expect(&mut self, wanted: &[u8]) -> io::Result<()> {
        let mut read = vec![0; wanted.len()];
        self.stream.read_exact(&mut read)?;
        let (read, wanted) = (String::from_utf8_lossy(&read), String::from_utf8_lossy(wanted));
        if read == wanted { Ok(()) } else { Err(io::Error::other(format!("{read:?} instead of {wanted:?}"))) }
    }

    /// The connection below, behind what was read so far.
    pub(crate) fn raw(&self) -> io::Result<TcpStream> {
        self.stream.get_ref().try_clone()
    }

    /// Everything that comes until the proxy closes its sending side.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Whether nothing comes for a while.
    pub(crate) fn hears_nothing(&mut self) -> io::Result<bool> {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let silent = self.stream.buffer().is_empty() && self.stream.fill_buf().is_err();
        self.stream.get_ref().set_read_timeout(Some(TIMEOUT))?;
        Ok(silent)
    }

    /// Closes the sending side.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// Makes the end of the script a reset instead of an orderly close.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        socket2::SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO))
    }

    /// Reads until the proxy closes the connection; an error when it does not.
    pub(crate) fn closed(&mut self) -> io::Result<()> {
        match self.stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
