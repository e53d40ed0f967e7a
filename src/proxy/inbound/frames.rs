//! The frames of an HTTP/2 connection, counted as they pass: those that cost work and bring no request on
//! its way may come in bursts, but not without end (RFC 9113 §10.5).
//!
//! h2 bounds the memory of such floods, and some kinds of them. It answers as many PING and SETTINGS as
//! come, and takes as many PRIORITY, `WINDOW_UPDATE` and unknown frames. Every frame but HEADERS and DATA
//! spends credit here. Requests, what is sent, and time earn it.

use tokio::time::Instant;

/// Bytes of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// Bytes of the preface that the first frame follows (RFC 9113 §3.4).
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

/// Most credit, and that of a new connection.
const MOST: u32 = 2_000;
/// Credit that a second earns.
const PER_SECOND: u64 = 200;
/// Credit that HEADERS earn: the request is under way, and with it frames of other kinds.
const REQUEST: u32 = 2;
/// What `RST_STREAM` costs: more than its request earned, or requests that are taken back would be free.
const RESET: u32 = 4;
/// Bytes sent that earn one credit: a client that opens its window for less is not here to read.
const BYTES: usize = 32;

/// More frames came than anyone needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct FrameGuard {
    received: Frames,
    sent: Frames,
    credit: u32,
    /// Up to when time has earned its credit.
    earned: Instant,
    /// Bytes sent that have not earned a credit yet.
    bytes: usize,
    /// The latest stream of the client.
    stream: [u8; 4],
}

impl FrameGuard {
    /// For a connection of which nothing was read, its preface included.
    pub(super) fn new() -> Self {
        let received = Frames { payload: PREFACE, ..Frames::default() };
        let sent = Frames::default();
        Self { received, sent, credit: MOST, earned: Instant::now(), bytes: 0, stream: [0; 4] }
    }

    /// Follows bytes from the client.
    pub(super) fn received(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while let Some(frame) = self.received.next(&mut bytes) {
            match frame.kind {
                DATA if frame.length > 0 => {}
                HEADERS => {
                    self.stream = self.stream.max(frame.stream);
                    self.earn(REQUEST);
                }
                RST_STREAM => self.spend(RESET)?,
                _ => self.spend(1)?,
            }
        }
        Ok(())
    }

    /// Follows bytes to the client.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        self.earn(u32::try_from(self.bytes / BYTES).unwrap_or(MOST));
        self.bytes %= BYTES;
        while self.sent.next(&mut bytes).is_some() {}
    }

    /// The frame that tells the client why its connection ends (RFC 9113 §6.8); `None` in the middle of
    /// another one.
    pub(super) fn farewell(&self) -> Option<[u8; HEADER + 8]> {
        let [a, b, c, d] = self.stream;
        let frame = [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, a & 0x7f, b, c, d, 0, 0, 0, ENHANCE_YOUR_CALM];
        self.sent.are_whole().then_some(frame)
    }

    fn earn(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit).min(MOST);
    }

    fn spend(&mut self, cost: u32) -> Result<(), Flood> {
        if self.credit < cost {
            let time = u64::try_from(self.earned.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.earned = Instant::now();
            self.earn(u32::try_from(time.saturating_mul(PER_SECOND) / 1_000).unwrap_or(MOST));
        }
        self.credit = self.credit.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }
}

/// Follows the frames in the bytes of one direction.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    /// Bytes of `header` that are there.
    read: usize,
    /// Bytes of the payload still to come.
    payload: usize,
}

/// What a frame's header says.
struct Frame {
    kind: u8,
    length: usize,
    stream: [u8; 4],
}

impl Frames {
    /// The next frame whose header ends in `bytes`, which then begin behind that; `None` when they are used up.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let payload = self.payload.min(bytes.len());
        self.payload -= payload;
        let taken = (HEADER - self.read).min(bytes.len() - payload);
        let (header, rest) = bytes[payload..].split_at(taken);
        self.header[self.read..self.read + taken].copy_from_slice(header);
        *bytes = rest;
        self.read += taken;
        if self.read < HEADER {
            return None;
        }
        let [a, b, c, kind, _, stream @ ..] = self.header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        (self.read, self.payload) = (0, length);
        Some(Frame { kind, length, stream })
    }

    fn are_whole(&self) -> bool {
        self.read == 0 && self.payload == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, stream][..], payload].concat()
    }

    fn began() -> FrameGuard {
        let mut guard = FrameGuard::new();
        guard.received(&[b'x'; PREFACE]).unwrap();
        guard
    }

    #[test]
    fn frames_are_counted_however_they_are_split() {
        let pings = frame(6, 0, b"12345678").repeat(usize::try_from(MOST).unwrap() + 1);
        for size in [1, 2, 7, 9, 16, 17, 18, 1000, pings.len()] {
            let mut guard = began();
            // Time is not what lets the last one pass.
            guard.earned = Instant::now() + std::time::Duration::from_mins(1);
            let flooded = pings.chunks(size).filter(|bytes| guard.received(bytes) == Err(Flood)).count();
            assert!(flooded >= 1, "in pieces of {size}");
            assert_eq!(guard.credit, 0);
        }
    }

    #[test]
    fn requests_and_what_is_sent_earn_what_others_spend() {
        let mut guard = began();
        guard.earned = Instant::now() + std::time::Duration::from_mins(1);
        for _ in 0..MOST {
            guard.received(&frame(6, 0, b"12345678").repeat(2)).unwrap();
            guard.received(&frame(HEADERS, 1, b"abc")).unwrap();
        }
        for _ in 0..MOST {
            guard.received(&frame(8, 0, b"1234")).unwrap();
            guard.sent(&frame(DATA, 1, &[0; 32]));
        }
        guard.received(&frame(DATA, 1, b"a").repeat(5_000)).unwrap();
        assert_eq!(guard.received(&frame(DATA, 1, b"").repeat(5_000)), Err(Flood));
    }

    #[test]
    fn requests_that_are_taken_back_spend_more_than_they_earn() {
        let mut guard = began();
        guard.earned = Instant::now() + std::time::Duration::from_mins(1);
        let pair = [frame(HEADERS, 1, b"abc"), frame(RST_STREAM, 1, b"1234")].concat();
        assert_eq!(guard.received(&pair.repeat(usize::try_from(MOST).unwrap())), Err(Flood));
    }

    #[test]
    fn the_farewell_names_the_latest_stream_and_stands_between_frames() {
        let mut guard = began();
        guard.received(&frame(HEADERS, 5, b"abc")).unwrap();
        assert_eq!(guard.farewell(), Some([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 11]));
        guard.sent(&frame(DATA, 5, b"abc")[..10]);
        assert_eq!(guard.farewell(), None);
    }
}
