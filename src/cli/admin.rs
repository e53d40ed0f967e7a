//! Talking to a running proxy over its admin listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Global;
use crate::config::frames::Colour;
use crate::config::{self, AdminSettings, Origin, Report, WHOSE};

/// For a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, bytes.
const LONGEST: usize = 16 << 20;
/// The variable that holds an address.
const ADMIN: &str = "TOLLGATE_ADMIN";
/// The variable that holds the token.
const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// Which proxy is meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Running {
    /// The running proxy's admin listener [default: `$TOLLGATE_ADMIN` unless -c is given, else the configuration's, else
    /// 127.0.0.1:9901]; its token is `$TOLLGATE_ADMIN_TOKEN`, else that of the configuration that told the address
    #[arg(long, value_name = "URL", value_parser = authority)]
    admin: Option<Authority>,
}

/// Where a proxy is asked, and which one is meant.
#[derive(Debug)]
pub(super) struct Whom {
    /// Its admin listener.
    pub(super) address: Authority,
    /// The configuration file it runs on, where the address was found by that.
    pub(super) file: Option<PathBuf>,
    /// What is wrong with the file, where therefore nobody knows its admin listener.
    pub(super) wrong: Option<String>,
    token: Option<String>,
}

/// Asks one proxy.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Runtime,
    whom: Whom,
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

impl Running {
    /// Finds out whom to ask.
    ///
    /// # Errors
    /// When the configuration says that there is nobody to ask.
    pub(super) fn find(&self, global: &Global) -> anyhow::Result<Whom> {
        let given = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        // What is said on the command line comes before the environment.
        let variable = std::env::var(ADMIN).ok().filter(|admin| !admin.is_empty() && global.config.is_none());
        let variable = variable.map(|admin| authority(&admin).map_err(|why| anyhow::anyhow!("${ADMIN}: {why}")));
        if let Some(address) = self.admin.clone().map(Ok).or(variable).transpose()? {
            return Ok(Whom { address, file: None, wrong: None, token: given });
        }
        let Some(origin) = (global.named().is_some() || super::find_default().is_some()).then(|| global.origin())
        else {
            let address = reached(&AdminSettings::default())?;
            return Ok(Whom { address, file: None, wrong: None, token: given });
        };
        let origin = origin?;
        let (settings, wrong) = settings(&origin)?;
        let file = match origin {
            Origin::File(path) => Some(std::path::absolute(path)?),
            Origin::Stdin | Origin::Arguments => None,
        };
        let token = given.or_else(|| settings.token.as_ref().map(|token| token.reveal().to_owned()));
        Ok(Whom { address: reached(&settings)?, file, wrong, token })
    }
}

impl Whom {
    /// The file, as [`WHOSE`] tells it.
    pub(super) fn told_file(&self) -> Option<String> {
        let file = self.file.as_ref()?.as_os_str().as_bytes();
        Some(percent_encode(file, NON_ALPHANUMERIC).to_string())
    }

    /// What to say where nobody answers, or another proxy does.
    pub(super) fn advice(&self) -> String {
        match &self.wrong {
            Some(frames) => {
                let frames = frames.trim_end();
                format!(
                    "its admin listener is not known, for the configuration has errors; name it with --admin\n{frames}"
                )
            }
            None => "name its admin listener with --admin".to_owned(),
        }
    }
}

impl Client {
    /// Finds out whom to ask.
    ///
    /// # Errors
    /// When the configuration says that there is nobody to ask.
    pub(super) fn of(running: &Running, global: &Global) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, whom: running.find(global)?, patience: PATIENCE })
    }

    /// Where it asks.
    pub(super) fn address(&self) -> &Authority {
        &self.whom.address
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
        let admin = &self.whom.address;
        let unreachable = || format!("nobody answers at http://{admin}; {}", self.whom.advice());
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(admin.as_str()));
        let stream = connecting.await.with_context(unreachable)?.with_context(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(unreachable)?;
        tokio::spawn(connection);
        let mut request =
            Request::builder().method(method).uri(format!("/api/v1/{path}")).header(header::HOST, admin.as_str());
        if let Some(file) = self.whom.told_file() {
            request = request.header(WHOSE, file);
        }
        if let Some(token) = &self.whom.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if method != Method::GET {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let answer =
            tokio::time::timeout(self.patience, sender.send_request(request.body(Full::new(Bytes::from(body)))?));
        let answer = answer.await.with_context(unreachable)?.with_context(unreachable)?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::CONFLICT if self.whom.file.is_some() => {
                let file = self.whom.file.as_deref().unwrap_or(Path::new("")).display();
                bail!("http://{admin} is not the proxy of {file}; {}", self.whom.advice())
            }
            _ => Err(refused(answer).await),
        }
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

/// The admin listener of a configuration; the default one, and why, where too much is wrong with the file to tell.
///
/// # Errors
/// When the configuration says that there is nobody to ask.
fn settings(origin: &Origin) -> anyhow::Result<(AdminSettings, Option<String>)> {
    match config::load(origin) {
        Err(Report { admin: Some(admin), .. }) => Ok((*admin, None)),
        Err(report) => Ok((AdminSettings::default(), Some(report.render(Colour::Ansi)))),
        Ok(loaded) => match loaded.config.admin {
            Some(admin) => Ok((admin, None)),
            None => bail!("the configuration says `admin: none`, so there is nobody to ask; give it an address"),
        },
    }
}

/// Where this machine reaches it.
///
/// # Errors
/// When only the proxy's log tells.
fn reached(settings: &AdminSettings) -> anyhow::Result<Authority> {
    let address = settings.address;
    if address.port() == 0 {
        bail!("`admin` has port 0, so only its log tells which one it got; name it with --admin");
    }
    // `[::]` takes IPv4 connections too, and is 0.0.0.0 on a machine without IPv6.
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    Ok(SocketAddr::new(ip, address.port()).to_string().parse()?)
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
            assert_eq!(reached(&loaded.config.admin.unwrap()).unwrap().to_string(), expected);
        }
    }
}
