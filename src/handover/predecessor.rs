//! The new process' side.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::{Channel, LONGEST, Message, Passed, VARIABLE};

/// The process that this one takes the place of, and that serves until it is told.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    sockets: Vec<Passed>,
}

impl Predecessor {
    /// The process that started this one to be followed by it, if one did, with all that it gives. Standard input is
    /// empty afterwards.
    ///
    /// # Errors
    /// When the environment tells of one that is not there, it ended meanwhile, or says what nobody understands.
    pub fn find() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let input = std::io::stdin().as_fd().try_clone_to_owned()?;
        if socket_type(&input) != Ok(SocketType::SEQPACKET) {
            let what = format!("{VARIABLE} is set, but nobody hands anything over on standard input; unset it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let channel = Channel(input);
        let sockets = given(&channel)?;
        Ok(Some(Self { channel, sockets }))
    }

    /// The sockets that it gave; once.
    pub fn sockets(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.sockets)
    }

    /// This process serves at these addresses: the one before may end.
    ///
    /// # Errors
    /// When it ended meanwhile.
    pub fn ready(self, addresses: Vec<String>) -> io::Result<()> {
        self.channel.send(&Message::Ready { addresses }, None)
    }

    /// This process cannot start, and why; the one before goes on.
    pub fn failed(self, why: &str) {
        // JSON writes some characters as six.
        let why: String = why.chars().take(LONGEST / 8).collect();
        // Who is not there any more need not know.
        let _ = self.channel.send(&Message::Failed(why), None);
    }
}

/// All sockets that are given.
fn given(channel: &Channel) -> io::Result<Vec<Passed>> {
    let mut all = Vec::new();
    loop {
        match channel.receive()? {
            (Message::Socket(label), Some(socket)) => all.push(Passed { label, socket }),
            (Message::AllGiven, _) => return Ok(all),
            (message, _) => {
                let what = format!("the process before says {message:?} where it should give its sockets");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
    }
}
