//! The endpoints that one request goes to, one after the other.

use std::sync::Arc;

use smallvec::SmallVec;

use super::load::{Busy, Slot};
use super::{Endpoint, EndpointId, Upstream};

/// Where a request has been, and where it would rather go.
#[derive(Debug)]
pub struct Selection<'a> {
    upstream: &'a Upstream,
    wish: Wish,
    tried: SmallVec<[EndpointId; 4]>,
    may_repeat: bool,
}

/// What a request says of where it goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// The hash of the value which a consistent hash goes by.
    pub hash: Option<u64>,
    /// The token of the endpoint that its client went to before.
    pub stays_with: Option<u64>,
}

/// Why there is no further endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nobody {
    /// All have been tried.
    Left,
    /// None had room in time.
    Busy,
}

/// Endpoints that are as good as each other.
type Group<'e> = SmallVec<[&'e Arc<Endpoint>; 8]>;

/// What a look at the endpoints found.
enum Look {
    Found(Slot),
    Full,
    NobodyLeft,
}

impl<'a> Selection<'a> {
    /// Nothing has been tried yet.
    #[must_use]
    pub fn new(upstream: &'a Upstream, wish: Wish) -> Self {
        Self { upstream, wish, tried: SmallVec::new(), may_repeat: false }
    }

    /// A place at the next endpoint; waits while all have as many requests as they may have, and for the first
    /// answer to a server's name.
    ///
    /// # Errors
    /// When all were tried, or nobody had room in time.
    pub async fn next(&mut self) -> Result<Slot, Nobody> {
        let mut slot = self.enter().await?;
        if slot.endpoint.is_name {
            let server = Arc::clone(&slot.endpoint.server);
            if server.lookup.answered(self.upstream.settings.connect_timeout).await {
                // It is known now by its addresses, or as somebody who has none.
                drop(slot);
                slot = self.enter().await?;
            }
        }
        self.tried.push(slot.endpoint.id);
        Ok(slot)
    }

    async fn enter(&self) -> Result<Slot, Nobody> {
        match self.look() {
            Look::Found(slot) => Ok(slot),
            Look::NobodyLeft => Err(Nobody::Left),
            Look::Full => {
                let waited = self.upstream.settings.queue.wait(|| match self.look() {
                    Look::Found(slot) => Some(Ok(slot)),
                    Look::NobodyLeft => Some(Err(Nobody::Left)),
                    Look::Full => None,
                });
                waited.await.map_err(|Busy| Nobody::Busy)?
            }
        }
    }

    /// From now on an endpoint may be tried again when no other is left; the last one is the last to be.
    pub fn start_over(&mut self) {
        self.tried.drain(..self.tried.len().saturating_sub(1));
        self.may_repeat = true;
    }

    fn look(&self) -> Look {
        let endpoints = self.upstream.endpoints();
        match self.look_past(&self.tried, &endpoints) {
            Look::NobodyLeft if self.may_repeat => self.look_past(&[], &endpoints),
            look => look,
        }
    }

    fn look_past(&self, tried: &[EndpointId], endpoints: &[Arc<Endpoint>]) -> Look {
        let untried = |endpoint: &&Arc<Endpoint>| !tried.contains(&endpoint.id);
        if let Some(slot) = self.same_as_before(endpoints.iter().filter(untried)) {
            return Look::Found(slot);
        }
        for backup in [false, true] {
            let fit = |endpoint: &&Arc<Endpoint>| endpoint.backup == backup && endpoint.is_well();
            let group: Group<'_> = endpoints.iter().filter(untried).filter(fit).collect();
            if !group.is_empty() {
                return self.enter_one_of(group);
            }
        }
        // Where nobody is well, somebody may be all the same; where somebody was well, that one was asked.
        if !tried.is_empty() && endpoints.iter().any(|endpoint| endpoint.is_well()) {
            return Look::NobodyLeft;
        }
        let not_drained = |endpoint: &&Arc<Endpoint>| !endpoint.server.draining.is_on();
        self.enter_one_of(endpoints.iter().filter(untried).filter(not_drained).collect())
    }

    /// The endpoint that the client went to before, if it is well and has room.
    fn same_as_before<'e>(&self, mut endpoints: impl Iterator<Item = &'e Arc<Endpoint>>) -> Option<Slot> {
        let (before, sticky) = (self.wish.stays_with?, self.upstream.settings.sticky.as_ref()?);
        let endpoint = endpoints.find(|endpoint| sticky.token(endpoint) == before && endpoint.is_well())?;
        self.upstream.settings.queue.enter(endpoint)
    }

    fn enter_one_of(&self, mut group: Group<'_>) -> Look {
        if group.is_empty() {
            return Look::NobodyLeft;
        }
        let queue = &self.upstream.settings.queue;
        group.retain(|endpoint| queue.has_room(endpoint));
        // Another worker may take the last place meanwhile.
        let turns = if self.tried.is_empty() { &self.upstream.next } else { &self.upstream.next_again };
        while let Some(picked) = self.upstream.pick(&group, self.wish.hash, turns) {
            if let Some(slot) = queue.enter(picked) {
                return Look::Found(slot);
            }
            let full = picked.id;
            group.retain(|endpoint| endpoint.id != full);
        }
        Look::Full
    }
}
