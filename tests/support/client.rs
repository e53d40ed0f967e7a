//! An HTTP/1.1 client that hides nothing: every byte it sends was asked for, everything that comes
//! back is kept. It shares no code with the program under test.

use std::fmt::Write as _;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::wire::{self, Fields};

/// How long a client waits for anything: a hang is an error of the test, not of its runner.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A request to send.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    host: String,
    headers: Fields,
    body: Option<Vec<u8>>,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// A connection, kept open between requests.
pub(crate) struct Client<S = TcpStream> {
    address: SocketAddr,
    stream: BufReader<S>,
    /// Whether the last answer said that it is the last.
    closed: bool,
}

/// One GET on a connection of its own.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    Client::connect(address).send(&Request::get(target).host(&address.to_string()))
}

impl Request {
    /// A request without a body.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, host: "localhost".to_owned(), headers: Vec::new(), body: None }
    }

    /// The same to another host.
    pub(crate) fn host(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    /// A GET.
    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with this body.
    pub(crate) fn post(target: &str, body: &[u8]) -> Self {
        Self { body: Some(body.to_vec()), ..Self::new("POST", target) }
    }

    /// With this body.
    pub(crate) fn body(self, body: &str) -> Self {
        Self { body: Some(body.as_bytes().to_vec()), ..self }
    }

    /// With one more field line.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As a trusted proxy would forward it for this client.
    pub(crate) fn from(self, address: &str) -> Self {
        self.header("x-forwarded-for", address)
    }

    /// The request as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

impl Answer {
    /// The first value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every value of a field, joined as a list.
    pub(crate) fn list(&self, name: &str) -> String {
        let lines = self.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Retry-After, in seconds.
    #[track_caller]
    pub(crate) fn retry_after(&self) -> u64 {
        self.header("retry-after").expect("a Retry-After").parse().expect("whole seconds")
    }

    /// What the `RateLimit` field says of this limit: r (remaining).
    #[track_caller]
    pub(crate) fn remaining(&self, limit: &str) -> u64 {
        let list = self.list("ratelimit");
        let item = list.split(',').map(str::trim).find(|item| item.starts_with(&format!("\"{limit}\"")));
        let item = item.unwrap_or_else(|| panic!("no RateLimit item {limit} in {list:?}"));
        let r = item.split(';').find_map(|part| part.trim().strip_prefix("r="));
        r.and_then(|r| r.parse().ok()).unwrap_or_else(|| panic!("no r in {item:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.text()))
    }
}

impl Client {
    /// Opens a connection.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::open(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Opens a connection, or says why not.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { address, stream: BufReader::new(stream), closed: false })
    }

    /// A GET and its answer.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.send(&Request::get(target))
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> Answer {
        self.exchange(request).unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"))
    }

    /// Sends a request and reads its answer, or says what went wrong. A connection that the answer
    /// before has closed (as each is after so many requests) is replaced by a new one.
    pub(crate) fn exchange(&mut self, request: &Request) -> io::Result<Answer> {
        if self.closed {
            *self = Self::open(self.address)?;
        }
        self.write(&request.bytes())?;
        let answer = self.answer_to(&request.method)?;
        self.closed = answer.list("connection").contains("close");
        Ok(answer)
    }

    /// How long it waits for an answer from now on.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.stream.get_ref().set_read_timeout(Some(patience)).expect("a timeout can be set");
    }

    /// Ends the connection in one or both directions.
    pub(crate) fn shutdown(&mut self, how: std::net::Shutdown) {
        let _ = self.stream.get_ref().shutdown(how);
    }

    /// Closes the sending side.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO)).expect("a socket");
    }
}

impl<S: Read + Write> Client<S> {
    /// A client on a connection that is open already.
    pub(crate) fn over(address: SocketAddr, stream: S) -> Self {
        Self { address, stream: BufReader::new(stream), closed: false }
    }

    /// Sends a request and reads its answer, on this connection and no other.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.write(&request.bytes())?;
        self.answer_to(&request.method)
    }

    /// The stream below, of which nothing was read ahead.
    pub(crate) fn into_inner(self) -> S {
        self.stream.into_inner()
    }

    /// The stream below.
    pub(crate) fn get_ref(&self) -> &S {
        self.stream.get_ref()
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one final answer (interim ones are skipped).
    pub(crate) fn answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.head()?;
        while (100..200).contains(&answer.status) {
            answer = self.head()?;
        }
        if method == "HEAD" || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        let length = answer.header("content-length").map(|length| length.parse().expect("a length"));
        if answer.list("transfer-encoding").contains("chunked") {
            while let Some(chunk) = wire::chunk(&mut self.stream)? {
                answer.body.extend(chunk);
            }
            answer.trailers = wire::fields(&mut self.stream)?;
        } else if let Some(length) = length {
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body)?;
        } else {
            self.stream.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// Reads a head, leaving the body unread.
    pub(crate) fn head(&mut self) -> io::Result<Answer> {
        let line = wire::line(&mut self.stream)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        Ok(Answer { status, headers: wire::fields(&mut self.stream)?, ..Answer::default() })
    }

    /// Reads raw bytes of a body.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    /// Reads as many bytes as these and compares.
    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &[u8]) {
        let mut read = vec![0; wanted.len()];
        self.stream.read_exact(&mut read).unwrap_or_else(|error| panic!("{error} before {wanted:?}"));
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(wanted));
    }

    /// Everything that still comes until the other side closes; an abortive close ends it too.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}
