//! Servers beside the program under test: a Redis and an upstream.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::eventually;
use super::tollgate::signal;

/// A redis-server of the test's own.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
}

/// An upstream: what it answers is up to the test.
pub(crate) struct Upstream {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
}

/// A request as the upstream read it: its head is parsed, its body still in the stream.
pub(crate) struct Received {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) stream: BufReader<TcpStream>,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

impl RedisServer {
    /// Starts a server on a free port.
    pub(crate) fn start() -> Self {
        Self::start_on(free_port())
    }

    /// Starts a server on this port.
    pub(crate) fn start_on(port: u16) -> Self {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().expect("redis-server is installed"), port };
        eventually("redis-server answers", || server.connection().ok());
        server
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd("PING").query::<String>(&mut connection)?;
        Ok(connection)
    }

    /// Asks it something.
    #[track_caller]
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut connection = self.connection().expect("redis-server answers");
        let mut asked = redis::cmd(command[0]);
        for argument in &command[1..] {
            asked.arg(*argument);
        }
        asked.query(&mut connection).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Every key.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask(&["KEYS", "*"]);
        keys.sort();
        keys
    }

    /// How often scripts were called.
    pub(crate) fn script_calls(&self) -> u64 {
        let info: String = self.ask(&["INFO", "commandstats"]);
        let calls = info.lines().filter(|line| line.starts_with("cmdstat_eval"));
        calls.filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok()).sum()
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Ends it at once; its port stays its own.
    pub(crate) fn kill(mut self) -> u16 {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.port
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Upstream {
    /// Starts an upstream; `answer` handles one request and says whether the connection goes on.
    pub(crate) fn start(answer: impl Fn(&mut Received) -> std::io::Result<bool> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (address, hits, answer) = (listener.local_addr().expect("an address"), Arc::default(), Arc::new(answer));
        let counted: Arc<AtomicUsize> = Arc::clone(&hits);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = Some(BufReader::new(stream));
                    while let Some(mut received) = stream.take().and_then(Received::read) {
                        counted.fetch_add(1, Ordering::SeqCst);
                        if !answer(&mut received).unwrap_or(false) {
                            return;
                        }
                        stream = Some(received.stream);
                    }
                });
            }
        });
        Self { address, hits }
    }

    /// An upstream that reads the body and answers `ok`.
    pub(crate) fn ok() -> Self {
        Self::start(|request| {
            request.discard_body()?;
            request.answer("200 OK", "ok")
        })
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that reached it.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Received {
    fn read(mut stream: BufReader<TcpStream>) -> Option<Self> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let fields = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Some(Self { headers, stream })
    }

    /// A field's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Writes an answer with this body.
    pub(crate) fn answer(&mut self, status: &str, body: &str) -> std::io::Result<bool> {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(text.as_bytes())?;
        Ok(true)
    }

    /// Reads the body and counts its bytes.
    pub(crate) fn discard_body(&mut self) -> std::io::Result<u64> {
        if let Some(length) = self.header("content-length").and_then(|length| length.parse().ok()) {
            return std::io::copy(&mut (&mut self.stream).take(length), &mut std::io::sink());
        }
        let mut total = 0;
        while self.header("transfer-encoding") == Some("chunked") {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            std::io::copy(&mut (&mut self.stream).take(size), &mut std::io::sink())?;
            self.stream.read_line(&mut line)?;
            total += size;
            if size == 0 {
                break;
            }
        }
        Ok(total)
    }
}
