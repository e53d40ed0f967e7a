//! What a route does beside forwarding.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::Check;
use super::fields::Side;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{OneOrMany, Problem, Setting, Spanned};
use crate::config::values::{AnnouncedField, Blocks, Origin};
use crate::limit::key::KeyPart;
use crate::route::access::AddressBlocks;
use crate::route::cors::{Announced, Cors, CorsRules, OriginPattern};
use crate::route::fixed::{Redirect, Respond};
use crate::route::template::Variable;
use crate::route::{Access, Extras, FixedAnswer, Match, Template};

/// How long browsers need not ask again unless the file says otherwise.
const MAX_AGE: Duration = Duration::from_mins(10);

impl Check<'_> {
    /// What the route does beside forwarding; `None` when that is nothing.
    pub(super) fn extras(&mut self, route: &Spanned<file::Route>, matches: &Match) -> Option<Box<Extras>> {
        let cors = self.cors(&route.cors, matches);
        let response = if route.cors.is_absent() { Side::Response } else { Side::ResponseWithCors };
        let extras = Extras {
            answer: self.fixed_answer(route, matches),
            rewrite: self.rewrite(&route.rewrite, matches),
            request_headers: self.field_edits(&route.request_headers, Side::Request, matches),
            response_headers: self.field_edits(&route.response_headers, response, matches),
            max_body_size: route.max_body_size.get().map(|size| size.0),
            access: self.access(&route.access),
            cors,
        };
        let nothing = extras.answer.is_none()
            && extras.rewrite == crate::route::Rewrite::default()
            && extras.request_headers.is_empty()
            && extras.response_headers.is_empty()
            && extras.max_body_size.is_none()
            && extras.access.is_open()
            && extras.cors.is_none();
        (!nothing).then(|| Box::new(extras))
    }

    /// Whether exactly one thing says what becomes of requests; what is about forwarding needs an upstream.
    pub(super) fn one_destination(&mut self, route: &Spanned<file::Route>) {
        let keys = [route.upstream.key(), route.redirect.key(), route.respond.key()];
        let invalid = [
            matches!(route.upstream, Setting::Invalid),
            matches!(route.redirect, Setting::Invalid),
            matches!(route.respond, Setting::Invalid),
        ];
        let mut given = keys.into_iter().flatten();
        match (given.next(), given.next()) {
            (None, _) if !invalid.contains(&true) => self.error(
                route.span,
                "this route has no upstream",
                "write `upstream: NAME`, an address, or `echo`; or `redirect`, or `respond`",
            ),
            (Some(_), Some(second)) => {
                let message = "this route has several destinations";
                self.error(second, message, "keep one of `upstream`, `redirect` and `respond`");
            }
            _ => {}
        }
        if route.upstream.is_absent() {
            self.nothing_to_forward(route);
        }
    }

    /// What is about forwarding has no meaning on this route.
    fn nothing_to_forward(&mut self, route: &file::Route) {
        let forwarding = [
            ("rewrite", route.rewrite.key()),
            ("request_headers", route.request_headers.key()),
            ("max_body_size", route.max_body_size.key()),
            ("timeout", route.timeout.key()),
        ];
        for (name, key) in forwarding {
            if let Some(key) = key {
                let message = format!("`{name}` has no meaning on a route that forwards nothing");
                self.error(key, message, "leave it out, or give the route an `upstream`");
            }
        }
    }

    fn fixed_answer(&mut self, route: &Spanned<file::Route>, matches: &Match) -> Option<FixedAnswer> {
        if let Setting::Given { value, key } = &route.redirect {
            return self.redirect(value, *key, matches).map(FixedAnswer::Redirect);
        }
        let Setting::Given { value, key } = &route.respond else { return None };
        Some(FixedAnswer::Respond(self.respond(value, *key, matches)))
    }

    fn redirect(&mut self, given: &file::Redirect, key: Span, matches: &Match) -> Option<Redirect> {
        if given.to.is_absent() {
            self.error(key, "this redirect leads nowhere", "write `to: https://example.com/{path.rest}`");
        }
        let to = given.to.spanned()?;
        self.variables(&to.value.0, to.span, matches);
        let status = given.status.get().map_or(StatusCode::PERMANENT_REDIRECT, |status| status.0);
        match Redirect::new(to.value.0.clone(), status) {
            Ok(redirect) => Some(redirect),
            Err(error) => {
                self.reader.error(to.span, Problem::from(error));
                None
            }
        }
    }

    fn respond(&mut self, given: &file::Respond, key: Span, matches: &Match) -> Respond {
        if given.status.is_absent() && given.body.is_absent() && self.is_sound() {
            self.error(key, "this answer says nothing", "give a `status`, a `body`, or both");
        }
        let status = given.status.get().map_or(StatusCode::OK, |status| status.0);
        if let Some(span) = given.status.spanned().map(|status| status.span)
            && status.is_informational()
        {
            self.error(span, format!("{} is no answer by itself", status.as_u16()), "write 200, for example");
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(body) = given.body.key().filter(|_| bodiless) {
            self.error(body, format!("an answer with {} has no body", status.as_u16()), "leave `body` out");
        }
        let headers = self.filled_fields(&given.headers, Side::Respond, matches);
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        Respond {
            status,
            content_type: given.content_type.get().map_or(plain, |value| value.0.clone()),
            headers,
            body: given.body.get().cloned().unwrap_or_default().into(),
        }
    }

    /// Who is let in.
    pub(super) fn access(&mut self, setting: &Setting<file::Access>) -> Access {
        let Some(given) = setting.get() else { return Access::default() };
        let access = Access { allow: blocks(&given.allow), deny: blocks(&given.deny) };
        if let Some(key) = setting.key()
            && given.allow.is_absent()
            && given.deny.is_absent()
            && self.is_sound()
        {
            self.error(key, "this lets everybody in", "write `deny: [198.51.100.0/24]` or `allow: [private]`");
        }
        access
    }

    fn cors(&mut self, setting: &Setting<file::Cors>, matches: &Match) -> Option<Cors> {
        let given = setting.get()?;
        if given.origins.is_absent()
            && let Some(key) = setting.key()
        {
            self.error(key, "`cors` names no origin", "write `origins: [https://app.example.com]`");
        }
        let origins: Vec<OriginPattern> = each(&given.origins).map(|Origin(origin)| origin.clone()).collect();
        let credentials = given.credentials.or(false);
        if let Some(span) = given.credentials.spanned().map(|value| value.span)
            && credentials
            && origins.contains(&OriginPattern::Any)
        {
            let message = "`credentials: true` with the origin `*` would let every page act for its visitor";
            self.error(span, message, "name the origins, or leave `credentials` out");
        }
        let methods: Vec<Method> = each(&given.methods).map(|method| method.0.clone()).collect();
        let default = || match matches.methods.as_slice() {
            [] => vec![Method::GET, Method::HEAD, Method::POST],
            own => own.to_vec(),
        };
        Some(Cors::new(CorsRules {
            origins,
            methods: if given.methods.is_absent() { default() } else { methods },
            headers: announced(&given.headers),
            expose: each(&given.expose).map(|field| field.0.clone()).collect(),
            credentials,
            max_age: given.max_age.or(MAX_AGE).as_secs(),
        }))
    }

    /// Whether a template asks for nothing that the route's requests never have.
    pub(super) fn variables(&mut self, template: &Template, span: Span, matches: &Match) {
        if let Some((written, meant)) = template.foreign_variable() {
            let message = format!("`{written}` is sent as it stands: variables have braces");
            let help = meant.map_or_else(
                || "write one such as `{client_ip}` or `{header.x-api-key}`, or a fixed text".to_owned(),
                |meant| format!("did you mean `{meant}`?"),
            );
            self.warn(span, message, help);
        }
        for variable in template.variables() {
            let Variable::Part(part) = variable else { continue };
            self.claim(part, span);
            self.certificate_key(part, span);
            if let KeyPart::Path(name) = part {
                self.path_variable(name, span, matches);
            }
        }
    }

    fn path_variable(&mut self, name: &str, span: Span, matches: &Match) {
        let lacking = matches.paths.iter().find(|path| !path.has_param(name));
        let message = match lacking {
            Some(path) => format!("the path `{}` of this route has no parameter `{name}`", path.text()),
            None if matches.paths.is_empty() => format!("this route has no path with a parameter `{name}`"),
            None => return,
        };
        let params: Vec<_> = matches.paths.iter().flat_map(crate::route::PathMatch::param_names).collect();
        let help = match crate::config::shape::nearest(name, params.into_iter()) {
            Some(near) => format!("did you mean `{{path.{near}}}`?"),
            None if name == "rest" => "end the path with `/*`: `rest` is what that stands for".to_owned(),
            None => format!("write `{{{name}}}` for a segment of the path in `match`"),
        };
        self.error(span, message, help);
    }
}

fn each<T>(setting: &Setting<OneOrMany<T>>) -> impl Iterator<Item = &T> {
    setting.get().into_iter().flat_map(|list| &list.0).map(|item| &item.value)
}

fn blocks(setting: &Setting<OneOrMany<Blocks>>) -> AddressBlocks {
    each(setting).flat_map(|blocks| blocks.0.iter().copied()).collect()
}

fn announced(setting: &Setting<OneOrMany<AnnouncedField>>) -> Announced {
    let named: Option<Vec<HeaderName>> = each(setting).map(|field| field.0.clone()).collect();
    named.map_or(Announced::Any, Announced::These)
}
