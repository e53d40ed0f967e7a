//! The listeners of one worker: opened and closed while it runs, each with a phase of its own.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Acceptor, Bound, Phase};
use crate::config::Listener;
use crate::proxy::listener::Listening;

/// What a worker is told to change.
#[derive(Debug)]
pub enum Order {
    /// Accept on this socket, too.
    Open(Arc<Listener>, Bound),
    /// Accept no more on the listener at this one's address; what is open there may take so long.
    Close(Arc<Listener>, Duration),
    /// Limits may be others now: what was denied under those before is asked again.
    Forget,
}

/// Every listener that is open, or whose last connections are.
pub(super) struct Entrances {
    acceptor: Rc<Acceptor>,
    open: Vec<Entrance>,
    /// Closed ones that still have connections.
    closing: Vec<Rc<watch::Sender<Phase>>>,
    loops: JoinSet<()>,
    phase: Phase,
}

struct Entrance {
    listener: Arc<Listener>,
    /// This worker's own copy of the phase: connections wait on it without touching other cores.
    phase: Rc<watch::Sender<Phase>>,
}

impl Entrances {
    pub(super) fn new(acceptor: Rc<Acceptor>, phase: Phase) -> Self {
        Self { acceptor, open: Vec::new(), closing: Vec::new(), loops: JoinSet::new(), phase }
    }

    /// Begins to accept.
    pub(super) fn open(&mut self, listener: Arc<Listener>, socket: Bound) -> io::Result<()> {
        let socket = Listening::begin(socket)?;
        let (phase, watched) = watch::channel(self.phase);
        self.loops.spawn_local(Rc::clone(&self.acceptor).accept(Arc::clone(&listener), socket, watched));
        self.open.push(Entrance { listener, phase: Rc::new(phase) });
        Ok(())
    }

    /// Follows the process' phase and its orders until there is nothing left to serve, or all is to be cut.
    pub(super) async fn attend(
        mut self,
        mut process: watch::Receiver<Phase>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) {
        let none_open = Rc::clone(&self.acceptor.open);
        loop {
            self.turn(*process.borrow_and_update());
            if self.phase == Phase::Stopped {
                return;
            }
            let leaves = self.phase >= Phase::Draining && self.loops.is_empty();
            tokio::select! {
                changed = process.changed() => if changed.is_err() { return },
                Some(order) = orders.recv() => self.carry_out(order),
                Some(_) = self.loops.join_next() => {}
                () = none_open.none_left(), if leaves => return,
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Open(listener, socket) => {
                if let Err(error) = self.open(Arc::clone(&listener), socket) {
                    tracing::error!(listener = &*listener.name, %error, "cannot listen");
                }
            }
            Order::Close(listener, grace) => self.close(&listener, grace),
            Order::Forget => self.acceptor.proxy.limiter.forget_denials(),
        }
    }

    /// Lets the connections of a listener finish, and cuts those that have not after the grace period.
    fn close(&mut self, listener: &Listener, grace: Duration) {
        let place = |entrance: &Entrance| entrance.listener.address == listener.address;
        self.closing.retain(|phase| !phase.is_closed());
        while let Some(position) = self.open.iter().position(place) {
            let Entrance { phase, .. } = self.open.swap_remove(position);
            advance(&phase, Phase::Draining);
            self.closing.push(Rc::clone(&phase));
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = tokio::time::sleep(grace) => advance(&phase, Phase::Stopped),
                    () = phase.closed() => {}
                }
            });
        }
    }

    /// Passes the process' phase on.
    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.open.iter().map(|entrance| &entrance.phase).chain(&self.closing).for_each(|each| advance(each, phase));
    }
}

/// Phases go one way.
fn advance(sender: &watch::Sender<Phase>, phase: Phase) {
    sender.send_if_modified(|now| {
        let later = phase > *now;
        *now = phase.max(*now);
        later
    });
}
