//! Who is connected to the admin listener: only so many, and whoever asks nothing makes room for the next one, so
//! that silent connections never keep a health check out. In the end those who wait for an answer get it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;

/// Connections open at once; more wait in the kernel's queue while all of them are being answered.
const MOST: usize = 256;

/// The connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Room {
    seats: RefCell<VecDeque<Rc<Seat>>>,
    left: Notify,
}

/// What is done on a connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing was asked, or all of it was answered.
    #[default]
    Nothing,
    /// A request is being answered.
    Answering,
    /// An answer goes on until its client leaves.
    Streaming,
}

/// One connection's place.
#[derive(Debug, Default)]
pub(super) struct Seat {
    doing: Cell<Doing>,
    wanted: Notify,
    closing: Notify,
}

impl Room {
    /// A place for a new connection: one that is free, or that of the oldest which asks nothing.
    pub(super) async fn enter(&self) -> Rc<Seat> {
        loop {
            let left = self.left.notified();
            if self.make_room() {
                let seat = Rc::<Seat>::default();
                self.seats.borrow_mut().push_back(Rc::clone(&seat));
                return seat;
            }
            left.await;
        }
    }

    fn make_room(&self) -> bool {
        let mut seats = self.seats.borrow_mut();
        if seats.len() < MOST {
            return true;
        }
        let idle = seats.iter().position(|seat| seat.doing.get() == Doing::Nothing);
        let idle = idle.and_then(|position| seats.remove(position));
        idle.inspect(|seat| seat.wanted.notify_one()).is_some()
    }

    /// The connection has ended.
    pub(super) fn leave(&self, seat: &Rc<Seat>) {
        self.seats.borrow_mut().retain(|other| !Rc::ptr_eq(other, seat));
        self.left.notify_one();
    }

    /// Ends every connection, and waits until those that are owed an answer have it.
    pub(super) async fn close(&self) {
        self.seats.borrow().iter().for_each(|seat| seat.closing.notify_one());
        loop {
            let left = self.left.notified();
            if self.seats.borrow().iter().all(|seat| seat.doing.get() == Doing::Streaming) {
                return;
            }
            left.await;
        }
    }
}

impl Seat {
    /// Notes what is done on the connection.
    pub(super) fn is(&self, doing: Doing) {
        self.doing.set(doing);
    }

    /// Ends when another connection gets the place.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Ends when the process does.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_asks_nothing_makes_room() {
        let room = Room::default();
        let first = room.enter().await;
        let second = room.enter().await;
        first.is(Doing::Answering);
        for _ in 2..MOST {
            room.enter().await.is(Doing::Answering);
        }
        let last = room.enter().await;
        second.wanted().await;
        last.is(Doing::Answering);
        let full = tokio::time::timeout(std::time::Duration::from_millis(20), room.enter()).await;
        assert!(full.is_err(), "all are being answered");
        room.leave(&first);
        room.enter().await;
    }
}
