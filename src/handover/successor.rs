//! The old process' side.

use std::io;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use super::{Channel, FileId, Message, Passed, VARIABLE};

/// For a new process to say that it is ready.
const PATIENCE: Duration = Duration::from_mins(1);
/// For one that was asked to end, before it is killed.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// The process that is to take this one's place, while it starts.
#[derive(Debug)]
pub struct Successor {
    pid: u32,
    outcome: oneshot::Receiver<Result<Vec<FileId>, String>>,
    process: Abandon,
}

/// Ends a successor that has not become one.
#[derive(Debug)]
struct Abandon(Option<Pid>);

impl Successor {
    /// Starts the program that stands where this one was started from, with its arguments, gives it `sockets`, and
    /// expects it to know what this one `knows`.
    ///
    /// # Errors
    /// When there is no such program, or no process to be had.
    pub fn start(sockets: Vec<Passed>, knows: Vec<String>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Both ways: who reads nothing is given up, too.
        set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&ours, Timeout::Send, Some(PATIENCE))?;
        let mut arguments = std::env::args_os();
        let program = arguments.next().unwrap_or_else(|| "tollgate".into());
        let mut command = Command::new(program);
        let child = command.args(arguments).env(VARIABLE, "stdin").stdin(Stdio::from(theirs)).spawn()?;
        // The command holds the other end, whose closing is to be noticed.
        drop(command);
        let (pid, process) = (child.id(), Abandon(i32::try_from(child.id()).ok().and_then(Pid::from_raw)));
        let (tell, outcome) = oneshot::channel();
        thread::Builder::new().name("successor".to_owned()).spawn(move || {
            // Whoever waited may be ending.
            let _ = tell.send(accompany(child, &Channel(ours), &sockets, knows));
        })?;
        Ok(Self { pid, outcome, process })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it serves; the files of Unix sockets that it looks after.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ready(&mut self) -> Result<Vec<FileId>, String> {
        let outcome = (&mut self.outcome).await.unwrap_or_else(|_| Err("nobody waited for it".to_owned()));
        // It has become one, or is gone.
        self.process.0 = None;
        outcome
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may just have ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// Gives it the sockets and waits for what it says. One that does not become ready is ended.
fn accompany(
    mut child: Child,
    channel: &Channel,
    sockets: &[Passed],
    knows: Vec<String>,
) -> Result<Vec<FileId>, String> {
    let why = match converse(channel, sockets, knows) {
        Ok(Ok(kept)) => return Ok(kept),
        Ok(Err(Message::Failed(why))) => why,
        Ok(Err(message)) => format!("the new process says {message:?}, which nobody expects"),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            format!("the new process was not ready within {} s", PATIENCE.as_secs())
        }
        Err(_) => "the new process ended before it was ready; see what it has written to the log".to_owned(),
    };
    end(&mut child);
    Err(why)
}

/// The files that it keeps; or what it said instead of being ready.
fn converse(channel: &Channel, sockets: &[Passed], knows: Vec<String>) -> io::Result<Result<Vec<FileId>, Message>> {
    // Another program would hold the sockets for as long as it runs, and accept nothing.
    match channel.receive()?.0 {
        Message::Hello => {}
        message => return Ok(Err(message)),
    }
    for Passed { label, socket } in sockets {
        channel.send(&Message::Socket(label.clone()), Some(socket.as_fd()))?;
    }
    channel.send(&Message::AllGiven { knows }, None)?;
    let mut kept = Vec::new();
    loop {
        match channel.receive()?.0 {
            Message::Keeps(file) => kept.push(file),
            Message::Ready => return Ok(Ok(kept)),
            message => return Ok(Err(message)),
        }
    }
}

/// Asks a process to end, then ends it, and lets the system forget it.
fn end(child: &mut Child) {
    drop(Abandon(i32::try_from(child.id()).ok().and_then(Pid::from_raw)));
    let deadline = Instant::now() + LAST_PATIENCE;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    // It may have ended by now.
    let _ = child.kill();
    let _ = child.wait();
}
