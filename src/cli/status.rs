//! `tollgate status`: asks a running proxy whether it takes requests. Containers and scripts go by the exit
//! code, people by the line.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use http::uri::Authority;

use super::admin::{Running, Whom};
use super::{Global, text};
use crate::config::WHOSE;

/// For the whole conversation.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of an answer no more is read than a little above this, bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// Most that is repeated of what a stranger says, characters.
const MAX_WORDS: usize = 200;

/// Ask a running proxy whether it takes requests
///
/// It is asked at `/readyz` of its admin listener. A file that is wrong by now does not matter: a running proxy goes on
/// with what it has.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate status                                   the proxy of ./proxy.yaml or /etc/tollgate/proxy.yaml
  tollgate status --admin http://10.0.0.7:9901
  HEALTHCHECK CMD [\"tollgate\", \"status\"]            in a Dockerfile

Exit codes: 0 it takes requests; 1 it is shutting down, or nobody answers; 2 wrong usage.")]
pub struct Args {
    #[command(flatten)]
    running: Running,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It takes requests.
    Ready,
    /// It is another proxy.
    Another,
    /// It does not, in its own words.
    NotReady(String),
    /// Somebody answers who is no admin listener.
    Stranger(String),
    /// Nobody answers: why, and what to do.
    Unreachable(String),
}

/// Asks, prints one line, and returns 0 when requests are taken, else 1.
///
/// # Errors
/// When the configuration does not say whom to ask, or standard output cannot be written, except that nobody
/// reads it any more.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let whom = args.running.find(global)?;
    let found = ask(&whom).map_or_else(|error| Found::Unreachable(advice(&error)), |answer| read(&answer));
    if found != Found::Ready
        && let Some(frames) = &whom.wrong
    {
        super::complain(frames);
    }
    super::check::print(&format!("{}\n", found.line(&whom.address)))?;
    Ok(if found == Found::Ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole answer of `/readyz`.
fn ask(whom: &Whom) -> io::Result<Vec<u8>> {
    let (admin, deadline) = (&whom.address, Instant::now() + PATIENCE);
    let mut stream = connect(admin, deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let file = whom.told_file().map(|file| format!("{WHOSE}: {file}\r\n")).unwrap_or_default();
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {admin}\r\n{file}connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while answer.len() < MAX_ANSWER {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            length => answer.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
    Ok(answer)
}

/// A connection to the first of its addresses that takes one.
fn connect(admin: &Authority, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in admin.as_str().to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The time until then, or that it is over.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// What an answer means.
fn read(answer: &[u8]) -> Found {
    let (head, body) = match answer.windows(4).position(|end| end == b"\r\n\r\n") {
        Some(end) => answer.split_at(end + 4),
        None => (answer, &[][..]),
    };
    let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    match status {
        Some(b"200") if body == b"ready\n" => Found::Ready,
        Some(b"409") => Found::Another,
        Some(b"503") => match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(problem) if problem["detail"].is_string() => {
                let detail = problem["detail"].as_str().unwrap_or_default();
                Found::NotReady(text::printable(detail.as_bytes(), MAX_WORDS))
            }
            _ => Found::Stranger("status 503".to_owned()),
        },
        Some(status) => Found::Stranger(format!("status {}", text::printable(status, MAX_WORDS))),
        None if answer.is_empty() => Found::Stranger("the connection was closed".to_owned()),
        None => Found::Stranger("no HTTP".to_owned()),
    }
}

/// Why there was no answer, and what to do.
fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there; start it with `tollgate run`, or name its admin listener with --admin".to_owned()
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("no answer within {} s; if that is its admin listener, see its log", PATIENCE.as_secs())
        }
        _ => format!("{error}; name its admin listener with --admin"),
    }
}

impl Found {
    /// In one line.
    fn line(&self, admin: &Authority) -> String {
        match self {
            Self::Ready => format!("ready at http://{admin}"),
            Self::Another => format!(
                "unreachable: the proxy at http://{admin} runs on another configuration file; name its admin listener \
                 with --admin"
            ),
            Self::NotReady(words) => format!("draining at http://{admin}: {words}"),
            Self::Stranger(words) => format!(
                "unreachable at http://{admin}: something else answers there ({words}); name its admin listener with \
                 --admin"
            ),
            Self::Unreachable(advice) => format!("unreachable at http://{admin}: {advice}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_of_an_admin_listener_are_believed() {
        let stranger = |words: &str| Found::Stranger(words.to_owned());
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\nready\n", Found::Ready),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", stranger("status 200")),
            ("HTTP/1.1 503 X\r\n\r\n{\"detail\":\"Soon\\u001b.\"}", Found::NotReady("Soon\\x1b.".to_owned())),
            ("HTTP/1.1 503 X\r\n\r\n<html>", stranger("status 503")),
            ("HTTP/1.1 \r\n", stranger("no HTTP")),
            ("-ERR unknown command", stranger("no HTTP")),
            ("", stranger("the connection was closed")),
        ] {
            assert_eq!(read(answer.as_bytes()), expected, "{answer}");
        }
    }
}
