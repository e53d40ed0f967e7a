//! `/api/v1/`: everything that the page, `tollgate top` and scripts see and change. One table says which paths
//! there are and what each of them understands; `docs/openapi.yaml` describes the same, and a test compares.
//!
//! Changes are PUT, POST and DELETE with a JSON content type, which no page of another site can send. Each is one
//! line of the log, refused ones too, never with a key.

mod configuration;
mod explain;
mod keys;
mod listings;
mod log;
mod modes;
mod openapi;
mod overrides;
mod servers;

use std::net::SocketAddr;
use std::rc::Rc;

use http::{Method, Request};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::answer::Answer;
use super::{Service, body};
pub(super) use modes::word;

/// One kind of thing that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Everything at a glance.
    Overview,
    /// The same once a second.
    Stream,
    /// The last quarter of an hour.
    History,
    /// Routes.
    Routes,
    /// Limits.
    Limits,
    /// Whether a limit denies.
    Mode,
    /// The keys of a limit that are met most.
    Keys,
    /// The state of one key.
    Key,
    /// Overrides that were set for keys of a limit.
    Overrides,
    /// One of them.
    Override,
    /// Upstreams and their servers.
    Upstreams,
    /// Whether a server gets requests.
    Drain,
    /// The running configuration.
    Config,
    /// What the process log holds.
    Log,
    /// Reading the configuration again.
    Reload,
    /// Another process in this one's place.
    Upgrade,
    /// What would happen to a request.
    Explain,
    /// The description of all this.
    OpenApi,
}

/// Every path, and the methods it understands (HEAD is GET). What stands in braces is percent-encoded.
pub const ENDPOINTS: [(Endpoint, &str, &str); 18] = [
    (Endpoint::Overview, "/api/v1/overview", "GET, HEAD"),
    (Endpoint::Stream, "/api/v1/stream", "GET, HEAD"),
    (Endpoint::History, "/api/v1/history", "GET, HEAD"),
    (Endpoint::Routes, "/api/v1/routes", "GET, HEAD"),
    (Endpoint::Limits, "/api/v1/limits", "GET, HEAD"),
    (Endpoint::Mode, "/api/v1/limits/{limit}/mode", "GET, HEAD, PUT, POST"),
    (Endpoint::Keys, "/api/v1/limits/{limit}/keys", "GET, HEAD"),
    (Endpoint::Key, "/api/v1/limits/{limit}/keys/{key}", "GET, HEAD, DELETE"),
    (Endpoint::Overrides, "/api/v1/limits/{limit}/overrides", "GET, HEAD"),
    (Endpoint::Override, "/api/v1/limits/{limit}/overrides/{key}", "PUT, DELETE"),
    (Endpoint::Upstreams, "/api/v1/upstreams", "GET, HEAD"),
    (Endpoint::Drain, "/api/v1/servers/{upstream}/{server}/drain", "POST, DELETE"),
    (Endpoint::Config, "/api/v1/config", "GET, HEAD"),
    (Endpoint::Log, "/api/v1/log", "GET, HEAD, PUT"),
    (Endpoint::Reload, "/api/v1/reload", "POST"),
    (Endpoint::Upgrade, "/api/v1/upgrade", "POST"),
    (Endpoint::Explain, "/api/v1/explain", "POST"),
    (Endpoint::OpenApi, "/api/v1/openapi.json", "GET, HEAD"),
];

/// Longest body of a change, and of a request to explain, bytes.
const LONGEST: (usize, usize) = (4096, 16 * 1024);

/// What a path asks for, and the names in it, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    endpoint: Endpoint,
    methods: &'static str,
    names: Vec<Vec<u8>>,
}

/// What a handler hands back: an answer, or a refusal.
type Outcome = Result<Answer, Answer>;

impl Target {
    /// Reads a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        // A list may be asked for with a slash behind it.
        let path = path.strip_suffix("/overrides/").map_or_else(|| path.to_owned(), |list| format!("{list}/overrides"));
        ENDPOINTS
            .into_iter()
            .find_map(|(endpoint, pattern, methods)| Some(Self { endpoint, methods, names: names(pattern, &path)? }))
    }

    /// A name in the path; empty when it is no text.
    fn name(&self, position: usize) -> &str {
        self.names.get(position).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// A key in the path: behind the limit's name.
    fn key(&self) -> &[u8] {
        self.names.get(1).map_or(b"", Vec::as_slice)
    }

    /// Whether a method changes something here.
    pub(super) fn is_change(&self, method: &Method) -> bool {
        !matches!(*method, Method::GET | Method::HEAD) && self.endpoint != Endpoint::Explain
    }

    /// What a change does, for the log.
    fn deed(&self, method: &Method) -> &'static str {
        match (self.endpoint, method) {
            (Endpoint::Override, &Method::DELETE) => "override removed",
            (Endpoint::Override, _) => "override set",
            (Endpoint::Key, _) => "key reset",
            (Endpoint::Drain, &Method::DELETE) => "server takes requests again",
            (Endpoint::Drain, _) => "server drained",
            (Endpoint::Mode, _) => "limit switched",
            (Endpoint::Log, _) => "log level set",
            (Endpoint::Reload, _) => "reload asked for",
            (Endpoint::Upgrade, _) => "upgrade asked for",
            _ => "admin request",
        }
    }
}

