//! Upstreams of which every byte is scripted, and what arrived at them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// The upstream's end of one connection.
pub(crate) struct Peer {
    stream: BufReader<TcpStream>,
    seen: Arc<Mutex<Vec<Arrived>>>,
}

impl Upstream {
    /// Runs `script` on each connection, which is closed when the script ends.
    pub(crate) fn start(script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
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

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
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
            arrived.trailers = self.fields()?;
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
        self.fields()?;
        Ok(total)
    }

    /// Reads a head only; nothing is kept.
    pub(crate) fn head(&mut self) -> io::Result<Arrived> {
        Ok(Arrived { line: self.line()?, fields: self.fields()?, ..Arrived::default() })
    }

    /// Reads one chunk of a chunked body; `None` is the last, whose trailers are still to be read.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk)?;
        self.line()?;
        Ok(Some(chunk))
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

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other("no colon"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
