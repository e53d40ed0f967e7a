//! What a route does with a request beside forwarding it: who is let in, what is rewritten, what is answered here.

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body::Body as _;

use super::Exchange;
use crate::limit::Facts;
use crate::proxy::Body;
use crate::proxy::rejection::Rejection;
use crate::proxy::request_body::RequestBody;
use crate::proxy::target::forwarded_uri;
use crate::route::cors::origin_of;
use crate::route::fields::{Edits, apply};
use crate::route::fixed::Respond;
use crate::route::rewrite::{HostRewrite, RewriteError};
use crate::route::template::{FillError, Values};
use crate::route::{Cors, Extras, FixedAnswer, Route};

/// What tells the upstream which part of the path it does not see.
static X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Marks a request whose Host is that of the server which gets it.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct HostOfServer;

/// What is done to an answer last, whoever gave it.
#[derive(Debug, Default)]
pub(super) struct Finish<'a> {
    cors: Option<(&'a Cors, Option<HeaderValue>)>,
    edits: Edits<'a>,
}

/// The target that is forwarded and what else is changed, or why there is none.
pub(super) type Targeted<'a> = Result<(Uri, Option<Box<Changes<'a>>>), Rejection<'static>>;

/// What is changed in a request, all variables filled in.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    target: Option<Uri>,
    stripped: Option<HeaderValue>,
    host: &'a HostRewrite,
    edits: Edits<'a>,
    /// The answer, when no upstream gives it.
    pub(super) answer: Option<Response<Body>>,
}

impl Finish<'_> {
    /// Applies to the answer's fields.
    pub(super) fn apply(self, headers: &mut HeaderMap) {
        apply(self.edits, headers);
        if let Some((cors, origin)) = self.cors {
            cors.write(origin.as_ref(), headers);
        }
    }
}

impl<'a> Exchange<'a> {
    /// The route is found: notes what it says of answers, and lets the client in or not.
    pub(super) fn enter(&mut self, route: &'a Route, headers: &HeaderMap) -> Result<(), Rejection<'static>> {
        self.record.matched(route);
        if let Some(cors) = route.cors() {
            self.finish.cors = Some((cors, origin_of(headers).cloned()));
        }
        if route.admits(self.client.address) { Ok(()) } else { Err(Rejection::Forbidden) }
    }

    /// The answer to a browser that asks beforehand what its page may do.
    pub(super) fn preflight(&mut self, route: &'a Route, headers: &HeaderMap) -> Response<Body> {
        if let Err(rejection) = self.enter(route, headers) {
            return self.reject(&rejection);
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        if let Some((cors, _)) = self.finish.cors.take() {
            cors.write_preflight(headers, response.headers_mut());
        }
        response
    }

    /// What the route changes in this request; nothing costs nothing.
    pub(super) fn changes(
        &mut self,
        route: &'a Route,
        facts: &Facts<'_>,
        path: &str,
    ) -> Result<Option<Box<Changes<'a>>>, Rejection<'static>> {
        let Some(extras) = route.extras.as_deref() else { return Ok(None) };
        let values = Values {
            facts,
            path,
            scheme: self.scheme(facts.headers),
            request_id: self.client.request_id.to_str().unwrap_or_default(),
            listener: &self.downstream.listener.name,
        };
        self.finish.edits = extras.response_headers.fill(&values)?;
        Changes::new(extras, route, &values, &self.method).map(|changes| Some(Box::new(changes)))
    }

    /// The body to forward, unless it is known to be too large for the route.
    pub(super) fn bounded_body(&mut self, route: &Route) -> Result<RequestBody, Rejection<'static>> {
        let extras = route.extras.as_deref();
        let most = extras.and_then(|extras| extras.max_body_size).unwrap_or(u64::MAX);
        if self.body.as_ref().is_some_and(|body| body.size_hint().lower() > most) {
            return Err(Rejection::TooLarge);
        }
        let body = self.request_body().at_most(most);
        let belief = self.belief();
        let told = belief.client_field.filter(|_| !belief.trusted);
        let edited = extras.into_iter().flat_map(|extras| extras.request_headers.names());
        Ok(body.keeping_out(told.into_iter().chain(edited)))
    }

    /// How the client asked, as a trusted proxy in front tells it.
    fn scheme(&self, headers: &HeaderMap) -> &'static str {
        // From others the field has been taken away.
        match headers.get("x-forwarded-proto").map(HeaderValue::as_bytes) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ if self.downstream.secured.is_some() => "https",
            _ => "http",
        }
    }
}

