//! HTTP/2 frame by frame, for what no client library would send. It shares no code with the program
//! under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a client begins with (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags; ACK and `END_STREAM` are the same bit.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITISED: u8 = 32;

/// Error codes (RFC 9113 §7).
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection.
pub(crate) struct Peer<S = TcpStream> {
    stream: S,
}

/// One frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields, each a literal that enters no table (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect()
}

/// One such field.
pub(crate) fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0], &integer(7, name.len())[..], name, &integer(7, value.len()), value].concat()
}

/// A number with a prefix of so many bits, the others 0 (RFC 7541 §5.1).
pub(crate) fn integer(prefix: u8, mut number: usize) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    if number < most {
        return vec![u8::try_from(number).expect("it fits")];
    }
    let mut bytes = vec![u8::try_from(most).expect("it fits")];
    number -= most;
    while number >= 128 {
        bytes.push(u8::try_from(number % 128 + 128).expect("it fits"));
        number /= 128;
    }
    bytes.push(u8::try_from(number).expect("it fits"));
    bytes
}

/// The fields every request has.
pub(crate) fn pseudo<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
}

/// HEADERS of a request, whole or with a body to follow.
pub(crate) fn request(flags: u8, stream: u32, method: &str, path: &str) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(&pseudo(method, path)))
}

/// A whole GET.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    request(END_STREAM, stream, "GET", "/")
}

/// One setting (RFC 9113 §6.5.1).
pub(crate) fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// More room in a window.
pub(crate) fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

impl Frame {
    /// The error that `RST_STREAM` or GOAWAY tells.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// The status that HEADERS begin with, where it is one of the static table or a literal.
    pub(crate) fn status(&self) -> u16 {
        match self.payload[..] {
            [0x88, ..] => 200,
            [0x89, ..] => 204,
            [0x8c, ..] => 400,
            [0x8d, ..] => 404,
            [0x8e, ..] => 500,
            // Index of :status, 3 bytes plain, 2 or 3 in Huffman's code.
            [0x48, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
            [0x48, 0x82, a, b, ..] => huffman_digits(u32::from_be_bytes([a, b, 0, 0])),
            [0x48, 0x83, a, b, c, ..] => huffman_digits(u32::from_be_bytes([a, b, c, 0])),
            _ => 0,
        }
    }
}

/// Three digits in the code of RFC 7541's appendix B: 0 to 2 are the 5 bits 0 to 2, 3 to 9 the 6 bits 25 to 31.
fn huffman_digits(mut bits: u32) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let (digit, length) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26).saturating_sub(22), 6) };
        number = number * 10 + u16::try_from(digit).expect("a digit");
        bits <<= length;
    }
    number
}

impl Peer {
    /// Opens a connection and says nothing.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        let peer = Self { stream };
        peer.set_patience(Duration::from_secs(15));
        peer
    }

    /// Opens a connection and sends the preface and empty settings.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(Self::open(address).stream)
    }

    /// How long a read or a write may take.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a socket");
        self.stream.set_write_timeout(Some(patience)).expect("a socket");
    }
}

impl<S: Read + Write> Peer<S> {
    /// Sends the preface and empty settings on a stream that is open already.
    pub(crate) fn over(stream: S) -> Self {
        let mut peer = Self { stream };
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).expect("sent");
        peer
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Reads until a frame is one of these; an error is the end of the connection.
    pub(crate) fn until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.frame()?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }
}
