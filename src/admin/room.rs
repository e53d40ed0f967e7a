//! Who is connected to the admin listener: only so many, and whoever asks nothing makes room for the next one, so
//! that silent connections never keep a health check out.

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

/// One connection's place.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Whether a request is being answered.
    busy: Cell<bool>,
    wanted: Notify,
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
        let idle = seats.iter().position(|seat| !seat.busy.get());
        let idle = idle.and_then(|position| seats.remove(position));
        idle.inspect(|seat| seat.wanted.notify_one()).is_some()
    }

    /// The connection has ended.
    pub(super) fn leave(&self, seat: &Rc<Seat>) {
        self.seats.borrow_mut().retain(|other| !Rc::ptr_eq(other, seat));
        self.left.notify_one();
    }
}

impl Seat {
    /// A request is being answered, or not any more.
    pub(super) fn answers(&self, busy: bool) {
        self.busy.set(busy);
    }

    /// Ends when another connection gets the place.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
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
        first.answers(true);
        for _ in 2..MOST {
            room.enter().await.answers(true);
        }
        let last = room.enter().await;
        second.wanted().await;
        last.answers(true);
        let full = tokio::time::timeout(std::time::Duration::from_millis(20), room.enter()).await;
        assert!(full.is_err(), "all are being answered");
        room.leave(&first);
        room.enter().await;
    }
}
