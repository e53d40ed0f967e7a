//! The admin listener: health, readiness, metrics, the API and the page. Its own thread and runtime, so that it
//! answers when the workers are busy.

mod access;
mod answer;
pub mod api;
mod body;
mod dashboard;
mod history;
pub mod metrics;
mod problems;
mod reload;
mod room;
mod stalling;
mod stream;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use percent_encoding::percent_decode;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;

use crate::config::{AdminSettings, WHOSE};
use crate::limit::control::Control;
use crate::limit::dynamic::DynamicOverrides;
use crate::limit::inspect::Inspector;
use crate::reload::Handle;
use crate::telemetry::exposition::Format;
use access::Access;
use answer::Answer;
use history::History;
use metrics::Sources;
use room::{Doing, Room, Seat};
use stalling::Stalling;
use stream::Streams;

/// For a request's head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request head, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Pause after a failed accept (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections last once another process has taken over.
const FAREWELL: Duration = Duration::from_secs(1);
/// For answers that are on their way when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Between two readings of the counters.
const READING: Duration = Duration::from_secs(1);

/// Everything the admin listener answers from.
#[derive(Debug)]
pub struct Admin {
    access: Access,
    has_page: bool,
    sources: Sources,
    ready: Arc<AtomicBool>,
    overrides: Option<Arc<DynamicOverrides>>,
    control: Arc<Control>,
    reloads: Option<Handle>,
}

/// The same at work, on its thread.
#[derive(Debug)]
struct Service {
    admin: Admin,
    inspector: Inspector,
    history: RefCell<History>,
    streams: Streams,
    /// Whether connections end with their next answer.
    leaving: Cell<bool>,
}

impl Admin {
    /// Answers under these settings; ready as long as `ready` says so.
    #[must_use]
    pub fn new(settings: &AdminSettings, sources: Sources, ready: Arc<AtomicBool>) -> Self {
        let (access, has_page) = (Access::new(settings), settings.dashboard);
        Self { access, has_page, sources, ready, overrides: None, control: Arc::default(), reloads: None }
    }

    /// The same with what can be changed while the process runs.
    #[must_use]
    pub fn with(self, overrides: Option<Arc<DynamicOverrides>>, control: Arc<Control>) -> Self {
        Self { overrides, control, ..self }
    }

    /// The same, where the configuration can be read again.
    #[must_use]
    pub fn reloading(self, reloads: Option<Handle>) -> Self {
        Self { reloads, ..self }
    }

