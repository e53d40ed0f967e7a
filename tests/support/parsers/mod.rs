//! Servers whose parsers share nothing with each other or with the program under test, as plain origins
//! that say what they understood of each request.

pub(crate) mod apache;
pub(crate) mod message;
pub(crate) mod mutations;
pub(crate) mod recorder;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::nginx::Nginx;
use super::tollgate::repository;
use apache::Apache;
use message::Answer;

/// Follows on every connection, so that an origin that reads too little or too much is seen.
const SENTINEL: &[u8] = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\nConnection: close\r\n\r\n";

/// A script that answers with what it understood, in an interpreter of its own.
struct Echo {
    child: Child,
    address: SocketAddr,
}

/// The origins.
pub(crate) struct Origins {
    node: Echo,
    python: Echo,
    nginx: Nginx,
    apache: Apache,
}

impl Echo {
    fn start(interpreter: &str, script: &str) -> Self {
        let path = repository().join("tests/support/parsers").join(script);
        let child = Command::new(interpreter).arg(Path::new(&path)).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{interpreter} must be installed: {error}"));
        let mut port = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut port).expect("the script prints its port");
        let port: u16 = port.trim().parse().expect("a port");
        Self { child, address: ([127, 0, 0, 1], port).into() }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Origins {
    /// Starts all of them. What nginx and Apache understood is told by the Node origin, to which they
    /// pass it on in their own words.
    pub(crate) fn start() -> Self {
        let (node, python) = (Echo::start("node", "echo.js"), Echo::start("python3", "echo.py"));
        let server = format!(
            "client_max_body_size 0; large_client_header_buffers 8 64k; client_header_buffer_size 64k;\n\
             proxy_buffer_size 64k; proxy_buffers 4 64k;\n\
             location / {{ proxy_pass http://{}; proxy_set_header Host $http_host; proxy_ignore_client_abort on; }}",
            node.address
        );
        let nginx = Nginx::start("access_log off;", &server);
        let apache = Apache::start(node.address);
        Self { node, python, nginx, apache }
    }

    /// Their names and addresses.
    pub(crate) fn all(&self) -> [(&'static str, SocketAddr); 4] {
        [
            ("nginx", self.nginx.address()),
            ("Apache", self.apache.address()),
            ("Node", self.node.address),
            ("Python", self.python.address),
        ]
    }
}

/// What the origin at `address` understands of these bytes on one connection: one line for each answer,
/// the request as it was understood or the status of a refusal.
pub(crate) fn read_by(address: SocketAddr, bytes: &[u8]) -> Vec<String> {
    let mut stream = TcpStream::connect(address).expect("the origin listens");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket");
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        let mut sending = stream.try_clone().expect("a socket");
        scope.spawn(move || {
            let _ = sending.write_all(bytes);
            let _ = sending.shutdown(Shutdown::Write);
        });
        // A reset behind a refusal is an end like any other.
        let _ = stream.read_to_end(&mut answers);
    });
    let answers = Answer::all(&answers).unwrap_or_else(|error| panic!("{address} answers {error}"));
    let read = |answer: &Answer| match answer.status {
        200 => answer.field("x-understood").to_owned(),
        status => status.to_string(),
    };
    answers.iter().map(read).collect()
}

/// The same with one more request behind the bytes: what is understood of them if that request is
/// understood too and nothing behind it; else everything.
pub(crate) fn read_before_sentinel(address: SocketAddr, bytes: &[u8]) -> Result<Vec<String>, Vec<String>> {
    let mut read = read_by(address, &[bytes, SENTINEL].concat());
    match read.pop() {
        Some(last) if last.starts_with("GET /sentinel sentinel 0 ") => Ok(read),
        last => Err(read.into_iter().chain(last).collect()),
    }
}
