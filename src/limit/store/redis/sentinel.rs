//! Where the master is: sentinels are asked when a connection is needed, and listened to while there is one.
//!
//! What a sentinel says is checked: a server whose ROLE is not master is not used, and a master that
//! works is not left for one that does not. A sentinel that has not noticed a switch yet is asked
//! again after a pause that grows.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::super::super::stats::StoreErrorKind;
use super::super::settings::{SentinelSettings, ServerAddress};
use super::connection::{ConnectError, Connection, Driver};
use super::control::Control;
use super::dial::{text, unexpected};
use super::keeper;
use super::login::Login;
use super::node::Node;
use super::shared::Shared;

/// A sentinel is asked this often even when it announces nothing: its word may have been lost.
const INTERVAL: Duration = Duration::from_secs(1);
/// Before another sentinel is listened to.
const PAUSE: Duration = Duration::from_millis(500);

/// The sentinels of one master.
#[derive(Debug)]
pub(super) struct Sentinels {
    settings: SentinelSettings,
    /// Named by the sentinel that is listened to, and not looked at yet.
    announced: RefCell<Option<ServerAddress>>,
    /// Told of that.
    heard: Notify,
}

impl Sentinels {
    pub(super) fn new(settings: &SentinelSettings) -> Rc<Self> {
        Rc::new(Self { settings: settings.clone(), announced: RefCell::new(None), heard: Notify::new() })
    }

    /// A master that was announced since the last time.
    pub(super) fn take_announced(&self) -> Option<ServerAddress> {
        self.announced.take()
    }

    /// Waits for an announcement.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Asks all sentinels at once and connects to the first server they name that is the master.
    ///
    /// # Errors
    /// Why no server could be used; else why no sentinel named one.
    pub(super) async fn find_master(self: &Rc<Self>, node: &Node) -> Result<(Connection, Driver), ConnectError> {
        let mut answers = self.ask_all(node.shared.tls.config().await?.as_ref());
        let mut tried: Vec<ServerAddress> = Vec::new();
        let (mut of_servers, mut of_sentinels) = (None, None);
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok(Ok(address)) if !tried.contains(&address) => match keeper::open(node, &address).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => {
                        of_servers = Some(error.at(&address.to_string()));
                        tried.push(address);
                    }
                },
                Ok(Err(error)) => of_sentinels = Some(error.of_sentinel()),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        Err(of_servers.or(of_sentinels).unwrap_or_else(|| refused("no sentinel answers")))
    }

    /// The answer of each sentinel, as it comes.
    fn ask_all(self: &Rc<Self>, tls: Option<&Arc<ClientConfig>>) -> JoinSet<Result<ServerAddress, ConnectError>> {
        let mut answers = JoinSet::new();
        for sentinel in &self.settings.nodes {
            let (this, sentinel, tls) = (Rc::clone(self), sentinel.clone(), tls.cloned());
            answers.spawn_local(async move {
                let control = this.open(&sentinel, tls).await?;
                this.ask(&control).await.map_err(|error| error.at(&sentinel.to_string()))
            });
        }
        answers
    }

    /// Whom this sentinel takes for the master.
    async fn ask(&self, control: &Control) -> Result<ServerAddress, ConnectError> {
        let answer = control.ask(&["SENTINEL", "get-master-addr-by-name", &self.settings.master]).await?;
        let Value::Array(words) = &answer else {
            return Err(match answer {
                Value::Nil => refused(&format!("this sentinel knows no master `{}`", self.settings.master)),
                other => unexpected(&other, "SENTINEL"),
            });
        };
        let words: Vec<&str> = words.iter().filter_map(text).collect();
        let [host, port] = words[..] else { return Err(unexpected(&answer, "SENTINEL")) };
        let port = port.parse().map_err(|_| unexpected(&answer, "SENTINEL"))?;
        Ok(ServerAddress::new(host, port))
    }

    /// A connection to this sentinel.
    async fn open(&self, sentinel: &ServerAddress, tls: Option<Arc<ClientConfig>>) -> Result<Control, ConnectError> {
        Control::open(sentinel, Login::of_sentinels(&self.settings).await, tls).await
    }
}

/// Listens to one sentinel after the other, until it is aborted.
pub(super) async fn watch(node: Rc<Node>, sentinels: Rc<Sentinels>) {
    let mut hearing = Hearing::new(&node.shared, sentinels.settings.nodes.len());
    for sentinel in sentinels.settings.nodes.iter().cycle() {
        let error = listen_to(sentinel, &node, &sentinels, &mut hearing).await;
        hearing.failed(&error);
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// Tells the keeper whenever this sentinel names another master, for as long as it answers; why it does not
/// any more.
async fn listen_to(
    sentinel: &ServerAddress,
    node: &Node,
    sentinels: &Sentinels,
    hearing: &mut Hearing,
) -> ConnectError {
    let opened = match node.shared.tls.config().await {
        Ok(tls) => sentinels.open(sentinel, tls).await,
        Err(error) => Err(error),
    };
    let control = match opened {
        Ok(control) => control,
        Err(error) => return error,
    };
    // Who may not subscribe hears of a switch when it asks next.
    let _ = control.ask(&["SUBSCRIBE", "+switch-master"]).await;
    loop {
        let address = match sentinels.ask(&control).await {
            Ok(address) => address,
            Err(error) => return error.at(&sentinel.to_string()),
        };
        hearing.answered();
        if !node.is_connected_to(&address) {
            *sentinels.announced.borrow_mut() = Some(address);
            sentinels.heard.notify_one();
        }
        let _ = tokio::time::timeout(INTERVAL, control.pushed()).await;
    }
}

/// Whether any sentinel answers this worker.
struct Hearing {
    shared: Rc<Shared>,
    sentinels: usize,
    /// In a row, each at another sentinel.
    failures: usize,
    is_silent: bool,
}

impl Hearing {
    fn new(shared: &Rc<Shared>, sentinels: usize) -> Self {
        Self { shared: Rc::clone(shared), sentinels, failures: 0, is_silent: false }
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.shared.stats.sentinel_up.store(1, Ordering::Relaxed);
        if std::mem::take(&mut self.is_silent) {
            self.shared.stats.store_log.heard(&self.shared.settings.display());
        }
    }

    fn failed(&mut self, error: &ConnectError) {
        self.failures += 1;
        if self.failures < self.sentinels || std::mem::replace(&mut self.is_silent, true) {
            return;
        }
        self.shared.stats.sentinel_up.store(0, Ordering::Relaxed);
        self.shared.stats.store_log.unheard(&self.shared.settings.display(), &error.message);
    }
}

fn refused(message: &str) -> ConnectError {
    ConnectError::new(StoreErrorKind::Refused, message)
}
