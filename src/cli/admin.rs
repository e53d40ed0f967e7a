//! Talking to a running proxy over its admin listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Global;
use crate::config::{self, AdminSettings, Report};

/// For a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, bytes.
const LONGEST: usize = 16 << 20;
/// The variable that holds the token.
const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// Which proxy is meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Running {
    /// The running proxy's admin listener [default: the configuration's, else 127.0.0.1:9901]; its token is taken
    /// from the configuration or from `$TOLLGATE_ADMIN_TOKEN`
    #[arg(long, value_name = "URL", value_parser = authority, env = "TOLLGATE_ADMIN")]
    admin: Option<Authority>,
}

/// Asks one proxy.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Runtime,
    admin: Authority,
    token: Option<String>,
    patience: Duration,
}

/// Reads `http://HOST:PORT`, or only `HOST:PORT`.
pub(super) fn authority(given: &str) -> Result<Authority, String> {
    if given.starts_with("https://") {
        return Err("the admin listener speaks no TLS; write http://HOST:PORT".to_owned());
    }
    let bare = given.strip_prefix("http://").unwrap_or(given);
    let admin: Authority =
        bare.strip_suffix('/').unwrap_or(bare).parse().map_err(|_| "write http://HOST:PORT".to_owned())?;
    match admin.port_u16() {
        Some(_) if !admin.as_str().contains('@') => Ok(admin),
        Some(_) => Err("no user is needed to ask; write http://HOST:PORT".to_owned()),
        None => Err("the port is missing; write http://HOST:PORT".to_owned()),
    }
}

impl Client {
    /// Finds out whom to ask.
    ///
    /// # Errors
    /// When the configuration does not tell.
    pub(super) fn of(running: &Running, global: &Global) -> anyhow::Result<Self> {
        let configured = || {
            let wrong = "the configuration has errors (see `tollgate check`); name the admin listener with --admin";
            settings(global)?.map_err(|_| anyhow::anyhow!(wrong))
        };
        Self::asking(running, configured)
    }

    /// The same, where the configuration may be the very thing that is wrong: then the default address is asked.
    ///
    /// # Errors
    /// When the configuration says that there is nobody to ask.
    pub(super) fn of_any(running: &Running, global: &Global) -> anyhow::Result<Self> {
        Self::asking(running, || Ok(settings(global)?.unwrap_or_default()))
    }

    fn asking(
        running: &Running,
        settings: impl FnOnce() -> anyhow::Result<Option<AdminSettings>>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let given = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        if let Some(admin) = &running.admin {
            return Ok(Self { runtime, admin: admin.clone(), token: given, patience: PATIENCE });
        }
        let settings = settings()?;
        let address = reached(settings.as_ref())?;
        let of_file = settings.and_then(|settings| settings.token.map(|token| token.reveal().to_owned()));
        Ok(Self { runtime, admin: address.to_string().parse()?, token: given.or(of_file), patience: PATIENCE })
    }

    /// The same, where an answer may take so long.
    pub(super) fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Its answer to one request below `/api/v1/`.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub(super) fn ask(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.runtime.block_on(async {
            let answer = self.send(method, path, body).await?;
            let body = tokio::time::timeout(PATIENCE, Limited::new(answer.into_body(), LONGEST).collect()).await;
            let body = body.context("the proxy did not end its answer in time")?;
            let bytes = body.map_err(|error| anyhow::anyhow!("the proxy's answer broke off: {error}"))?.to_bytes();
            serde_json::from_slice(&bytes).context("the proxy's answer is not JSON")
        })
    }

    /// Runs something on the thread that asks.
    pub(super) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The head of an answer, its body to come.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        let admin = &self.admin;
        let unreachable = || format!("cannot reach the admin listener at http://{admin}; name it with --admin");
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(admin.as_str()));
        let stream = connecting.await.with_context(unreachable)?.with_context(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(unreachable)?;
        tokio::spawn(connection);
        let mut request =
            Request::builder().method(method).uri(format!("/api/v1/{path}")).header(header::HOST, admin.as_str());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if method != Method::GET {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let answer =
            tokio::time::timeout(self.patience, sender.send_request(request.body(Full::new(Bytes::from(body)))?));
        let answer = answer.await.with_context(unreachable)?.with_context(unreachable)?;
        if answer.status() == StatusCode::OK { Ok(answer) } else { Err(refused(answer).await) }
    }
}

