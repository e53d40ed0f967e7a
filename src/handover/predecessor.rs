//! The new process' side.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::{Channel, FileId, LONGEST, Message, Passed, VARIABLE};

/// The process that this one takes the place of, and that serves until it is told.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    sockets: Vec<Passed>,
    /// What it has learned since it started, that this one should know before it serves.
    pub knows: Vec<String>,
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
        channel.send(&Message::Hello, None)?;
        let (sockets, knows) = given(&channel)?;
        Ok(Some(Self { channel, sockets, knows }))
    }

    /// The sockets that it gave; once.
    pub fn sockets(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.sockets)
    }

    /// This process serves, and looks after these files of Unix sockets: the one before may end.
    ///
    /// # Errors
    /// When it ended meanwhile.
    pub fn ready(self, files: &[FileId]) -> io::Result<()> {
        files.iter().try_for_each(|file| self.channel.send(&Message::Keeps(*file), None))?;
        self.channel.send(&Message::Ready, None)
    }

    /// This process cannot start, and why; the one before goes on.
    pub fn failed(self, why: &str) {
        // JSON writes some characters as six.
        let why: String = why.chars().take(LONGEST / 8).collect();
        // Who is not there any more need not know.
        let _ = self.channel.send(&Message::Failed(why), None);
    }
}

/// All sockets that are given, and what is known.
fn given(channel: &Channel) -> io::Result<(Vec<Passed>, Vec<String>)> {
    let mut all = Vec::new();
    loop {
        match channel.receive()? {
            (Message::Socket(label), Some(socket)) => all.push(Passed { label, socket }),
            (Message::AllGiven { knows }, _) => return Ok((all, knows)),
            (message, _) => {
                let what = format!("the process before says {message:?} where it should give its sockets");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
    }
}
