//! Overrides that stand in Redis: a task of its own reads them once a second when they have changed, and carries
//! out changes. Neither is on a request's path. When Redis is away what was read last goes on until it ends.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use tokio::sync::{mpsc, oneshot};

use super::{DynamicOverrides, Entry, Limits, MOST, Place, Refusal, Wanted};
use crate::limit::key::Subject;
use crate::limit::stats::{LimitStats, StoreErrorKind};
use crate::limit::store::redis::RedisStore;
use crate::limit::store::settings::RedisSettings;

/// Orders that may wait; one more waits at whoever gives it.
pub(super) const MOST_ORDERS: usize = 16;
/// How often Redis is asked whether anything has changed.
const PERIOD: Duration = Duration::from_secs(1);
/// The same until it has answered once.
const FIRST_PERIOD: Duration = Duration::from_millis(50);
/// Overrides per reply, which keeps one below what a reply may have.
const PAGE: usize = 100;
/// The longest an order waits for its turn and its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What stands in the braces of the key: it has a Cluster slot of its own.
const TAG: &str = "~overrides";

/// Reads and changes the one hash (see its head).
const SCRIPT: &str = include_str!("../../../lua/overrides.lua");

/// A change that somebody waits for.
#[derive(Debug)]
pub(super) struct Order {
    field: String,
    change: Change,
    done: oneshot::Sender<Result<bool, StoreErrorKind>>,
}

#[derive(Debug)]
enum Change {
    Set { wanted: String, ttl: Duration },
    Remove,
}

/// Sets an override and waits until it holds here.
pub(super) async fn set(
    orders: &mpsc::Sender<Order>,
    limit: &str,
    name: &Subject,
    (wanted, ttl): (&Wanted, Duration),
) -> Result<(), Refusal> {
    let change = Change::Set { wanted: wanted.to_string(), ttl };
    if order(orders, field(limit, name), change).await? { Ok(()) } else { Err(Refusal::Full) }
}

/// Ends an override and waits until it holds no more here.
pub(super) async fn remove(orders: &mpsc::Sender<Order>, limit: &str, name: &Subject) -> Result<(), Refusal> {
    if order(orders, field(limit, name), Change::Remove).await? { Ok(()) } else { Err(Refusal::NoOverride) }
}

async fn order(orders: &mpsc::Sender<Order>, field: String, change: Change) -> Result<bool, Refusal> {
    let (done, answer) = oneshot::channel();
    let ordered = async {
        orders.send(Order { field, change, done }).await.map_err(|_| StoreErrorKind::Refused)?;
        answer.await.map_err(|_| StoreErrorKind::Refused)?
    };
    let answered = tokio::time::timeout(PATIENCE, ordered).await.unwrap_or(Err(StoreErrorKind::Timeout));
    answered.map_err(Refusal::Store)
}

/// `<limit>@<name>`; no limit's name holds an `@`.
fn field(limit: &str, name: &Subject) -> String {
    format!("{limit}@{}", String::from_utf8_lossy(name))
}

impl DynamicOverrides {
    /// Reads and changes them in Redis until dropped; at once done with the memory store. Needs a local runtime.
    pub async fn keep(self: Arc<Self>, settings: &RedisSettings, stats: Arc<LimitStats>) {
        let Place::Redis { taken, .. } = &self.place else { return };
        let Some(mut orders) = taken.lock().take() else { return };
        let mut reader = Reader {
            store: RedisStore::start(settings, stats),
            key: format!("{}:{{{TAG}}}:h1", settings.key_prefix),
            seen: String::new(),
            failing: None,
        };
        let (mut period, mut due) = (FIRST_PERIOD, tokio::time::Instant::now());
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    if reader.refresh(&self).await.is_ok() {
                        period = PERIOD;
                    }
                    due = tokio::time::Instant::now() + period;
                }
                order = orders.recv() => match order {
                    Some(order) => reader.carry_out(&self, order).await,
                    None => return,
                },
            }
        }
    }
}

/// What reads the hash.
struct Reader {
    store: Rc<RedisStore>,
    key: String,
    /// The version that was read last.
    seen: String,
    /// Why the last reading failed, so that it is told once.
    failing: Option<StoreErrorKind>,
}

/// Entries of the hash, with the server's clock.
struct Page {
    now_ms: i64,
    version: String,
    total: usize,
    entries: Vec<(String, String)>,
}

