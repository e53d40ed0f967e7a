//! The story of one request.

mod changes;
mod options;
mod outgoing;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, SET_COOKIE};
use http::request::Parts;
use http::{Extensions, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::attempt::Answer;
use super::balancing;
use super::client::Client;
use super::dialect;
use super::forward::Journey;
use super::headers::{self};
use super::https_redirect;
use super::pool::Switched;
use super::record::Record;
use super::rejection::{Asked, Blame, Limited, Rejection, is_grpc};
use super::request_body::{Upload, drain_arrived};
use super::response_body::ResponseBody;
use super::target::{Target, adopt_authority, examine};
use super::upgrade::{Protocol, Tunnel};
use super::{Body, Downstream, Proxy};
use crate::config::Config;
use crate::jwt::Presented;
use crate::limit::bill::Answered;
use crate::limit::dynamic::Snapshot;
use crate::limit::{Facts, Outcome, Policy, Verdict};
use crate::route::target::comparable;
use crate::route::{EncodedPath, Head, Route};
use crate::upstream::Protocol as Spoken;
use crate::upstream::selection::Wish;
pub(super) use changes::HostOfServer;
use changes::{Changes, Finish, Targeted};
use options::{is_for_us, options};

/// Longest silence of an upstream while its body is under way.
const BODY_IDLE: Duration = Duration::from_secs(30);
/// What the steps of one request share.
struct Exchange<'a> {
    config: &'a Config,
    downstream: &'a Downstream,
    client: &'a Client,
    record: Record,
    method: Method,
    version: Version,
    grpc: bool,
    /// Whether the client waits for 100 before it sends its body.
    expects: bool,
    /// The request's body until it is forwarded.
    body: Option<Incoming>,
    /// From then on.
    upload: Option<Rc<Upload>>,
    /// The protocol the client wants the connection to change to.
    upgrade: Option<Protocol>,
    /// The upstream's connection, when it has changed to that, and what came on it since.
    switched: Option<Switched>,
    /// Which of the upstream's endpoints it would rather go to.
    wish: Wish,
    /// How long the request waited for its turn.
    held: Duration,
    /// Who answered.
    answered: Answered,
    /// What the route does to the answer.
    finish: Finish<'a>,
}

impl Proxy {
    /// Answers one request. Never fails: what goes wrong becomes a response.
    pub async fn handle(self: Rc<Self>, request: Request<Incoming>, downstream: Rc<Downstream>) -> Response<Body> {
        let config = self.config.load_full();
        let (head, body) = request.into_parts();
        let client = Client::find(&config, &downstream, &head.headers);
        let mut exchange = Exchange {
            config: &config,
            downstream: &downstream,
            record: Record::begin(&self, &head, &client, &downstream, &config),
            client: &client,
            method: head.method.clone(),
            version: head.version,
            grpc: is_grpc(&head.headers),
            expects: head.headers.contains_key(EXPECT),
            upgrade: Protocol::asked(&head).filter(|_| body.is_end_stream()),
            body: Some(body),
            upload: None,
            switched: None,
            wish: Wish::default(),
            held: Duration::ZERO,
            answered: Answered::Ourselves,
            finish: Finish::default(),
        };
        let mut response = self.answer(&mut exchange, head).await;
        exchange.settle_body(&mut response).await;
        let finish = std::mem::take(&mut exchange.finish);
        exchange.conclude(&mut response);
        headers::sign_response(response.headers_mut(), client.request_id.clone());
        finish.apply(response.headers_mut());
        response
    }

    async fn answer(&self, exchange: &mut Exchange<'_>, head: Parts) -> Response<Body> {
        if self.pressure.sheds() {
            return exchange.reject_and_close(&Rejection::Memory);
        }
        match self.serve(exchange, head).await {
            Ok(response) => response,
            Err(rejection) => exchange.reject(&rejection),
        }
    }

