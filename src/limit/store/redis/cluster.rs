//! A Redis Cluster: a node per shard, a map of slots, and decisions sent to where their keys are.
//!
//! Keys of one subject share a slot, so their limits are decided by one atomic call. Limits of several
//! subjects are asked one slot after the other (`cluster/turns.rs`). A redirection says that nothing was
//! executed and is followed once within the deadline; each shard has a breaker of its own, so one
//! that is away concerns its keys only.

mod groups;
mod map;
mod refresh;
mod turns;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::super::key::Subject;
use super::super::super::stats::StoreErrorKind;
use super::super::settings::ServerAddress;
use super::super::{Ask, Reply, Stray};
use super::connection::ConnectError;
use super::keys::{KeyForm, slot_of};
use super::log::{Outage, Said};
use super::node::{Kept, Node};
use super::order::{Asking, Order, Told};
use super::place::Place;
use super::redirect::Redirect;
use super::refund::Refund;
use super::shared::{Absence, Shared};
use map::{Owners, Range};
use turns::Turns;

/// Nodes that are known at once.
const MOST_NODES: usize = 1000;
/// A node without slots is kept this long after a redirection to it.
const UNLISTED: Duration = Duration::from_mins(1);
/// Names that are tried to find one for the probes of every node.
const MOST_PROBE_NAMES: usize = 1 << 18;

/// One worker's view of a Cluster. Its background tasks end when it is dropped.
#[derive(Debug)]
pub(super) struct Cluster {
    inner: Rc<Inner>,
    refresher: JoinHandle<()>,
}

/// What decisions and the refreshing task share.
#[derive(Debug)]
struct Inner {
    shared: Rc<Shared>,
    /// Where a Cluster is looked for that nothing is known of.
    seeds: Vec<ServerAddress>,
    owners: RefCell<Owners>,
    nodes: RefCell<Vec<Member>>,
    /// The node that the last redirection led to: its map is the newest.
    newest: RefCell<Option<ServerAddress>>,
    /// Why there is no map; `None` when there is one, or when none was looked for yet.
    cause: Cell<Option<StoreErrorKind>>,
    /// Wakes decisions that came before the first map.
    mapped: Notify,
    /// There while a slot has no owner.
    absence: RefCell<Option<Absence>>,
    said: Cell<Said>,
}

/// A node of the Cluster that is, or was just, somebody's owner.
#[derive(Debug)]
struct Member {
    kept: Kept,
    address: ServerAddress,
    /// Whether it is in the map.
    listed: bool,
    /// The last redirection to it.
    used: Instant,
}

impl Cluster {
    /// Starts looking for it in the background. Must be called inside a worker's runtime.
    pub(super) fn start(shared: &Rc<Shared>, seeds: &[ServerAddress]) -> Self {
        let inner = Rc::new(Inner {
            shared: Rc::clone(shared),
            seeds: seeds.to_vec(),
            owners: RefCell::new(Owners::new()),
            nodes: RefCell::default(),
            newest: RefCell::default(),
            cause: Cell::new(None),
            mapped: Notify::new(),
            absence: RefCell::new(Some(Absence::begin(shared))),
            said: Cell::default(),
        });
        let refresher = tokio::task::spawn_local(refresh::refresh(Rc::clone(&inner)));
        Self { inner, refresher }
    }

