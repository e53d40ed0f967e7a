//! What a route changes in fields, and which fields nobody may change.

use http::{HeaderName, HeaderValue};

use super::Check;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Named, Setting, Spanned, Word};
use crate::config::values::TemplateText;
use crate::route::fields::{FieldValue, is_secret};
use crate::route::{FieldEdits, Match};

/// Whose fields are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Of the upstream's request.
    Request,
    /// Of the client's answer.
    Response,
    /// The same, on a route with `cors`.
    ResponseWithCors,
    /// Of an answer without an upstream.
    Respond,
}

/// What is done to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Write,
    Remove,
}

impl Check<'_> {
    pub(super) fn field_edits(
        &mut self,
        setting: &Setting<file::FieldEdits>,
        side: Side,
        matches: &Match,
    ) -> FieldEdits {
        let Some(given) = setting.get() else { return FieldEdits::default() };
        let removed = given.remove.get().map(|list| list.0.as_slice()).unwrap_or_default();
        for name in removed {
            self.may_change(&name.value, name.span, side, Change::Remove);
        }
        let edits = FieldEdits {
            remove: removed.iter().map(|name| name.value.clone()).collect(),
            set: self.filled_fields(&given.set, side, matches),
            add: self.filled_fields(&given.add, side, matches),
            default: self.filled_fields(&given.default, side, matches),
        };
        let parts = [given.set.is_absent(), given.add.is_absent(), given.default.is_absent(), given.remove.is_absent()];
        if let Some(key) = setting.key().filter(|_| !parts.contains(&false) && self.is_sound()) {
            self.error(key, "this changes nothing", "write `set: { x-name: value }`, for example");
        }
        edits
    }

    /// Fields and what they get.
    pub(super) fn filled_fields(
        &mut self,
        setting: &Setting<Named<TemplateText>>,
        side: Side,
        matches: &Match,
    ) -> Vec<(HeaderName, FieldValue)> {
        let mut fields = Vec::new();
        for (name, value) in setting.get().iter().flat_map(|named| &named.0) {
            let field = match <HeaderName as Word>::parse(&name.value) {
                Ok(field) => field,
                Err(problem) => {
                    self.reader.error(name.span, problem);
                    continue;
                }
            };
            self.may_change(&field, name.span, side, Change::Write);
            if fields.iter().any(|(other, _)| *other == field) {
                self.error(name.span, format!("`{field}` is given twice"), "keep one of the two, or use `add`");
            }
            if value.is_absent() {
                self.error(name.span, format!("`{field}` gets no value"), "write one, or list the field in `remove`");
            }
            let Some(template) = value.spanned() else { continue };
            self.variables(&template.value.0, template.span, matches);
            let value = self.field_value(&template.value, template.span);
            fields.extend(value.map(|value| (field.clone(), value.for_field(&field))));
            self.warn_about_secret(&field, template, side);
        }
        fields
    }

    fn field_value(&mut self, template: &TemplateText, span: Span) -> Option<FieldValue> {
        let legal = |text: &str| HeaderValue::from_str(text).is_ok();
        let Some(fixed) = template.0.fixed() else {
            if !legal(template.0.text()) {
                self.unsendable(span);
            }
            return Some(FieldValue::Filled(template.0.clone()));
        };
        let value = HeaderValue::from_str(fixed).ok();
        if value.is_none() {
            self.unsendable(span);
        }
        value.map(FieldValue::Fixed)
    }

    fn warn_about_secret(&mut self, name: &HeaderName, value: &Spanned<TemplateText>, side: Side) {
        // As the expanded form shows it.
        let written = value.value.0.fixed().is_some_and(|text| !matches!(text, "" | "***"));
        if side == Side::Request && is_secret(name) && written && !self.is_from_environment(value.span) {
            let message = format!("the value of `{name}` is a secret written in the file");
            self.warn(value.span, message, "use ${NAME} from the environment");
        }
    }

    fn unsendable(&mut self, span: Span) {
        self.error(span, "a field's value cannot hold control characters or line ends", "write it on one line");
    }

    fn may_change(&mut self, name: &HeaderName, span: Span, side: Side, change: Change) {
        if let Some((why, help)) = refusal(name.as_str(), side, change) {
            self.error(span, format!("`{name}` cannot be changed here: {why}"), help);
        }
    }
}

/// Why a field is not to be changed, and what to do instead.
fn refusal(name: &str, side: Side, change: Change) -> Option<(&'static str, &'static str)> {
    if is_framing(name) {
        return Some(("it is about one connection, or says where a message ends", "leave it to the proxy"));
    }
    match side {
        Side::Request => of_request(name, change),
        Side::ResponseWithCors if name.starts_with("access-control-") => {
            Some(("`cors` of this route writes it", "say there what pages of other origins may do"))
        }
        Side::Respond if name == "content-type" => Some(("it has a key of its own", "write `content_type: …`")),
        Side::Response | Side::ResponseWithCors | Side::Respond => of_response(name, change),
    }
}

fn of_request(name: &str, change: Change) -> Option<(&'static str, &'static str)> {
    match name {
        "host" => Some(("it names the server", "write `rewrite: { host: upstream }`, or a name instead of `upstream`")),
        "via" => Some(("it keeps requests from going round in circles", "leave it to the proxy")),
        // Who does not want the upstream to know may take them away.
        "forwarded" | "x-request-id" if change == Change::Write => Some(PROXYS_OWN),
        _ if name.starts_with("x-forwarded-") && change == Change::Write => Some(PROXYS_OWN),
        _ => None,
    }
}

const PROXYS_OWN: (&str, &str) =
    ("the proxy tells in it where a request came from", "use another name; `trusted_proxies` says whose value is kept");

fn of_response(name: &str, change: Change) -> Option<(&'static str, &'static str)> {
    match name {
        "retry-after" | "proxy-status" | "x-request-id" => {
            Some(("clients tell by it what the proxy says from what the upstream says", "leave it as it is"))
        }
        "via" if change == Change::Write => Some(("the proxy adds itself to it", "leave it to the proxy")),
        _ if name.starts_with("ratelimit") || name.starts_with("x-ratelimit-") => {
            Some(("limits are told in it", "`rate_limit_headers: none` at the top sends no such fields"))
        }
        _ => None,
    }
}

/// Fields of one connection, and of framing.
fn is_framing(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}