    /// From the request to its route, past the route's limits, to an answer. What goes wrong before the limits
    /// were asked is an error; later it is an answer, which they see too.
    async fn serve(&self, exchange: &mut Exchange<'_>, mut head: Parts) -> Result<Response<Body>, Rejection<'static>> {
        let config = exchange.config;
        if !config.access.admits(exchange.client.address) {
            return Err(Rejection::Forbidden);
        }
        let uri = std::mem::take(&mut head.uri);
        headers::sanitise_request(&mut head.headers, exchange.belief());
        adopt_authority(&mut head, &uri)?;
        let Target { host, path } = examine(&head, &uri)?;
        exchange.record.canonical(&host, &path.text);
        let compared = comparable(&path.text);
        let asked = Head {
            host: &host,
            path: &path.text,
            compared: &compared,
            query: uri.query(),
            method: &head.method,
            headers: &head.headers,
        };
        let mut found = config.router.find(&asked);
        let redirect = https_redirect::due(exchange.downstream, &head.headers, (found.route, &path.text));
        if redirect.is_some() {
            found = config.router.nothing();
        } else if let Some(route) = config.router.preflight(&asked) {
            return Ok(exchange.preflight(route, &head.headers));
        }
        let route = found.route;
        exchange.enter(route, &head.headers)?;
        if path.encoded_separators && route.encoded_path == EncodedPath::Reject && redirect.is_none() {
            return Err(Rejection::EncodedSeparator);
        }
        if found.is_ambiguous(uri.query()) {
            return Err(Rejection::AmbiguousKey);
        }
        let token = Presented::new(self.tokens.as_ref(), &head.headers);
        let facts = Facts {
            client_ip: exchange.client.address,
            method: &head.method,
            host: &host,
            path: &compared,
            query: uri.query(),
            headers: &head.headers,
            has_unsized_body: exchange.has_unsized_body(),
            params: &found.params,
            tls_subject: exchange.downstream.subject().map(str::as_bytes),
            route: &route.name,
            claims: &token,
        };
        let overrides = self.overrides.as_ref().map(|overrides| overrides.snapshot());
        let mut verdict = self.decide(exchange, route, &facts, overrides.as_deref()).await;
        let changes = exchange.prefer(route, &facts).and_then(|()| exchange.changes(route, &facts, &path.text));
        let mut response = match admit(&mut verdict).await {
            Err(rejection) => exchange.reject(&rejection),
            Ok(held) => {
                exchange.held = held;
                let answered = if let Some(port) = redirect {
                    https_redirect::answer(port, &host, &path.text, uri.query())
                } else {
                    let changes = changes.and_then(|changes| Changes::target(changes, &uri, &path.text));
                    self.pass_on(exchange, route, head, changes).await
                };
                answered.unwrap_or_else(|rejection| exchange.reject(&rejection))
            }
        };
        exchange.settle(&route.policies, &mut response);
        exchange.tell(&verdict, &mut response);
        Ok(response)
    }

    /// Asks the limits of a route.
    async fn decide<'r>(
        &self,
        exchange: &mut Exchange<'_>,
        route: &'r Route,
        facts: &Facts<'_>,
        overrides: Option<&'r Snapshot>,
    ) -> Verdict<'r> {
        let asking = exchange.record.clock();
        let mut verdict = self.limiter.check(&route.policies, overrides, facts).await;
        exchange.record.decided(&verdict, asking);
        exchange.record.owes(verdict.take_bill());
        verdict
    }

    /// Forwards an admitted request and turns the upstream's answer into ours.
    async fn pass_on(
        &self,
        exchange: &mut Exchange<'_>,
        route: &Route,
        mut head: Parts,
        changes: Targeted<'_>,
    ) -> Result<Response<Body>, Rejection<'static>> {
        let (target, mut changes) = changes?;
        head.uri = target;
        if head.method == Method::OPTIONS && is_for_us(&mut head) {
            return Ok(options());
        }
        if let Some(answer) = changes.as_mut().and_then(|changes| changes.answer.take()) {
            return Ok(answer);
        }
        let upstream = route.upstream.as_ref().ok_or(Rejection::NoRoute)?;
        if upstream.settings.protocol == Spoken::Http2 {
            // What only HTTP/1.1 can become is asked of nobody who does not speak it.
            exchange.upgrade = None;
        }
        let body = exchange.bounded_body(route)?;
        exchange.record.forwarding(exchange.held, exchange.upload.clone());
        if let Some(server) = upstream.servers.first() {
            head.headers.entry(HOST).or_insert_with(|| server.host.clone());
        }
        exchange.prepare(&mut head.headers);
        head.version = Version::HTTP_11;
        head.extensions = Extensions::default();
        if let Some(protocol) = exchange.upgrade {
            head.extensions.insert(protocol);
        }
        let journey = Journey {
            upstream,
            wish: exchange.wish,
            patience: exchange.patience(route, upstream, &head.headers),
            retries: route.retries.as_deref(),
            origin: upstream.settings.proxy_protocol.and_then(|_| exchange.origin()),
        };
        if let Some(changes) = changes {
            changes.apply(&mut head);
        }
        let mut request = Request::from_parts(head, body);
        dialect::frame(&mut request);
        let answer = self.forward(&journey, request, &mut exchange.record).await?;
        exchange.record.upstream_answered();
        match exchange.upgrade {
            Some(protocol) if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                exchange.switch(answer, protocol).await
            }
            _ => {
                let cookie = balancing::cookie(upstream, exchange.wish, answer.endpoint(), exchange.own_scheme());
                let mut response = exchange.relay(answer);
                response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
                Ok(response)
            }
        }
    }
}

impl Downstream {
    /// The subject of the client's certificate, when it showed one that was verified.
    fn subject(&self) -> Option<&str> {
        self.secured.as_ref()?.subject.as_deref()
    }
}