    /// Serves until it is `stopped`, and lets those who wait for an answer have it; takes no new connection once they
    /// are another process' affair. Needs a local runtime.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub async fn serve(
        self,
        socket: std::net::TcpListener,
        handed_over: impl Future<Output = ()>,
        stopped: impl Future<Output = ()>,
    ) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let service = Rc::new(Service::new(self));
        tokio::task::spawn_local(Rc::clone(&service).keep_history());
        let room = Rc::<Room>::default();
        tokio::select! {
            biased;
            () = handed_over => {
                drop(listener);
                // Who comes back finds the other process; who is connected has time to ask once more, and is told.
                service.leaving.set(true);
                tokio::time::sleep(FAREWELL).await;
            }
            () = stopped => {}
            () = service.accept(&listener, &room) => {}
        }
        // Whoever does not read the answer is not waited for.
        let _ = tokio::time::timeout(LAST_ANSWERS, room.close()).await;
        Ok(())
    }

    /// Whether the process takes requests.
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Refuses what is meant for the proxy of another configuration file; its commands say which one they go by. One
    /// without a file may be looked at all the same.
    fn is_meant<B>(&self, request: &Request<B>) -> Result<(), Answer> {
        let Some(given) = request.headers().get(WHOSE) else { return Ok(()) };
        let path = PathBuf::from(OsString::from_vec(percent_decode(given.as_bytes()).collect()));
        let is_ours = self.reloads.as_ref().and_then(|reloads| reloads.is_of(&path));
        if is_ours.unwrap_or(matches!(*request.method(), Method::GET | Method::HEAD)) {
            return Ok(());
        }
        Err(Answer::problem(409, "Another proxy", "The proxy here does not run on that configuration file."))
    }

    /// The answer to a request that is not for the API. Health and the page are for everybody, the rest for those
    /// with access.
    fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Answer::method_not_allowed();
        }
        let path = request.uri().path();
        match path {
            "/healthz" => return Answer::text("ok\n".to_owned()),
            "/readyz" if self.is_ready() => return Answer::text("ready\n".to_owned()),
            "/readyz" => return Answer::problem(503, "Not ready", "The proxy is shutting down."),
            path if path == &*self.sources.config().metrics_path => return self.metrics(request),
            // Browsers ask for HTML; who does not is told what there is.
            "/" if !accept(request.headers()).is_some_and(|accept| accept.contains("text/html")) => {}
            path if self.has_page => {
                if let Some(file) = dashboard::file(path) {
                    return file;
                }
            }
            _ => {}
        }
        match (self.access.check(request), path) {
            (Err(refusal), _) => refusal,
            (Ok(()), "/") => Answer::text(self.index()),
            (Ok(()), _) => Answer::not_found("GET / lists what there is."),
        }
    }

    /// A scrape.
    fn metrics<B>(&self, request: &Request<B>) -> Answer {
        let checked = if self.sources.metrics_need_token() {
            self.access.check(request)
        } else {
            self.access.check_site(request.headers())
        };
        if let Err(refusal) = checked {
            return refusal;
        }
        let format = Format::accepted(accept(request.headers()));
        Answer::metrics(format, self.sources.scrape(format))
    }

    /// What there is.
    fn index(&self) -> String {
        let mut text = format!(
            "tollgate {}\n\n/healthz  the process lives\n/readyz   it takes requests (503 while it drains)\n\
             {:<9} for Prometheus\n",
            env!("CARGO_PKG_VERSION"),
            self.sources.config().metrics_path
        );
        if self.has_page {
            text.push_str("/         in a browser: the dashboard\n");
        }
        for (_, path, methods) in api::ENDPOINTS {
            let _ = writeln!(text, "{path}  {methods}");
        }
        text
    }
}

impl Service {
    fn new(admin: Admin) -> Self {
        let inspector = admin.sources.inspector();
        Self {
            admin,
            inspector,
            history: RefCell::new(History::new()),
            streams: Streams::default(),
            leaving: Cell::new(false),
        }
    }

