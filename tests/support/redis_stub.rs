//! A server that speaks Redis' protocol and answers what a test tells it to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a script answers that admits one of ten.
pub(crate) const GRANTED: &str = "*8\r\n:1\r\n:1700000000000000\r\n:0\r\n:0\r\n:1\r\n:9\r\n:0\r\n:1000000\r\n";
/// What a script answers that denies.
pub(crate) const DENIED: &str =
    "*8\r\n:0\r\n:1700000000000000\r\n:0\r\n:1000000\r\n:0\r\n:0\r\n:1000000\r\n:9000000\r\n";
const SHA: &str = "$40\r\n0123456789012345678901234567890123456789\r\n";

/// What a test makes of a command; `None` leaves it to what a healthy Redis says.
type Answers = dyn Fn(&[String]) -> Option<String> + Send + Sync;

/// The server, and what it was asked.
pub(crate) struct Stub {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Stub {
    /// Starts on a port of its own.
    pub(crate) fn start(answers: impl Fn(&[String]) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stub = Self { port, asked: Arc::default(), streams: Arc::default() };
        let (asked, streams, answers) = (Arc::clone(&stub.asked), Arc::clone(&stub.streams), Arc::new(answers));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, answers) = (Arc::clone(&asked), Arc::clone(&answers));
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                std::thread::spawn(move || serve(stream, &asked, &*answers));
            }
        });
        stub
    }

    /// Every command so far.
    pub(crate) fn asked(&self) -> Vec<Vec<String>> {
        self.asked.lock().unwrap().clone()
    }

    /// How many commands have a word that contains this.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|words| words.iter().any(|word| word.contains(part))).count()
    }

    /// Sends a message that nobody asked for to every connection.
    pub(crate) fn push(&self, message: &str) {
        for mut stream in self.streams.lock().unwrap().iter() {
            let _ = stream.write_all(message.as_bytes());
        }
    }
}

/// The answer to HELLO of this product and version.
pub(crate) fn hello(server: &str, version: &str) -> String {
    format!("%2\r\n{}{}{}{}", bulk("server"), bulk(server), bulk("version"), bulk(version))
}

/// A bulk string.
pub(crate) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// An array of bulk strings.
pub(crate) fn array(words: &[&str]) -> String {
    let items: String = words.iter().map(|word| bulk(word)).collect();
    format!("*{}\r\n{items}", words.len())
}

fn serve(mut stream: TcpStream, asked: &Mutex<Vec<Vec<String>>>, answers: &Answers) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let words: Vec<String> = (0..number(&mut reader)?).map(|_| word(&mut reader)).collect::<Option<_>>()?;
        let answer = answers(&words).unwrap_or_else(|| usual(&words[0]));
        asked.lock().unwrap().push(words);
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn usual(command: &str) -> String {
    match command {
        "HELLO" => hello("redis", "7.0.15"),
        "SCRIPT" => SHA.to_owned(),
        "EVALSHA" | "EVAL" => GRANTED.to_owned(),
        "ROLE" => format!("*3\r\n{}:0\r\n*0\r\n", bulk("master")),
        "SUBSCRIBE" => format!(">3\r\n{}{}:1\r\n", bulk("subscribe"), bulk("+switch-master")),
        _ => "+OK\r\n".to_owned(),
    }
}

fn number(reader: &mut impl BufRead) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.get(1..)?.trim().parse().ok()
}

fn word(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = vec![0; number(reader)? + 2];
    reader.read_exact(&mut bytes).ok()?;
    bytes.truncate(bytes.len() - 2);
    String::from_utf8(bytes).ok()
}
