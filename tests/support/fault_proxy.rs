//! A link to a server that a test can make bad while it is in use: it stands between the program and,
//! say, Redis, on a port of its own, and passes bytes on as the [`Fault`] in force says. A fault begins
//! and ends for open connections too.
//!
//! Each direction of a connection has a thread that reads and one that writes, so that a delay is one of
//! the link and not of its throughput.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::port::Port;

/// What is wrong with the link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every byte is under way for this long, in each direction.
    Delay(Duration),
    /// So many bytes per second pass, in each direction.
    Rate(u32),
    /// Connections are accepted, and nothing passes. What was sent arrives when the fault ends, as with TCP.
    BlackHole,
    /// No connection: those that are open are reset, and nobody listens.
    Refused,
    /// A connection is reset after so many bytes of replies.
    CutAfter(usize),
    /// About one in so many bytes of the replies has its highest bit set. No reply that is damaged so
    /// can be taken for another good one: all that a script answers is digits.
    Garbled(u32),
    /// The server's side says that it has ended; what the program sends still arrives.
    HalfClosed,
}

/// How often a thread that has nothing to do looks whether something has changed.
const GLANCE: Duration = Duration::from_millis(5);
/// Most pieces under way in one direction.
const UNDER_WAY: usize = 1024;

/// The link. Ends with the test.
pub(crate) struct FaultProxy {
    port: Port,
    link: Arc<Link>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// What all threads share.
struct Link {
    server: SocketAddr,
    /// The fault and how many there were before it.
    fault: Mutex<(Fault, usize)>,
    listening: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<Vec<Weak<Pair>>>,
}

/// The two sockets of a connection. They close when its last thread has ended.
struct Pair {
    program: TcpStream,
    server: TcpStream,
    cut: AtomicBool,
}

/// Bytes that were read together, and when.
type Piece = (Instant, Vec<u8>);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    Requests,
    Replies,
}

