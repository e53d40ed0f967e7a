//! A request that nobody sends: imagined on the command line or in a test, or read from a log. It is
//! brought into canonical form and routed as the proxy does it.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::jwt::ClaimSet;
use crate::limit::Facts;
use crate::limit::key::NoClaims;
use crate::limit::plan::Clock;
use crate::route::target::{CanonicalPath, canonical_host, canonical_path, comparable};
use crate::route::{EncodedPath, Found, Head, Route, Router};

/// What is known of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'r> {
    pub(crate) method: &'r Method,
    /// As Host would say it; `None` when it is not known.
    pub(crate) host: Option<&'r str>,
    /// As sent, without the query.
    pub(crate) path: &'r str,
    /// As sent, without `?`.
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
    /// The client's address, as it is found behind trusted proxies.
    pub(crate) client: IpAddr,
    /// The subject of the client's certificate.
    pub(crate) tls_subject: Option<&'r str>,
    /// What its token says, where one is imagined.
    pub(crate) claims: Option<&'r ClaimSet>,
    /// When it comes.
    pub(crate) clock: Clock,
    /// How it comes: `https` or `http`.
    pub(crate) scheme: &'r str,
}

/// A request from its parts.
#[derive(Debug)]
pub(crate) struct Imagined {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    client: IpAddr,
    tls_subject: Option<String>,
    claims: ClaimSet,
    clock: Clock,
}

/// Where a request goes, in canonical form.
#[derive(Debug)]
pub(crate) struct Target<'r> {
    /// Empty without one.
    pub(crate) host: Cow<'r, str>,
    pub(crate) path: CanonicalPath<'r>,
    /// The path as limits compare it, when that is not the path itself.
    compared: Option<String>,
}

/// An answer of the proxy's own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: Cow<'static, str>,
}

impl Imagined {
    /// The URL's host is the request's Host, unless there is a field.
    pub(crate) fn new(method: Method, uri: Uri, mut headers: HeaderMap, client: IpAddr) -> Self {
        let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        if let Some(host) = host.filter(|_| !headers.contains_key(header::HOST)) {
            headers.insert(header::HOST, host);
        }
        Self {
            method,
            uri,
            headers,
            client: client.to_canonical(),
            tls_subject: None,
            claims: ClaimSet::default(),
            clock: Clock::Wall,
        }
    }

    /// The same with what was verified about its client.
    pub(crate) fn verified(self, tls_subject: Option<String>, claims: ClaimSet) -> Self {
        Self { tls_subject, claims, ..self }
    }

    /// The same at this instant.
    pub(crate) fn at(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The same, borrowed.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            host: None,
            path: self.uri.path(),
            query: self.uri.query(),
            headers: &self.headers,
            client: self.client,
            tls_subject: self.tls_subject.as_deref(),
            claims: Some(&self.claims),
            clock: self.clock,
            scheme: self.uri.scheme_str().unwrap_or("http"),
        }
    }
}

impl<'r> Asked<'r> {
    /// The canonical target, or why the proxy refuses the request before it looks for a route.
    pub(crate) fn target(&self) -> Result<Target<'r>, Refused> {
        if matches!(*self.method, Method::CONNECT | Method::TRACE) {
            return Err(Refused::new(405, format!("{} is never forwarded", self.method)));
        }
        let path = if self.path == "*" && self.method == Method::OPTIONS {
            CanonicalPath { text: Cow::Borrowed("*"), encoded_separators: false }
        } else {
            canonical_path(self.path).map_err(|error| Refused::new(400, error.to_string()))?
        };
        let compared = match comparable(&path.text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(text),
        };
        Ok(Target { host: self.canonical_host()?, path, compared })
    }

    /// Host's canonical form; empty without one.
    fn canonical_host(&self) -> Result<Cow<'r, str>, Refused> {
        let mut fields = self.headers.get_all(header::HOST).iter();
        let wrong = || Refused::new(400, "the Host is not a name or address");
        let field = fields.next().map(|field| field.to_str().map_err(|_| wrong())).transpose()?;
        if fields.next().is_some() {
            return Err(Refused::new(400, "there is more than one Host"));
        }
        match self.host.or(field) {
            Some(host) => Ok(canonical_host(host).map_err(|_| wrong())?.name),
            None => Ok(Cow::Borrowed("")),
        }
    }
}

impl Target<'_> {
    /// The route.
    pub(crate) fn find<'a>(&'a self, router: &'a Router, asked: &Asked<'a>) -> Found<'a, 'a> {
        router.find(&self.head(asked))
    }

    /// What routes tell it apart by.
    pub(crate) fn head<'a>(&'a self, asked: &Asked<'a>) -> Head<'a, 'a> {
        Head {
            host: &self.host,
            path: &self.path.text,
            compared: self.compared(),
            query: asked.query,
            method: asked.method,
            headers: asked.headers,
        }
    }

    /// Whether the route takes such a request.
    pub(crate) fn passes(&self, config: &Config, asked: &Asked<'_>, found: &Found<'_, '_>) -> Result<(), Refused> {
        if !config.access.admits(Some(asked.client)) || !found.route.admits(Some(asked.client)) {
            return Err(Refused::new(403, "this address is not let in (see access)"));
        }
        if found.is_ambiguous(asked.query) {
            return Err(Refused::new(400, "a query parameter that the route matches by occurs twice"));
        }
        self.may_be_encoded(found.route)
    }

    fn may_be_encoded(&self, route: &Route) -> Result<(), Refused> {
        if self.path.encoded_separators && route.encoded_path == EncodedPath::Reject {
            return Err(Refused::new(400, "the path holds %2F, %5C, %00 or %25 (see encoded_path)"));
        }
        Ok(())
    }

    /// What limits may know of the request on its route.
    pub(crate) fn facts<'a>(&'a self, asked: &Asked<'a>, found: &'a Found<'_, '_>) -> Facts<'a> {
        Facts { params: &found.params, route: &found.route.name, ..self.unrouted(asked) }
    }

    /// What is known of the request without any route.
    pub(crate) fn unrouted<'a>(&'a self, asked: &Asked<'a>) -> Facts<'a> {
        Facts {
            client_ip: Some(asked.client),
            method: asked.method,
            host: &self.host,
            path: self.compared(),
            query: asked.query,
            headers: asked.headers,
            has_unsized_body: false,
            tls_subject: asked.tls_subject.map(str::as_bytes),
            params: &[],
            route: "",
            claims: &NoClaims,
        }
    }

    /// The path as limits compare it.
    pub(crate) fn compared(&self) -> &str {
        self.compared.as_deref().unwrap_or(&self.path.text)
    }
}

impl Refused {
    pub(crate) fn new(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into() }
    }
}