impl Exchange<'_> {
    /// The upstream's answer as the client gets it.
    fn relay(&mut self, answer: Answer) -> Response<Body> {
        self.answered = Answered::Upstream;
        let Answer { response, lease } = answer;
        let (mut head, incoming) = response.into_parts();
        headers::prepare_response(&mut head.headers);
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH);
        }
        head.version = Version::HTTP_11;
        let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_stream = self.grpc || kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        let idle = if is_stream { self.stream_idle() } else { BODY_IDLE };
        Response::from_parts(head, Body::upstream(ResponseBody::new(incoming, lease, idle)))
    }

    /// What the limits tell the client.
    fn tell(&self, verdict: &Verdict<'_>, response: &mut Response<Body>) {
        verdict.write_headers(self.config.rate_limit_headers, response.headers_mut());
        if verdict.passed_undecided() {
            headers::mark_undecided(response.headers_mut());
        }
    }

    /// What the answer changes for the limits; fields that only tell them its cost go no further.
    fn settle(&mut self, policies: &[Arc<Policy>], response: &mut Response<Body>) {
        self.record.settle(response.status(), response.headers(), self.answered);
        for name in policies.iter().filter_map(|policy| policy.cost.response_header.as_ref()) {
            response.headers_mut().remove(name);
        }
    }

    /// The upstream's 101 as the client gets it. From here on the upstream's connection is the client's.
    async fn switch(&mut self, answer: Answer, protocol: Protocol) -> Result<Response<Body>, Rejection<'static>> {
        self.answered = Answered::Upstream;
        let Answer { mut response, lease } = answer;
        self.switched = Some(lease.into_stream(&mut response).await.ok_or(Rejection::Reset)?);
        let (mut head, _) = response.into_parts();
        headers::prepare_response(&mut head.headers);
        protocol.write(&mut head.headers);
        head.version = Version::HTTP_11;
        Ok(Response::from_parts(head, Body::empty()))
    }

    /// Hands the record to what completes it: the response's body, or the tunnel behind it.
    fn conclude(self, response: &mut Response<Body>) {
        let idle = self.stream_idle();
        match self.switched {
            Some(upstream) => {
                let tunnel = Tunnel::new(upstream, idle, self.record.switched(response));
                self.downstream.tunnel.replace(Some(Box::new(tunnel)));
            }
            None => self.record.answered(response),
        }
    }

    /// Whether only its end will tell the length of the request's body.
    fn has_unsized_body(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.size_hint().exact().is_none())
    }

    /// How long event streams, gRPC and tunnels may be silent.
    fn stream_idle(&self) -> Duration {
        self.downstream.listener.stream_idle_timeout
    }

    /// Our own answer.
    fn reject(&mut self, rejection: &Rejection<'_>) -> Response<Body> {
        self.record.rejected(rejection);
        self.answered = if rejection.blame() == Blame::Upstream { Answered::Failure } else { Answered::Ourselves };
        let asked = Asked { method: &self.method, grpc: self.grpc, request_id: &self.client.request_id };
        let mut response = rejection.answer(&asked);
        if self.upload.as_ref().is_some_and(|upload| !upload.is_complete()) {
            self.close_after(&mut response);
        }
        response
    }

    /// Our own answer, and the end of the connection.
    fn reject_and_close(&mut self, rejection: &Rejection<'_>) -> Response<Body> {
        let mut response = self.reject(rejection);
        self.close_after(&mut response);
        response
    }

    /// A body that was not read must leave nothing behind that could be read as the next request:
    /// what has arrived is taken, and unless that was all, the connection ends with this answer.
    async fn settle_body(&mut self, response: &mut Response<Body>) {
        let Some(body) = self.body.take() else { return };
        if self.version == Version::HTTP_2 || body.is_end_stream() {
            return;
        }
        // Reading would send 100 to a client that waits for it.
        if self.expects || !drain_arrived(body).await {
            self.close_after(response);
        }
    }

    fn close_after(&self, response: &mut Response<Body>) {
        if self.version != Version::HTTP_2 {
            self.downstream.close.set(true);
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Waits for the request's turn, or says why it has none. The time it was held.
async fn admit<'a>(verdict: &mut Verdict<'a>) -> Result<Duration, Rejection<'a>> {
    match verdict.outcome {
        Outcome::Allowed { wait } => {
            verdict.wait().await;
            Ok(wait)
        }
        Outcome::Denied { retry_after } => Err(Rejection::Limited(Limited::new(verdict, retry_after))),
        Outcome::Unavailable => Err(Rejection::StoreUnavailable),
        Outcome::Overflow => Err(Rejection::Overflow),
        Outcome::AmbiguousKey => Err(Rejection::AmbiguousKey),
    }
}