    /// Decides all of `asks`: at once where they share a slot, else slot by slot.
    pub(super) async fn decide(
        &self,
        (now_us, deadline): (Option<i64>, Instant),
        asks: &[Ask<'_>],
        stray: &Stray,
    ) -> Result<Reply, StoreErrorKind> {
        let form = self.form();
        let Some(first) = asks.first() else { return Err(StoreErrorKind::Protocol) };
        let turns = || Turns::new(&self.inner, asks.len(), now_us, deadline);
        if !self.has_in_one_slot(asks) {
            return turns().take(groups::by_slot(asks, form), stray).await;
        }
        match self.inner.send(form.slot(first), &Order::Decide { now_us, asks }, deadline).await? {
            Told::Decided(reply) => Ok(reply),
            Told::Elsewhere(Redirect::Split) if asks.len() > 1 => {
                let one = groups::by_slot(asks, form);
                turns().take(one.iter().flat_map(groups::Group::by_state).collect(), stray).await
            }
            _ => Err(StoreErrorKind::Moved),
        }
    }

    /// Whether all of these share a slot, so that they are decided at once.
    pub(super) fn has_in_one_slot(&self, asks: &[Ask<'_>]) -> bool {
        let form = self.form();
        let mut slots = asks.iter().map(|ask| form.slot(ask));
        asks.len() < 2 || slots.next().is_none_or(|first| slots.all(|slot| slot == first))
    }

    fn form(&self) -> KeyForm<'_> {
        KeyForm::of(&self.inner.shared.settings)
    }

    /// Sends an order about this subject's state to whoever has its slot.
    pub(super) async fn send(
        &self,
        state_id: &str,
        subject: &[u8],
        order: &Order<'_>,
        deadline: Instant,
    ) -> Result<Told, StoreErrorKind> {
        self.inner.send(self.form().slot_of_state(state_id, subject), order, deadline).await
    }

    /// The node that has the slot of a key with this in its braces.
    pub(super) async fn owner_of(&self, tag: &[u8], deadline: Instant) -> Result<Rc<Node>, StoreErrorKind> {
        self.inner.owner(slot_of(tag), deadline).await
    }

    /// Whether nobody is asked about this state: its slot has no owner, or one that is away.
    pub(super) fn is_away_for(&self, ask: &Ask<'_>) -> bool {
        match self.inner.known_owner(self.form().slot(ask)) {
            Some(owner) => owner.is_away(),
            None => self.inner.cause.get().is_some(),
        }
    }

    /// Whether every slot has an owner that answers.
    pub(super) fn is_up(&self) -> bool {
        self.inner.shared.is_whole()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

impl Inner {
    /// Sends an order to whoever has the slot, and follows a redirection of each kind once. What could
    /// not be followed is returned.
    async fn send(&self, slot: u16, order: &Order<'_>, deadline: Instant) -> Result<Told, StoreErrorKind> {
        let mut node = self.owner(slot, deadline).await?;
        let mut asking = Asking::No;
        let (mut may_move, mut may_ask) = (true, true);
        loop {
            match node.call(order, deadline, asking).await? {
                Told::Elsewhere(Redirect::Moved(address)) if may_move => {
                    may_move = false;
                    asking = Asking::No;
                    node = self.moved(slot, &address).ok_or(StoreErrorKind::Moved)?;
                }
                Told::Elsewhere(Redirect::Ask(address)) if may_ask => {
                    may_ask = false;
                    asking = Asking::Yes;
                    node = self.node_at(&address).ok_or(StoreErrorKind::Moved)?;
                }
                Told::Elsewhere(Redirect::Unserved) => {
                    self.shared.changed.notify_one();
                    return Err(StoreErrorKind::Clusterdown);
                }
                told => return Ok(told),
            }
        }
    }

    /// Sends a refund on its way to where its slot was last.
    fn post(&self, refund: &Refund<'_>) {
        if let Some(node) = self.known_owner(refund.slot()) {
            node.post(&refund.order());
        }
    }

    /// The node that has a slot. The first decisions wait for the map.
    async fn owner(&self, slot: u16, deadline: Instant) -> Result<Rc<Node>, StoreErrorKind> {
        if self.nodes.borrow().is_empty() && self.cause.get().is_none() {
            let _ = tokio::time::timeout_at(deadline.into(), self.mapped.notified()).await;
        }
        self.known_owner(slot).ok_or_else(|| self.cause.get().unwrap_or(StoreErrorKind::Clusterdown))
    }

    fn known_owner(&self, slot: u16) -> Option<Rc<Node>> {
        let owner = self.owners.borrow().of(slot)?;
        self.nodes.borrow().get(owner).map(|member| Rc::clone(member.kept.node()))
    }

    /// A slot has another owner: it is believed at once for this one, and the map is read again.
    fn moved(&self, slot: u16, address: &ServerAddress) -> Option<Rc<Node>> {
        let node = self.node_at(address)?;
        let owner = self.nodes.borrow().iter().position(|member| member.address == *address)?;
        self.owners.borrow_mut().set(slot, slot, owner);
        *self.newest.borrow_mut() = Some(address.clone());
        self.shared.changed.notify_one();
        Some(node)
    }

    /// The node at this address, which may be new.
    fn node_at(&self, address: &ServerAddress) -> Option<Rc<Node>> {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(member) = nodes.iter_mut().find(|member| member.address == *address) {
            member.used = Instant::now();
            return Some(Rc::clone(member.kept.node()));
        }
        if nodes.len() >= MOST_NODES {
            return None;
        }
        let member = Member::start(&self.shared, address);
        let node = Rc::clone(member.kept.node());
        nodes.push(member);
        Some(node)
    }

    /// A new map. Nodes that it does not name are dropped, unless a redirection led to them just now.
    fn install(&self, ranges: &[Range]) {
        let mut nodes = self.nodes.take();
        for member in &mut nodes {
            member.listed = false;
        }
        let mut owners = Owners::new();
        for range in ranges {
            let known = nodes.iter().position(|member| member.address == range.node);
            let owner = known.unwrap_or_else(|| {
                nodes.push(Member::start(&self.shared, &range.node));
                nodes.len() - 1
            });
            nodes[owner].listed = true;
            owners.set(range.first, range.last, owner);
        }
        let places = drop_strangers(&mut nodes);
        owners.renumber(&places);
        choose_probes(&owners, &nodes);
        let complete = owners.is_complete();
        *self.owners.borrow_mut() = owners;
        *self.nodes.borrow_mut() = nodes;
        self.covered(complete);
    }

    /// Whether every slot has an owner now.
    fn covered(&self, complete: bool) {
        let log = &self.shared.stats.store_log;
        if complete {
            self.cause.set(None);
            if self.absence.take().is_some() && self.said.get() == Said::Away {
                self.said.set(log.back(Said::Away, &self.shared.settings.display()));
            }
        } else {
            self.unmapped(&ConnectError::new(StoreErrorKind::Clusterdown, "not every slot has a node").into());
        }
        self.mapped.notify_waiters();
    }

    /// There is no map, or one with holes.
    fn unmapped(&self, outage: &Outage) {
        self.cause.set(Some(outage.cause));
        if self.absence.borrow().is_none() {
            self.shared.begin_epoch();
            *self.absence.borrow_mut() = Some(Absence::begin(&self.shared));
        }
        let log = &self.shared.stats.store_log;
        self.said.set(log.away(self.said.get(), &self.shared.settings.display(), outage));
        self.mapped.notify_waiters();
    }
}

impl Member {
    fn start(shared: &Rc<Shared>, address: &ServerAddress) -> Self {
        let kept = Kept::start(shared, Place::Shard(address.clone()));
        Self { kept, address: address.clone(), listed: false, used: Instant::now() }
    }

    fn is_wanted(&self) -> bool {
        self.listed || (self.kept.node().is_up() && self.used.elapsed() < UNLISTED)
    }
}

/// Drops nodes that nothing leads to any more; returns where each of the others stands now.
fn drop_strangers(nodes: &mut Vec<Member>) -> Vec<Option<usize>> {
    let mut kept = 0;
    let mut places = Vec::with_capacity(nodes.len());
    nodes.retain(|member| {
        let wanted = member.is_wanted();
        places.push(wanted.then_some(kept));
        kept += usize::from(wanted);
        if !wanted {
            member.kept.node().dismiss();
        }
        wanted
    });
    places
}

/// Gives each node's probes a state in one of its slots.
fn choose_probes(owners: &Owners, nodes: &[Member]) {
    let mut without: Vec<bool> = nodes.iter().map(|member| member.listed).collect();
    for number in 0..MOST_PROBE_NAMES {
        if !without.contains(&true) {
            return;
        }
        let name = if number == 0 { "~probe".to_owned() } else { format!("~probe{number}") };
        if let Some(owner) = owners.of(slot_of(name.as_bytes()))
            && std::mem::take(&mut without[owner])
        {
            nodes[owner].kept.node().probe_with(Subject::from_slice(name.as_bytes()));
        }
    }
}