impl Reader {
    async fn carry_out(&mut self, overrides: &DynamicOverrides, order: Order) {
        let Order { field, change, done } = order;
        let result = match change {
            Change::Set { wanted, ttl } => {
                let (ttl, most) = (ttl.as_millis().to_string(), MOST.to_string());
                self.call(&["set", &field, &ttl, &wanted, &most]).await
            }
            Change::Remove => self.call(&["remove", &field]).await,
        };
        let result = result.and_then(|reply| match reply {
            Value::Int(done) => Ok(done == 1),
            _ => Err(StoreErrorKind::Protocol),
        });
        if result == Ok(true) {
            let _ = self.refresh(overrides).await;
        }
        // Whoever ordered may have left.
        let _ = done.send(result);
    }

    /// Reads what has changed, if anything.
    async fn refresh(&mut self, overrides: &DynamicOverrides) -> Result<(), StoreErrorKind> {
        let read = self.read(overrides).await;
        let failing = read.err();
        if let Some(cause) = failing.filter(|_| self.failing != failing) {
            let (cause, help) = (cause.label(), cause.advice());
            tracing::warn!(cause, help, "dynamic overrides cannot be read: those read last go on until they end");
        }
        if failing.is_none() && self.failing.is_some() {
            tracing::info!("dynamic overrides are read again");
        }
        self.failing = failing;
        read
    }

    async fn read(&mut self, overrides: &DynamicOverrides) -> Result<(), StoreErrorKind> {
        let sent = Instant::now();
        let Some(mut all) = self.page(0).await? else { return Ok(()) };
        while all.entries.len() < all.total.min(MOST) {
            let Some(page) = self.page(all.entries.len()).await? else { return Ok(()) };
            if page.version != all.version || page.entries.is_empty() {
                // Changed meanwhile: the next reading finds it whole.
                return Ok(());
            }
            all.entries.extend(page.entries);
        }
        overrides.publish(limits(overrides, &all, sent));
        self.seen = all.version;
        Ok(())
    }

    /// Entries from this one on; `None` when nothing has changed.
    async fn page(&self, first: usize) -> Result<Option<Page>, StoreErrorKind> {
        let reply = self.call(&["read", &self.seen, &first.to_string(), &PAGE.to_string()]).await?;
        match reply {
            Value::Array(items) if items.len() == 1 => Ok(None),
            Value::Array(items) => Page::of(items).map(Some).ok_or(StoreErrorKind::Protocol),
            _ => Err(StoreErrorKind::Protocol),
        }
    }

    async fn call(&self, words: &[&str]) -> Result<Value, StoreErrorKind> {
        self.store.evaluate(SCRIPT, (TAG, &self.key), words).await
    }
}

impl Page {
    fn of(items: Vec<Value>) -> Option<Self> {
        let mut items = items.into_iter();
        let (Value::Int(now_ms), version, Value::Int(total)) = (items.next()?, text(items.next()?)?, items.next()?)
        else {
            return None;
        };
        let mut entries = Vec::new();
        while let Some(field) = items.next() {
            entries.push((text(field)?, text(items.next()?)?));
        }
        Some(Self { now_ms, version, total: usize::try_from(total).ok()?, entries })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The overrides among these entries that this configuration knows, cut to what it allows.
fn limits(overrides: &DynamicOverrides, page: &Page, sent: Instant) -> Limits {
    let mut limits = Limits::default();
    let mut ignored = 0;
    for (field, value) in &page.entries {
        let Some((limit, name)) = field.split_once('@') else { continue };
        let Ok((policy, rules)) = overrides.find(limit) else { continue };
        let Some((wanted, left)) = value.split_once(' ').and_then(|(ends, wanted)| {
            let left = ends.parse::<i64>().ok()?.saturating_sub(page.now_ms);
            Some((Wanted::read(wanted)?, Duration::from_millis(u64::try_from(left).unwrap_or(0))))
        }) else {
            ignored += 1;
            continue;
        };
        let cut = rules.cut(&wanted).filter(|_| rules.naming.knows(name));
        let Some((wanted, terms)) = cut else {
            ignored += 1;
            continue;
        };
        let name = Subject::from_slice(name.as_bytes());
        let entry = Entry { wanted, terms, until: sent + left.min(rules.max_ttl), shown: rules.naming.shown(&name) };
        limits.entry(Arc::clone(&policy.name)).or_insert_with(HashMap::default).insert(name, entry);
    }
    if ignored > 0 {
        tracing::warn!(ignored, "dynamic overrides that this configuration does not allow are left out");
    }
    limits
}
