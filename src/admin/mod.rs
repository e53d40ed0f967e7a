//! The admin listener: health, readiness, metrics, overrides. Its own thread and runtime, so that it answers
//! when the workers are busy.

mod access;
mod answer;
pub mod metrics;
mod overrides;
mod reload;
mod stalling;

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::config::AdminSettings;
use crate::limit::dynamic::DynamicOverrides;
use crate::reload::Handle;
use crate::telemetry::exposition::Format;
use access::Access;
use answer::Answer;
use metrics::Sources;
use stalling::Stalling;

/// Connections open at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// For a request's head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request head, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Where a reload is asked for.
const RELOAD: &str = "/api/v1/reload";
/// Pause after a failed accept (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything the admin listener answers from.
#[derive(Debug)]
pub struct Admin {
    access: Access,
    sources: Sources,
    ready: Arc<AtomicBool>,
    overrides: Option<Arc<DynamicOverrides>>,
    reloads: Option<Handle>,
}

impl Admin {
    /// Answers under these settings; ready as long as `ready` says so.
    #[must_use]
    pub fn new(settings: &AdminSettings, sources: Sources, ready: Arc<AtomicBool>) -> Self {
        Self { access: Access::new(settings), sources, ready, overrides: None, reloads: None }
    }

    /// The same with overrides that can be set.
    #[must_use]
    pub fn with(self, overrides: Option<Arc<DynamicOverrides>>) -> Self {
        Self { overrides, ..self }
    }

    /// The same, where the configuration can be read again.
    #[must_use]
    pub fn reloading(self, reloads: Option<Handle>) -> Self {
        Self { reloads, ..self }
    }

    /// Serves until dropped. Needs a local runtime.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub async fn serve(self, socket: std::net::TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let admin = Rc::new(self);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let admin = Rc::clone(&admin);
            tokio::task::spawn_local(async move {
                let _permit = permit;
                admin.connection(stream).await;
            });
        }
        Ok(())
    }

    /// Serves one connection. Its errors are the client's affair.
    async fn connection(self: Rc<Self>, stream: TcpStream) {
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = Rc::clone(&self);
            async move { Ok::<_, Infallible>(admin.answer_any(request).await.into_response()) }
        });
        let ended = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(Stalling::new(stream), service)
            .await;
        if let Err(error) = ended {
            tracing::debug!(%error, "admin connection ended");
        }
    }

    /// The answer to a request of any kind: the API changes things, the rest only tells.
    async fn answer_any(&self, request: Request<Incoming>) -> Answer {
        if let (RELOAD, Some(reloads)) = (request.uri().path(), &self.reloads) {
            return match self.access.check(&request) {
                Ok(()) => reload::answer(reloads, request.method()).await,
                Err(refusal) => refusal,
            };
        }
        let (target, overrides) = match (overrides::Target::of(request.uri().path()), &self.overrides) {
            (Some(target), Some(overrides)) => (target, overrides),
            (Some(_), None) => return self.access.check(&request).err().unwrap_or_else(Answer::no_overrides),
            (None, _) => return self.answer(&request),
        };
        if let Err(refusal) = self.access.check(&request) {
            return refusal;
        }
        let (head, body) = request.into_parts();
        target.answer(overrides, &head.method, &head.headers, body).await
    }

    /// The answer to a request that changes nothing. Health is for everybody, the rest for those with access.
    fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Answer::method_not_allowed();
        }
        match request.uri().path() {
            "/healthz" => return Answer::text("ok\n".to_owned()),
            "/readyz" if self.ready.load(Ordering::Relaxed) => return Answer::text("ready\n".to_owned()),
            "/readyz" => return Answer::problem(503, "Not ready", "The proxy is shutting down."),
            _ => {}
        }
        if let Err(refusal) = self.access.check(request) {
            return refusal;
        }
        match request.uri().path() {
            "/" => Answer::text(self.index()),
            path if path == &*self.sources.config().metrics_path => {
                let format = Format::accepted(accept(request.headers()));
                Answer::metrics(format, self.sources.scrape(format))
            }
            _ => Answer::problem(404, "Not found", "GET / lists what there is."),
        }
    }

    /// What there is.
    fn index(&self) -> String {
        format!(
            "tollgate {}\n\n/healthz  the process lives\n/readyz   it takes requests (503 while it drains)\n\
             {:<9} for Prometheus\n/api/v1/limits/NAME/overrides[/KEY]  GET; PUT and DELETE of one key\n/api/v1/reload  POST\n",
            env!("CARGO_PKG_VERSION"),
            self.sources.config().metrics_path
        )
    }
}

/// The Accept field.
fn accept(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::store::settings::Secret;

    fn admin(token: Option<&str>) -> Admin {
        let settings = AdminSettings { address: "127.0.0.1:9901".parse().unwrap(), token: token.map(Secret::new) };
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
}
