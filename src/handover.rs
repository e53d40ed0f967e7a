//! From one process to the next without closing a door: the listening sockets of a running proxy pass to the program
//! that takes its place (`SCM_RIGHTS`, `unix(7)`), so that no connection is refused or reset in between.
//!
//! The old process starts the program that now stands where it was started from, with the same arguments. On the new
//! one's standard input lies a socket on which it says hello, and the old one gives its listening sockets, one message
//! each, and says what it knows by now. The new one says that it is ready once it knows as much, or why it cannot
//! start; until then the old one serves as before, and nobody else accepts.

mod predecessor;
mod successor;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

pub use predecessor::Predecessor;
pub use successor::Successor;

/// The variable that tells a process what lies on its standard input.
const VARIABLE: &str = "TOLLGATE_HANDOVER";
/// Longest message, bytes: reports of mistakes are cut to fit.
const LONGEST: usize = 64 * 1024;

/// What one process tells the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// The new process is one that knows what to do with sockets.
    Hello,
    /// With a socket.
    Socket(Label),
    /// There are no more sockets; and something that the old process has learned since it started.
    AllGiven { knows: Vec<String> },
    /// The new process looks after this file of a Unix socket.
    Keeps(FileId),
    /// The new process serves.
    Ready,
    /// The new process cannot start.
    Failed(String),
}

/// Device and inode of a file.
pub type FileId = (u64, u64);

/// Which socket it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Label {
    /// The listener's name.
    pub name: String,
    /// The listener's address as it was configured; the socket's own may be another.
    pub configured: String,
    /// The file of a Unix socket that goes with the process.
    pub file: Option<FileId>,
}

/// A listening socket on its way.
#[derive(Debug)]
pub struct Passed {
    /// Which one.
    pub label: Label,
    /// Itself.
    pub socket: OwnedFd,
}

/// One end of the socket between the two. Messages keep their borders (`SOCK_SEQPACKET`).
#[derive(Debug)]
struct Channel(OwnedFd);

impl Channel {
    fn send(&self, message: &Message, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let sockets = [socket.unwrap_or(self.0.as_fd())];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if socket.is_some() {
            ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
        }
        // Whoever is gone is an error here, and no signal.
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message, and the socket that came with it.
    fn receive(&self) -> io::Result<(Message, Option<OwnedFd>)> {
        let mut text = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sockets = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        let socket = sockets.flatten().next();
        Ok((serde_json::from_slice(&text[..received.bytes])?, socket))
    }
}