impl<'a> Changes<'a> {
    fn new(
        extras: &'a Extras,
        route: &Route,
        values: &Values<'_>,
        method: &Method,
    ) -> Result<Self, Rejection<'static>> {
        let mut changes = Self {
            target: None,
            stripped: None,
            host: &extras.rewrite.host,
            edits: extras.request_headers.fill(values)?,
            answer: extras.answer.as_ref().map(|answer| fixed(answer, values, method)).transpose()?,
        };
        if !extras.rewrite.keeps_target() && values.path != "*" {
            let rewritten = extras.rewrite.target(values, route.encoded_path)?;
            let text =
                rewritten.query.map_or_else(|| rewritten.path.clone(), |query| format!("{}?{query}", rewritten.path));
            changes.target = Some(Uri::from(PathAndQuery::try_from(text).map_err(|_| Rejection::BadTarget)?));
            changes.stripped = rewritten.stripped.and_then(|prefix| HeaderValue::try_from(&*prefix).ok());
        }
        Ok(changes)
    }

    /// The target that is forwarded, and the other changes.
    pub(super) fn target(mut changes: Option<Box<Self>>, sent: &Uri, path: &str) -> Targeted<'a> {
        let rewritten = changes.as_mut().and_then(|changes| changes.target.take());
        Ok((rewritten.map_or_else(|| forwarded_uri(sent, path), Ok)?, changes))
    }

    /// Changes the upstream's request, which is complete but for this.
    pub(super) fn apply(self, head: &mut Parts) {
        if let Some(prefix) = self.stripped {
            head.headers.append(X_FORWARDED_PREFIX.clone(), prefix);
        }
        apply(self.edits, &mut head.headers);
        match self.host {
            HostRewrite::Keep => {}
            HostRewrite::Upstream => drop(head.extensions.insert(HostOfServer)),
            HostRewrite::Name(host) => drop(head.headers.insert(HOST, host.clone())),
        }
    }
}

/// The answer that a route gives by itself.
fn fixed(answer: &FixedAnswer, values: &Values<'_>, method: &Method) -> Result<Response<Body>, FillError> {
    match answer {
        FixedAnswer::Redirect(redirect) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(http::header::LOCATION, redirect.location(values)?);
            Ok(response)
        }
        FixedAnswer::Respond(respond) => respond_with(respond, values, method),
    }
}

fn respond_with(respond: &Respond, values: &Values<'_>, method: &Method) -> Result<Response<Body>, FillError> {
    let body = if method == Method::HEAD { Body::empty() } else { Body::full(respond.body.clone()) };
    let mut response = Response::new(body);
    *response.status_mut() = respond.status;
    if !respond.body.is_empty() {
        response.headers_mut().insert(http::header::CONTENT_TYPE, respond.content_type.clone());
        if method == Method::HEAD {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, respond.body.len().into());
        }
    }
    for (name, value) in &respond.headers {
        if let Some(value) = value.fill(values)? {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

impl From<FillError> for Rejection<'static> {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Ambiguous => Self::AmbiguousKey,
            FillError::Invalid => Self::BadValue,
        }
    }
}

impl From<RewriteError> for Rejection<'static> {
    fn from(error: RewriteError) -> Self {
        match error {
            RewriteError::Fill(error) => error.into(),
            RewriteError::Separator => Self::EncodedSeparator,
            RewriteError::Path(_) | RewriteError::DotSegment | RewriteError::TooLong => Self::BadTarget,
        }
    }
}