/// The names in a path of this pattern.
fn names(pattern: &str, path: &str) -> Option<Vec<Vec<u8>>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut names = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(names),
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {
                names.push(percent_decode_str(given).collect());
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

impl Service {
    /// Answers a request to the API.
    pub(super) async fn call(self: &Rc<Self>, target: Target, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let method = request.method().clone();
        let mut detail = String::new();
        let outcome = self.carry_out(&target, request, &mut detail).await;
        let answer = outcome.unwrap_or_else(|refusal| refusal);
        if target.is_change(&method) {
            let (client, status, deed) = (peer.ip(), answer.status(), target.deed(&method));
            if !answer.is_done() {
                tracing::warn!(%client, %method, status, what = deed, "admin request refused");
            } else if target.endpoint == Endpoint::Drain {
                let (upstream, server) = (target.name(0), target.name(1));
                tracing::info!(%client, upstream, server, status, "{deed}");
            } else {
                let detail = Some(detail).filter(|detail| !detail.is_empty());
                tracing::info!(%client, limit = target.name(0), detail, status, "{deed}");
            }
        }
        answer
    }

    async fn carry_out(self: &Rc<Self>, target: &Target, request: Request<Incoming>, detail: &mut String) -> Outcome {
        self.admin.is_meant(&request)?;
        self.admin.access.check(&request)?;
        let (head, body) = request.into_parts();
        if !target.methods.split(", ").any(|known| known == head.method.as_str()) {
            return Err(Answer::only(target.methods));
        }
        if matches!(head.method, Method::GET | Method::HEAD) {
            return self.tell(target, head.uri.query()).await;
        }
        if !body::is_json(&head.headers) {
            return Err(Answer::problem(415, "Unsupported media type", "Send Content-Type: application/json."));
        }
        let longest = if target.endpoint == Endpoint::Explain { LONGEST.1 } else { LONGEST.0 };
        let body = body::read(body, longest).await?;
        let deletes = head.method == Method::DELETE;
        // What needs no body may have one that is JSON; others say themselves what they expected.
        let needs_none = deletes || matches!(target.endpoint, Endpoint::Reload | Endpoint::Upgrade | Endpoint::Drain);
        if needs_none && !body.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
            return Err(Answer::problem(400, "Bad request", "The body is not JSON."));
        }
        match target.endpoint {
            Endpoint::Explain => self.explain(&body).await,
            Endpoint::Reload => self.reload(detail).await,
            Endpoint::Upgrade => self.upgrade(detail).await,
            Endpoint::Log => self.set_log(&body, detail),
            Endpoint::Mode => self.switch(target.name(0), &body, detail),
            Endpoint::Key => self.reset(target.name(0), target.key()).await,
            Endpoint::Override if deletes => self.remove_override(target.name(0), target.key()).await,
            Endpoint::Override => self.set_override(target.name(0), target.key(), &body, detail).await,
            Endpoint::Drain => self.drain(target.name(0), target.name(1), !deletes),
            _ => Err(Answer::only(target.methods)),
        }
    }

    /// Answers what only asks.
    async fn tell(self: &Rc<Self>, target: &Target, query: Option<&str>) -> Outcome {
        let limit = target.name(0);
        Ok(match target.endpoint {
            Endpoint::Overview => Answer::json(&self.overview()),
            Endpoint::Stream => {
                let full = || Answer::problem(503, "Service unavailable", "There are too many streams already.");
                Answer::events(self.streams.open(self).ok_or_else(full)?)
            }
            Endpoint::History => Answer::json(&self.history()),
            Endpoint::Routes => Answer::json(&self.routes()),
            Endpoint::Limits => Answer::json(&self.limits()),
            Endpoint::Upstreams => Answer::json(&self.upstreams()),
            Endpoint::Mode => Answer::json(&self.mode(limit)?),
            Endpoint::Keys => Answer::json(&self.top_keys(limit, query)?),
            Endpoint::Key => Answer::json(&self.key(limit, target.key()).await?),
            Endpoint::Overrides => Answer::json(&self.list_overrides(limit)?),
            Endpoint::Config => Answer::json(&self.configuration()),
            Endpoint::Log => Answer::json(&self.log()?),
            Endpoint::OpenApi => openapi::answer(),
            Endpoint::Override | Endpoint::Drain | Endpoint::Reload | Endpoint::Upgrade | Endpoint::Explain => {
                return Err(Answer::only(target.methods));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Option<(Endpoint, Vec<Vec<u8>>)> {
        Target::of(path).map(|target| (target.endpoint, target.names))
    }

    #[test]
    fn the_names_of_a_path_are_decoded() {
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
        for (path, endpoint, expected) in [
            ("/api/v1/overview", Endpoint::Overview, &[][..]),
            ("/api/v1/limits/per-key/overrides", Endpoint::Overrides, &["per-key"]),
            ("/api/v1/limits/per-key/overrides/", Endpoint::Overrides, &["per-key"]),
            ("/api/v1/limits/a%2Fb/overrides/x%2Fy%20z", Endpoint::Override, &["a/b", "x/y z"]),
            ("/api/v1/servers/web/unix%3A%2Frun%2Fx/drain", Endpoint::Drain, &["web", "unix:/run/x"]),
        ] {
            assert_eq!(read(path), Some((endpoint, names(expected))), "{path}");
        }
        assert_eq!(read("/api/v1/limits/a/keys/%FF"), Some((Endpoint::Key, vec![b"a".to_vec(), b"\xff".to_vec()])));
        for path in [
            "/api/v1",
            "/api/v1/limits/a",
            "/api/v1/limits/a/states/x",
            "/api/v1/limits//mode",
            "/api/v1/limits/a/overrides/x/y",
            "/api/v2/limits/a/overrides",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
