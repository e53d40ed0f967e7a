//! The route that a browser asks about before its page may send a request to it.
//!
//! Such a request is OPTIONS and carries none of the page's own fields. What counts is the route of the request
//! that it asks about: of its method, with the fields that it says it will have.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, HeaderName};

use super::{Alternative, Considered, Head, Route, Router, cors};

impl Router {
    /// The route of the request that this one asks about beforehand, when `cors` of that route has an answer to it.
    #[must_use]
    pub fn preflight<'a>(&'a self, head: &Head<'_, '_>) -> Option<&'a Arc<Route>> {
        if !self.answers_preflights {
            return None;
        }
        let method = cors::preflight(head.method, head.headers)?;
        let asked = Head { method: &method, ..*head };
        let found = self.sorted.iter().find(|alternative| alternative.is_asked_about(&asked));
        found.map(|alternative| &alternative.route).filter(|route| route.cors().is_some())
    }
}

impl Route {
    /// Which pages of other origins may read its answers, if any.
    #[must_use]
    pub fn cors(&self) -> Option<&cors::Cors> {
        self.extras.as_ref()?.cors.as_ref()
    }
}

impl Alternative {
    /// Whether it matches, once the announced fields are there with the values that it wants.
    fn is_asked_about(&self, head: &Head<'_, '_>) -> bool {
        match self.consider(head) {
            Considered::Matched => true,
            Considered::Header(_) => {
                let holds = |(name, wanted): &(HeaderName, super::Wanted)| {
                    wanted.holds(head.headers.get_all(name).iter()) || is_announced(head.headers, name)
                };
                self.route.matches.headers.iter().all(holds) && self.parameters_hold(head)
            }
            _ => false,
        }
    }
}

/// Whether the page will send a field of this name.
fn is_announced(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lines = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let mut names = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    names.any(|announced| announced.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}