impl FaultProxy {
    /// A good link to a server on a port of this machine.
    pub(crate) fn to(server_port: u16) -> Self {
        let link = Arc::new(Link {
            server: (Ipv4Addr::LOCALHOST, server_port).into(),
            fault: Mutex::new((Fault::None, 0)),
            listening: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let proxy = Self { port: Port::take(), link, listener: Mutex::new(None) };
        proxy.listen();
        proxy
    }

    /// Where the program reaches the server through this link.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Lets a fault begin, in place of the one before.
    pub(crate) fn set(&self, fault: Fault) {
        let mut current = self.link.fault.lock().expect("no thread panics");
        *current = (fault, current.1 + 1);
        drop(current);
        if fault == Fault::Refused {
            self.refuse();
        } else {
            self.listen();
        }
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.link.connections.load(Ordering::SeqCst)
    }

    fn listen(&self) {
        let mut thread = self.listener.lock().expect("no thread panics");
        if thread.is_none() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port())).expect("the port is ours");
            self.link.listening.store(true, Ordering::SeqCst);
            let link = Arc::clone(&self.link);
            *thread = Some(std::thread::spawn(move || link.accept(&listener)));
        }
    }

    fn refuse(&self) {
        if let Some(thread) = self.listener.lock().expect("no thread panics").take() {
            self.link.listening.store(false, Ordering::SeqCst);
            // The thread waits for a connection.
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port()));
            thread.join().expect("the listener ends");
        }
        for pair in self.link.open.lock().expect("no thread panics").drain(..).filter_map(|pair| pair.upgrade()) {
            pair.reset();
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl Link {
    fn fault(&self) -> (Fault, usize) {
        *self.fault.lock().expect("no thread panics")
    }

    /// Runs until nobody is to listen any more.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for program in listener.incoming().map_while(Result::ok) {
            if !self.listening.load(Ordering::SeqCst) {
                return;
            }
            self.connections.fetch_add(1, Ordering::SeqCst);
            let Ok(server) = TcpStream::connect(self.server) else { continue };
            let pair = Arc::new(Pair { program, server, cut: AtomicBool::new(false) });
            let mut open = self.open.lock().expect("no thread panics");
            open.retain(|pair| pair.strong_count() > 0);
            open.push(Arc::downgrade(&pair));
            drop(open);
            for direction in [Direction::Requests, Direction::Replies] {
                let (sender, receiver) = sync_channel(UNDER_WAY);
                let (reading, writing, link) = (Arc::clone(&pair), Arc::clone(&pair), Arc::clone(self));
                std::thread::spawn(move || reading.read(direction, &sender));
                std::thread::spawn(move || {
                    if link.carry(&writing, direction, &receiver).is_err() {
                        writing.reset();
                    }
                });
            }
        }
    }

    /// Passes on what comes until the sender has ended or the connection is cut.
    fn carry(&self, pair: &Pair, direction: Direction, pieces: &Receiver<Piece>) -> io::Result<()> {
        let to = pair.to(direction);
        let mut allowance = Allowance::default();
        let mut ended = false;
        while !pair.cut.load(Ordering::SeqCst) {
            let (fault, number) = self.fault();
            if fault == Fault::HalfClosed && direction == Direction::Replies && !ended {
                to.shutdown(Shutdown::Write)?;
                ended = true;
            }
            match pieces.recv_timeout(GLANCE) {
                Ok(_) if ended => {}
                Ok(piece) => self.pass(pair, direction, piece, allowance.of(number))?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return to.shutdown(Shutdown::Write),
            }
        }
        Ok(())
    }

    /// Passes one piece on, as the fault in force says at each moment.
    fn pass(&self, pair: &Pair, direction: Direction, piece: Piece, replied: &mut usize) -> io::Result<()> {
        let (arrived, bytes) = piece;
        let mut to = pair.to(direction);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && !pair.cut.load(Ordering::SeqCst) {
            match (self.fault().0, direction) {
                (Fault::Delay(delay), _) if arrived.elapsed() < delay => {
                    std::thread::sleep(delay.saturating_sub(arrived.elapsed()).min(GLANCE));
                }
                (Fault::Rate(rate), _) => {
                    to.write_all(&rest[..1])?;
                    rest = &rest[1..];
                    self.pause(Duration::from_secs(1) / rate, pair);
                }
                (Fault::BlackHole | Fault::Refused, _) => std::thread::sleep(GLANCE),
                (Fault::CutAfter(most), Direction::Replies) if *replied + rest.len() >= most => {
                    to.write_all(&rest[..most.saturating_sub(*replied).min(rest.len())])?;
                    pair.reset();
                }
                (Fault::Garbled(one_in), Direction::Replies) => {
                    to.write_all(&garbled(rest, one_in))?;
                    rest = &[];
                }
                _ => {
                    to.write_all(rest)?;
                    *replied += rest.len();
                    rest = &[];
                }
            }
        }
        Ok(())
    }

    /// Waits, but not beyond the end of the fault.
    fn pause(&self, time: Duration, pair: &Pair) {
        let (begun, number) = (Instant::now(), self.fault().1);
        while begun.elapsed() < time && self.fault().1 == number && !pair.cut.load(Ordering::SeqCst) {
            std::thread::sleep(GLANCE.min(time));
        }
    }
}

/// Bytes of replies that have passed on a connection under one fault.
#[derive(Debug, Default)]
struct Allowance {
    number: usize,
    replied: usize,
}

impl Allowance {
    fn of(&mut self, number: usize) -> &mut usize {
        if self.number != number {
            *self = Self { number, replied: 0 };
        }
        &mut self.replied
    }
}

fn garbled(bytes: &[u8], one_in: u32) -> Vec<u8> {
    bytes.iter().map(|byte| if fastrand::u32(..one_in) == 0 { byte | 0x80 } else { *byte }).collect()
}

impl Pair {
    fn from(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::Requests { &self.program } else { &self.server }
    }

    fn to(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::Requests { &self.server } else { &self.program }
    }

    /// Reads until the sender has ended.
    fn read(&self, direction: Direction, pieces: &SyncSender<Piece>) {
        let (mut from, mut buffer) = (self.from(direction), vec![0; 16 * 1024]);
        let _ = self.to(direction).set_nodelay(true);
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if pieces.send((Instant::now(), buffer[..len].to_vec())).is_err() {
                return;
            }
        }
    }

    /// Makes every thread end, and the end a reset.
    fn reset(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for side in [&self.program, &self.server] {
            let _ = SockRef::from(side).set_linger(Some(Duration::ZERO));
            let _ = side.shutdown(Shutdown::Read);
        }
    }
}
