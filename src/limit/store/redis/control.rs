//! A connection for questions about servers, not for decisions: to a sentinel, or to a Cluster's node
//! for the map of slots.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use rustls::ClientConfig;

use super::super::settings::ServerAddress;
use super::command::Command;
use super::dial::{ConnectError, Driver, accepted, dial};
use super::login::Login;
use super::pipeline::Pipeline;

/// Until TCP, TLS and login are done; and, again, until a question is answered.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Most bytes of an answer: the map of a Cluster of many scattered slots.
const LONGEST: usize = 1 << 20;

/// A connection that is ready for questions.
#[derive(Debug)]
pub(super) struct Control {
    pipeline: Pipeline,
    _driver: Driver,
}

impl Control {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Says what failed, and where.
    pub(super) async fn open(
        address: &ServerAddress,
        login: Login<'_>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, ConnectError> {
        let opened = match tokio::time::timeout(TIMEOUT, open(address, login, tls)).await {
            Ok(opened) => opened,
            Err(_) => Err(ConnectError::timeout(TIMEOUT)),
        };
        opened.map_err(|error| error.at(&address.to_string()))
    }

    /// The answer to a command whose words are these.
    ///
    /// # Errors
    /// An error reply, a lost connection, or no answer in time.
    pub(super) async fn ask(&self, words: &[&str]) -> Result<Value, ConnectError> {
        let answer = tokio::time::timeout(TIMEOUT, self.pipeline.send(&Command::of(words))).await;
        let answer = answer.map_err(|_| ConnectError::timeout(TIMEOUT))?;
        accepted(answer?, words.first().copied().unwrap_or_default())
    }

    /// Waits for a message that the server sends unasked.
    pub(super) async fn pushed(&self) {
        self.pipeline.pushed().await;
    }
}

async fn open(
    address: &ServerAddress,
    login: Login<'_>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Control, ConnectError> {
    let (pipeline, driver) = dial(address, tls, LONGEST).await?;
    let greeting = pipeline.send(&login.hello()).await.map_err(|kind| pipeline.explain(kind))?;
    accepted(greeting, "HELLO")?;
    Ok(Control { pipeline, _driver: driver })
}
