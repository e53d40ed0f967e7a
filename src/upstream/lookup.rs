//! What is known of a server's name, and waiting until something is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Address, Server};

/// What DNS said of one server, for all who want to go there. A server that has no name is known at once.
#[derive(Debug)]
pub struct Lookup(watch::Sender<Known>);

#[derive(Debug)]
enum Known {
    /// It is being asked for the first time.
    Nothing,
    /// Its addresses; while it cannot be resolved again, those it had last.
    Addresses,
    /// It never had one, and this was the reason last.
    NoAddress(Arc<str>),
}

impl Lookup {
    /// Nothing is known of a name yet.
    #[must_use]
    pub fn of(address: &Address) -> Self {
        let known = if address.is_name() { Known::Nothing } else { Known::Addresses };
        Self(watch::Sender::new(known))
    }

    /// It has addresses.
    pub(super) fn succeeded(&self) {
        self.0.send_if_modified(|known| !matches!(std::mem::replace(known, Known::Addresses), Known::Addresses));
    }

    /// It could not be resolved. Whether it never could.
    pub(super) fn failed(&self, error: &str) -> bool {
        self.0.send_if_modified(|known| {
            let never = !matches!(known, Known::Addresses);
            if never {
                *known = Known::NoAddress(error.into());
            }
            never
        })
    }

    /// Waits, for so long at most, until the first answer is there. Whether that was still to come.
    pub(super) async fn answered(&self, longest: Duration) -> bool {
        let mut heard = self.0.subscribe();
        if !matches!(*heard.borrow_and_update(), Known::Nothing) {
            return false;
        }
        // In vain is as good: then the name is no better known than before, and who goes there is told.
        let _ = tokio::time::timeout(longest, heard.changed()).await;
        true
    }

    /// Whether it has addresses, or needs none.
    #[must_use]
    pub fn is_known(&self) -> bool {
        matches!(*self.0.borrow(), Known::Addresses)
    }

    /// Whether it is known to have no address.
    #[must_use]
    pub fn is_in_vain(&self) -> bool {
        matches!(*self.0.borrow(), Known::NoAddress(_))
    }

    /// Why nobody can go there.
    pub(super) fn error(&self) -> io::Error {
        match &*self.0.borrow() {
            Known::NoAddress(why) => io::Error::new(io::ErrorKind::NotFound, why.to_string()),
            Known::Nothing => io::Error::new(io::ErrorKind::TimedOut, "the name is still being asked for"),
            Known::Addresses => io::Error::new(io::ErrorKind::NotFound, "the name has other addresses by now"),
        }
    }
}

/// Waits until something is known of the names of these servers, for so long at most.
pub(super) async fn all_answered(servers: &[Arc<Server>], longest: Duration) {
    let all = async {
        for server in servers {
            server.lookup.answered(longest).await;
        }
    };
    let _ = tokio::time::timeout(longest, all).await;
}
