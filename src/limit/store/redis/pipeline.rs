//! One socket, many callers: what is sent in one turn of the worker's loop leaves in one write, and
//! replies go to the callers in the order in which they sent.
//!
//! Nothing is sent twice. A caller that has left keeps its place, so that its reply, when it comes,
//! is nobody else's. When the connection ends every caller is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use redis::{PushKind, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};

use super::super::super::stats::StoreErrorKind;
use super::command::Command;
use super::dial::{ConnectError, is_of_tls};
use super::reply;

/// Most callers whose replies are awaited, those that have left included.
const MOST_AWAITED: usize = 4096;
/// Bytes read at once.
const SCRATCH: usize = 16 * 1024;

/// The callers' end of a connection.
#[derive(Debug)]
pub(super) struct Pipeline(Rc<Shared>);

type Answer = Result<Value, StoreErrorKind>;

#[derive(Debug, Default)]
struct Shared {
    /// Sent by callers and not yet written.
    outgoing: RefCell<Vec<u8>>,
    /// Whose replies are still to come.
    awaited: RefCell<VecDeque<oneshot::Sender<Answer>>>,
    /// Wakes the driver.
    driver: RefCell<Option<Waker>>,
    /// Told of each message that the server sent unasked.
    pushed: Notify,
    ended: Cell<bool>,
    /// What TLS said when it ended the connection.
    distrust: RefCell<Option<String>>,
}

impl Pipeline {
    /// A pipeline over `stream`, and the future that drives it until the connection ends. A reply of more
    /// than `longest` bytes ends it.
    pub(super) fn new<S>(stream: S, longest: usize) -> (Self, impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shared = Rc::new(Shared::default());
        (Self(Rc::clone(&shared)), drive(stream, shared, longest))
    }

    /// Waits for a message that the server sends unasked; one that came since the last wait counts.
    pub(super) async fn pushed(&self) {
        self.0.pushed.notified().await;
    }

    /// Sends one command at once; the future waits for its reply.
    ///
    /// # Errors
    /// [`StoreErrorKind::Reset`] when the connection ended, [`StoreErrorKind::Protocol`] when its bytes
    /// were no reply, [`StoreErrorKind::Timeout`] when too many replies are overdue.
    pub(super) fn send(&self, command: &Command) -> impl Future<Output = Answer> + use<> {
        let reply = self.0.enqueue(command);
        async move { reply?.await.unwrap_or(Err(StoreErrorKind::Reset)) }
    }
}

impl Pipeline {
    /// What an error of the first command means: with TLS 1.3 a server says only then that it does not trust us.
    pub(super) fn explain(&self, kind: StoreErrorKind) -> ConnectError {
        match &*self.0.distrust.borrow() {
            Some(error) => ConnectError::new(StoreErrorKind::Tls, error.clone()),
            None => kind.into(),
        }
    }
}

impl Shared {
    fn enqueue(&self, command: &Command) -> Result<oneshot::Receiver<Answer>, StoreErrorKind> {
        if self.ended.get() {
            return Err(StoreErrorKind::Reset);
        }
        let mut awaited = self.awaited.borrow_mut();
        if awaited.len() >= MOST_AWAITED {
            return Err(StoreErrorKind::Timeout);
        }
        let (sender, receiver) = oneshot::channel();
        awaited.push_back(sender);
        self.outgoing.borrow_mut().extend_from_slice(command.bytes());
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
        Ok(receiver)
    }

    /// Gives a reply to the caller whose turn it is; false when nobody asked for it.
    fn answer(&self, answer: Answer) -> bool {
        let Some(caller) = self.awaited.borrow_mut().pop_front() else { return false };
        // A caller that has left needs no answer.
        let _ = caller.send(answer);
        true
    }
}

/// Tells every caller when the driver ends, however it ends.
struct Ending(Rc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.set(true);
        self.0.awaited.borrow_mut().clear();
    }
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: Rc<Shared>, longest: usize) {
    let ending = Ending(shared);
    let scratch = vec![0; SCRATCH].into();
    let mut wire = Wire { stream, incoming: BytesMut::new(), scratch, longest, flushing: false, broken: None };
    let ended = poll_fn(|cx| wire.poll(cx, &ending.0)).await;
    if let Err(error) = ended {
        if is_of_tls(&error) {
            *ending.0.distrust.borrow_mut() = Some(error.to_string());
        }
        tracing::debug!(%error, "connection to redis ended");
    }
}

/// The socket and what has arrived of the next reply.
struct Wire<S> {
    stream: S,
    incoming: BytesMut,
    scratch: Box<[u8]>,
    longest: usize,
    flushing: bool,
    /// Why nothing can be written any more. What the peer said before it closed is still read: it may say why.
    broken: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Writes what is to be written and reads what is there; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<io::Result<()>> {
        shared.driver.replace(Some(cx.waker().clone()));
        if self.broken.is_none()
            && let Poll::Ready(Err(error)) = self.poll_write(cx, shared)
        {
            self.broken = Some(error);
            shared.ended.set(true);
        }
        loop {
            match ready!(self.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(self.broken.take().map_or(Ok(()), Err)),
                Ok(_) => self.deliver(shared)?,
                Err(said) if is_of_tls(&said) => return Poll::Ready(Err(said)),
                Err(error) => return Poll::Ready(Err(self.broken.take().unwrap_or(error))),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<io::Result<()>> {
        let mut outgoing = shared.outgoing.borrow_mut();
        while !outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outgoing.drain(..written);
            self.flushing = true;
        }
        if self.flushing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once; 0 is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = ReadBuf::new(&mut self.scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
        self.incoming.extend_from_slice(scratch.filled());
        Poll::Ready(Ok(scratch.filled().len()))
    }

    /// Hands every complete reply to its caller.
    fn deliver(&mut self, shared: &Shared) -> io::Result<()> {
        loop {
            match reply::read(&self.incoming, self.longest) {
                Ok(None) => return Ok(()),
                Ok(Some((value, len))) => {
                    self.incoming.advance(len);
                    if is_unasked(&value) {
                        shared.pushed.notify_one();
                    } else if !shared.answer(Ok(value)) {
                        return Err(io::Error::other("a reply to no command"));
                    }
                }
                Err(malformed) => {
                    shared.answer(Err(StoreErrorKind::Protocol));
                    return Err(io::Error::other(malformed));
                }
            }
        }
    }
}

/// Whether a message answers nobody. In RESP3 the answer to SUBSCRIBE has a push's form.
fn is_unasked(value: &Value) -> bool {
    matches!(value, Value::Push { kind, .. } if *kind != PushKind::Subscribe)
}
