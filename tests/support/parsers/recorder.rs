//! An upstream that keeps the bytes of each connection as they came. It answers one request on each,
//! and reads on until the proxy closes: whatever else the proxy wrote is there to be judged.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::message::Message;
use crate::support::eventually;

/// Everything the proxy wrote on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Forwarded {
    pub(crate) bytes: Vec<u8>,
    /// The request in it, when it was complete; its answer says `x-seen: ` and this request's id.
    pub(crate) message: Option<Message>,
}

/// The upstream.
pub(crate) struct Recorder {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    opened: usize,
    closed: Vec<Forwarded>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                shared.lock().expect("no thread panics").opened += 1;
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let forwarded = record(stream);
                    shared.lock().expect("no thread panics").closed.push(forwarded);
                });
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came on the connections since the last call, once all of them are closed.
    pub(crate) fn take(&self) -> Vec<Forwarded> {
        eventually("the proxy has closed its connections to the upstream", || {
            let mut state = self.state.lock().expect("no thread panics");
            (state.opened == state.closed.len()).then(|| std::mem::take(&mut *state).closed)
        })
    }
}

fn record(mut stream: TcpStream) -> Forwarded {
    let mut forwarded = Forwarded { bytes: Vec::new(), message: None };
    let mut buffer = vec![0; 64 * 1024];
    let _ = stream.set_read_timeout(Some(Duration::from_secs(15)));
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        forwarded.bytes.extend_from_slice(&buffer[..read]);
        if forwarded.message.is_none()
            && let Some(message) = Message::take(&mut &forwarded.bytes[..])
        {
            let answer =
                format!("HTTP/1.1 200 OK\r\nx-seen: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", message.id);
            let _ = stream.write_all(answer.as_bytes());
            forwarded.message = Some(message);
        }
    }
    forwarded
}