    /// Accepts for ever.
    async fn accept(self: &Rc<Self>, listener: &TcpListener, room: &Rc<Room>) {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (service, room, seat) = (Rc::clone(self), Rc::clone(room), room.enter().await);
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = service.connection(stream, peer, &seat) => {}
                    () = seat.wanted() => {}
                }
                room.leave(&seat);
            });
        }
    }

    /// Reads the counters once a second, for ever.
    async fn keep_history(self: Rc<Self>) {
        let mut clock = tokio::time::interval(READING);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.history.borrow_mut().tick(&self.admin.sources);
        }
    }

    /// Serves one connection. Its errors are the client's affair.
    async fn connection(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, seat: &Rc<Seat>) {
        let service = service_fn(|request: Request<Incoming>| {
            let (service, seat) = (Rc::clone(&self), Rc::clone(seat));
            async move {
                seat.is(Doing::Answering);
                let answer = service.answer(request, peer).await;
                seat.is(if answer.is_stream() { Doing::Streaming } else { Doing::Nothing });
                let mut response = answer.into_response();
                if service.leaving.get() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
        let mut connection = pin!(builder.serve_connection(Stalling::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = seat.closing() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "admin connection ended");
        }
    }

    /// The answer to a request of any kind: the API changes things, the rest only tells.
    async fn answer(self: &Rc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        // A token that stands in a file may have been replaced, and a reload has read it.
        if let Some(settings) = &self.admin.sources.config().admin
            && settings.token.as_ref().is_some_and(|token| token.file().is_some())
        {
            self.admin.access.follow(settings);
        }
        match api::Target::of(request.uri().path()) {
            Some(target) if target.is_change(request.method()) => {
                // To its end and its line in the log, also when the client leaves meanwhile.
                let this = Rc::clone(self);
                let done = tokio::task::spawn_local(async move { this.call(target, request, peer).await });
                done.await.unwrap_or_else(|_| Answer::problem(500, "Internal error", "See the process log."))
            }
            Some(target) => self.call(target, request, peer).await,
            None => self.admin.is_meant(&request).map_or_else(|refusal| refusal, |()| self.admin.answer(&request)),
        }
    }
}

/// The Accept field.
fn accept(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::limit::store::settings::Secret;
    use crate::reload::{Failure, State};

    fn admin(token: Option<&str>) -> Admin {
        let settings = AdminSettings {
            address: "127.0.0.1:9901".parse().unwrap(),
            token: token.map(Secret::new),
            dashboard: true,
        };
        Admin::new(&settings, metrics::tests::sources(), Arc::new(AtomicBool::new(true)))
    }

    fn status(admin: &Admin, method: &str, path: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        admin.answer(&request.body(()).unwrap()).into_response().status().as_u16()
    }

    const LOCAL: (&str, &str) = ("host", "127.0.0.1:9901");

    #[test]
    fn readiness_ends_with_the_drain_and_health_does_not() {
        let admin = admin(None);
        assert_eq!(status(&admin, "GET", "/readyz", &[]), 200);
        admin.ready.store(false, Ordering::Relaxed);
        assert_eq!(status(&admin, "GET", "/readyz", &[]), 503);
        assert_eq!(status(&admin, "GET", "/healthz", &[]), 200);
    }

    #[test]
    fn everything_but_health_asks_for_the_token() {
        let admin = admin(Some("correct-horse"));
        for (fields, expected) in [
            (&[LOCAL][..], 401),
            (&[("authorization", "Bearer wrong-horse")], 401),
            (&[("authorization", "Basic correct-horse")], 401),
            (&[("authorization", "bearer correct-horse")], 200),
        ] {
            assert_eq!(status(&admin, "GET", "/metrics", fields), expected, "{fields:?}");
        }
        assert_eq!(status(&admin, "GET", "/healthz", &[]), 200);
    }

    #[test]
    fn a_page_of_another_site_cannot_read_the_metrics() {
        let admin = admin(None);
        for (fields, expected) in [
            (&[LOCAL][..], 200),
            (&[("host", "localhost:9901")], 200),
            (&[("host", "[::1]:9901")], 200),
            (&[("host", "rebound.example:9901")], 403),
            (&[("host", "127.0.0.1.example")], 403),
            (&[], 403),
            (&[LOCAL, ("origin", "http://evil.example")], 403),
            (&[LOCAL, ("origin", "http://127.0.0.1:9901")], 200),
            (&[LOCAL, ("host", "evil.example")], 403),
        ] {
            assert_eq!(status(&admin, "GET", "/metrics", fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn unknown_paths_and_methods_are_told_so() {
        let admin = admin(None);
        assert_eq!(status(&admin, "GET", "/nothing", &[LOCAL]), 404);
        assert_eq!(status(&admin, "POST", "/metrics", &[LOCAL]), 405);
        assert_eq!(status(&admin, "HEAD", "/", &[LOCAL]), 200);
    }

    #[test]
    fn a_refused_reload_is_told_until_one_succeeds() {
        let (loaded, refused) = (SystemTime::now(), Failure::Refused("a change of `workers`".to_owned()));
        let state = |at, failure: Option<&Failure>| State { loaded, at, failure: failure.cloned().map(Arc::new) };
        let reloads = Arc::new(ArcSwap::from_pointee(state(None, None)));
        let mut admin = admin(None);
        admin.sources.show_reloads(Arc::clone(&reloads));
        let service = Service::new(admin);
        assert!(service.overview()["reload"].is_null());
        reloads.store(Arc::new(state(Some(loaded), Some(&refused))));
        let overview = service.overview();
        assert_eq!(overview["problems"][0]["kind"], "reload_failed");
        let told = (&overview["reload"]["ok"], overview["reload"]["report"].as_str());
        assert_eq!(told, (&false.into(), Some("a change of `workers`")));
        reloads.store(Arc::new(state(Some(loaded), None)));
        let overview = service.overview();
        assert_eq!(overview["reload"]["ok"], true);
        let problems = overview["problems"].as_array().expect("a list");
        assert!(problems.iter().all(|one| one["kind"] != "reload_failed"));
    }
}