/// Why it refused, in its own words.
async fn refused(answer: Response<Incoming>) -> anyhow::Error {
    let status = answer.status();
    let body = tokio::time::timeout(PATIENCE, Limited::new(answer.into_body(), LONGEST).collect()).await;
    let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(frames) = problem["frames"].as_str() {
        // What `check` draws, and nothing around it.
        let title = problem["title"].as_str().unwrap_or("Refused").to_lowercase();
        return anyhow::anyhow!("{title}, what ran before goes on\n{}", frames.trim_end());
    }
    let detail = problem["detail"].as_str().unwrap_or("it did not say why");
    let hint = if status == StatusCode::UNAUTHORIZED { format!(" Set ${TOKEN}.") } else { String::new() };
    anyhow::anyhow!("the proxy refused ({}): {}{hint}", status.as_u16(), super::text::printable(detail.as_bytes(), 400))
}

/// The admin listener of the configuration; `None` when there is no configuration to look at, and what is wrong with
/// one that cannot be read.
///
/// # Errors
/// When the configuration says that there is nobody to ask.
pub(super) fn settings(global: &Global) -> anyhow::Result<Result<Option<AdminSettings>, Report>> {
    if global.named().is_none() && super::find_default().is_none() {
        return Ok(Ok(None));
    }
    match config::load(&global.origin()?) {
        Err(report) => Ok(Err(report)),
        Ok(loaded) => match loaded.config.admin {
            Some(admin) => Ok(Ok(Some(admin))),
            None => bail!("the configuration says `admin: none`, so there is nobody to ask; give it an address"),
        },
    }
}

/// Where this machine reaches it; the default address where nothing says another.
///
/// # Errors
/// When only the proxy's log tells.
pub(super) fn reached(settings: Option<&AdminSettings>) -> anyhow::Result<SocketAddr> {
    let address = settings.map_or(AdminSettings::DEFAULT_ADDRESS, |settings| settings.address);
    if address.port() == 0 {
        bail!("`admin` has port 0, so only its log tells which one it got; name it with --admin");
    }
    // `[::]` takes IPv4 connections too, and is 0.0.0.0 on a machine without IPv6.
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    Ok(SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_url_has_a_host_and_a_port_and_nothing_else() {
        for (given, expected) in [
            ("http://127.0.0.1:9901", Some("127.0.0.1:9901")),
            ("http://[::1]:9901/", Some("[::1]:9901")),
            ("proxy.internal:9901", Some("proxy.internal:9901")),
            ("https://127.0.0.1:9901", None),
            ("http://127.0.0.1", None),
            ("http://ann@127.0.0.1:9901", None),
            ("http://127.0.0.1:9901/readyz", None),
            ("", None),
        ] {
            assert_eq!(authority(given).ok().as_ref().map(Authority::as_str), expected, "{given}");
        }
    }

    #[test]
    fn an_admin_listener_on_every_address_is_asked_on_this_machine() {
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "a-token").unwrap();
        for (address, expected) in [
            (":9902", "127.0.0.1:9902"),
            ("0.0.0.0:9902", "127.0.0.1:9902"),
            ("[::1]:9902", "[::1]:9902"),
            ("192.0.2.7:9902", "192.0.2.7:9902"),
        ] {
            let yaml = format!(
                "listen: 127.0.0.1:0\nupstream: echo\nadmin: {{ address: '{address}', token_file: '{}' }}\n",
                token.path().display()
            );
            let loaded = config::parse(&yaml, &config::Origin::Arguments, &|_| None).unwrap();
            assert_eq!(reached(loaded.config.admin.as_ref()).unwrap().to_string(), expected);
        }
    }
}
