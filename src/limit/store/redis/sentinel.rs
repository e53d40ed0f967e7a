//! Where the master is: sentinels are asked when a connection is needed, and listened to while there is one.
//!
//! What a sentinel says is checked: a server whose ROLE is not master is not used, and a master that
//! works is not left for one that does not. A sentinel that has not noticed a switch yet is asked
//! again after a pause that grows.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::super::super::stats::StoreErrorKind;
use super::super::settings::{SentinelSettings, ServerAddress};
use super::connection::{ConnectError, Connection, Driver};
use super::control::Control;
use super::dial::{Login, text, unexpected};
use super::keeper;
use super::node::Node;

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
                Ok(Err(error)) => of_sentinels = Some(error),
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
                let control = Control::open(&sentinel, this.login(), tls).await?;
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

    /// The sentinels have users of their own.
    fn login(&self) -> Login<'_> {
        Login { username: self.settings.username.as_deref(), password: self.settings.password.as_ref() }
    }
}

/// Listens to one sentinel after the other, until it is aborted.
pub(super) async fn watch(node: Rc<Node>, sentinels: Rc<Sentinels>) {
    for sentinel in sentinels.settings.nodes.iter().cycle() {
        if let Ok(tls) = node.shared.tls.config().await
            && let Ok(control) = Control::open(sentinel, sentinels.login(), tls).await
        {
            listen(&node, &sentinels, &control).await;
        }
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// Tells the keeper whenever this sentinel names another master, for as long as it answers.
async fn listen(node: &Node, sentinels: &Sentinels, control: &Control) {
    // Who may not subscribe hears of a switch when it asks next.
    let _ = control.ask(&["SUBSCRIBE", "+switch-master"]).await;
    while let Ok(address) = sentinels.ask(control).await {
        if !node.is_connected_to(&address) {
            *sentinels.announced.borrow_mut() = Some(address);
            sentinels.heard.notify_one();
        }
        let _ = tokio::time::timeout(INTERVAL, control.pushed()).await;
    }
}

fn refused(message: &str) -> ConnectError {
    ConnectError { kind: StoreErrorKind::Refused, message: message.to_owned() }
}
