//! The JSON formats: Tollgate's own, Caddy's and Traefik's, told apart by their keys, line by line.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, Method, StatusCode};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::entry::{Entry, Format, Logged, Unread, address, answer};
use super::fields::Fields;
use super::time;
use crate::limit::replay::Answered;

/// Reads one line.
pub(super) fn parse(line: &[u8], fields: &mut Fields) -> Result<Entry, Unread> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let object = Seed { headers: fields.wants_any(), inside: "" }.deserialize(&mut deserializer);
    let ended = deserializer.end();
    let object = object.and_then(|object| ended.map(|()| object)).map_err(|_| Unread::Line("it is not valid JSON"))?;
    if object.is_caddy {
        caddy(&object, fields)
    } else if object.text("ClientHost").is_some() || object.text("RequestMethod").is_some() {
        traefik(&object, fields)
    } else if object.text("client").is_some() {
        tollgate(&object, fields)
    } else {
        Err(Unread::Line("it is JSON, but no access log line of Tollgate, Caddy or Traefik"))
    }
}

/// Labels of refusals that come before any limit is asked (`error` in our own lines).
const BEFORE_LIMITS: [&str; 10] = [
    "bad_target",
    "bad_host",
    "bad_field_name",
    "too_many_fields",
    "method",
    "expectation",
    "loop",
    "ambiguous_key",
    "access_denied",
    "memory",
];

fn tollgate(object: &Object<'_>, fields: &mut Fields) -> Result<Entry, Unread> {
    let error = object.text("error").unwrap_or_default();
    let early = BEFORE_LIMITS.contains(&error) || (error == "bad_body" && object.text("server").is_none());
    if early && object.text("decision").is_none() {
        return Err(Unread::NeverAsked);
    }
    let mut headers = HeaderMap::new();
    if let Some(agent) = object.text("user_agent") {
        fields.insert(&mut headers, "user-agent", agent.as_bytes());
    }
    if object.is_true("query") {
        fields.hidden_query();
    }
    Ok(Entry {
        at_us: object.time("decided_at").or_else(|| object.time("time")).ok_or(NO_TIME)?,
        format: Format::Tollgate,
        client: object.text("client").and_then(|text| address(text.as_bytes())).ok_or(NO_CLIENT)?,
        method: method(object.text("method"))?,
        host: object.text("host").filter(|host| !host.is_empty()).map(Into::into),
        target: object.text("path").ok_or(NO_PATH)?.into(),
        headers,
        logged: match object.text("decision") {
            Some("allowed" | "delayed") => Logged::Passed,
            Some("denied") => Logged::Denied,
            _ => Logged::Unknown,
        },
        answer: own_answer(object),
    })
}

/// An upstream's answer, or our own where there is an error.
fn own_answer(object: &Object<'_>) -> Option<(StatusCode, Answered)> {
    let (status, answered) = answer(object.status("status")).filter(|_| object.text("decision") != Some("denied"))?;
    Some((status, if object.text("error").is_some() { Answered::Ourselves } else { answered }))
}

/// Caddy logs when the response ends; its limits would have been asked when it began.
fn caddy(object: &Object<'_>, fields: &mut Fields) -> Result<Entry, Unread> {
    let is_access = object.text("logger").is_none_or(|logger| logger.starts_with("http.log.access"));
    if !is_access {
        return Err(Unread::Line("it is not a line of Caddy's access log"));
    }
    let duration = object.number("duration").unwrap_or_default().clamp(0.0, 86_400.0);
    #[expect(clippy::cast_possible_truncation, reason = "at most a day in microseconds")]
    let duration_us = (duration * 1e6).round() as i64;
    let client = object.text("request.client_ip").or_else(|| object.text("request.remote_ip"));
    Ok(Entry {
        at_us: object.time("ts").ok_or(NO_TIME)?.saturating_sub(duration_us),
        format: Format::Caddy,
        client: client.and_then(|text| address(text.as_bytes())).ok_or(NO_CLIENT)?,
        method: method(object.text("request.method"))?,
        host: object.text("request.host").map(Into::into),
        target: object.text("request.uri").ok_or(NO_PATH)?.into(),
        headers: object.fields("", fields),
        logged: Logged::Unknown,
        answer: answer(object.status("status")),
    })
}

/// Traefik writes X-Forwarded-For, where there was one, in the client's place: its last entry is whom
/// the nearest proxy saw.
fn traefik(object: &Object<'_>, fields: &mut Fields) -> Result<Entry, Unread> {
    let client = object.text("ClientHost").or_else(|| object.text("ClientAddr")).unwrap_or_default();
    let nearest = client.rsplit(',').next().unwrap_or_default().trim();
    let host = object.text("RequestHost").or_else(|| object.text("RequestAddr"));
    Ok(Entry {
        at_us: object.time("StartUTC").or_else(|| object.time("time")).ok_or(NO_TIME)?,
        format: Format::Traefik,
        client: address(nearest.as_bytes()).ok_or(NO_CLIENT)?,
        method: method(object.text("RequestMethod"))?,
        host: host.filter(|host| !host.is_empty()).map(Into::into),
        target: object.text("RequestPath").ok_or(NO_PATH)?.into(),
        headers: object.fields("request_", fields),
        logged: Logged::Unknown,
        answer: answer(object.status("DownstreamStatus")),
    })
}

const NO_TIME: Unread = Unread::Line("it holds no time");
const NO_CLIENT: Unread = Unread::Line("it holds no client address");
const NO_PATH: Unread = Unread::Line("it holds no path");

fn method(text: Option<&str>) -> Result<Method, Unread> {
    Method::from_bytes(text.unwrap_or_default().as_bytes()).map_err(|_| Unread::Line("it holds no method"))
}

/// The keys that one of the formats has; those of Caddy's `request` behind `request.`.
const KNOWN: [&str; 28] = [
    "time",
    "decided_at",
    "client",
    "method",
    "host",
    "path",
    "query",
    "user_agent",
    "decision",
    "error",
    "server",
    "status",
    "DownstreamStatus",
    "ts",
    "duration",
    "logger",
    "request.client_ip",
    "request.remote_ip",
    "request.method",
    "request.host",
    "request.uri",
    "StartUTC",
    "ClientHost",
    "ClientAddr",
    "RequestMethod",
    "RequestHost",
    "RequestAddr",
    "RequestPath",
];

/// What a line holds of what is known.
#[derive(Default)]
struct Object<'a> {
    values: [Option<Value<'a>>; KNOWN.len()],
    /// Whether there is a `request` with keys of its own.
    is_caddy: bool,
    /// Fields of the request: name and value.
    headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl Object<'_> {
    fn value(&self, name: &str) -> Option<&Value<'_>> {
        let position = place_of("", name)?;
        self.values[position].as_ref()
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<f64> {
        match self.value(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn status(&self, name: &str) -> Option<u16> {
        let number = self.number(name).filter(|number| (100.0..1000.0).contains(number))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "three digits")]
        let status = number as u16;
        Some(status)
    }

    fn is_true(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Flag(true)))
    }

    /// Microseconds since 1970.
    fn time(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            Value::Text(text) => time::bracketed(text.as_bytes()),
            Value::Number(number) => time::since_1970(*number),
            _ => None,
        }
    }

    /// The wanted fields whose keys begin so.
    fn fields(&self, prefix: &str, fields: &mut Fields) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            if let Some(name) = name.strip_prefix(prefix) {
                fields.insert(&mut headers, name, value.as_bytes());
            }
        }
        headers
    }
}

/// One value.
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Flag(bool),
    Other,
}

/// Reads an object: a whole line, or Caddy's `request` inside one.
#[derive(Clone, Copy)]
struct Seed {
    /// Whether fields of the request are wanted.
    headers: bool,
    /// The key of the object that is read.
    inside: &'static str,
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Object<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(Text(key)) = map.next_key()? {
            let known = place_of(self.inside, &key);
            match (known, &*key) {
                (Some(position), _) => object.values[position] = Some(map.next_value()?),
                (None, "request") if self.inside.is_empty() => {
                    let request = map.next_value_seed(Seed { inside: "request.", ..self })?;
                    object.adopt(request);
                }
                (None, "headers") if self.headers && !self.inside.is_empty() => {
                    object.headers = map.next_value::<Lists<'_>>()?.0;
                }
                (None, name) if self.headers && name.starts_with("request_") => {
                    if let Value::Text(value) = map.next_value()? {
                        object.headers.push((key, value));
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(object)
    }
}

/// The place of a known key of this object. Lines hold millions of keys: most of what differs is told apart by
/// its length and first letter.
fn place_of(inside: &str, key: &str) -> Option<usize> {
    let (length, first) = (inside.len() + key.len(), key.as_bytes().first()?);
    KNOWN.iter().position(|known| {
        let may_be = known.len() == length && known.as_bytes()[inside.len()] == *first;
        may_be && known.starts_with(inside) && known.ends_with(key)
    })
}

impl Object<'_> {
    /// Takes over what Caddy's `request` holds.
    fn adopt(&mut self, request: Self) {
        self.is_caddy = true;
        self.headers = request.headers;
        for (value, own) in request.values.into_iter().zip(&mut self.values) {
            if value.is_some() {
                *own = value;
            }
        }
    }
}

/// A text, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Ok(Self(text)),
            _ => Ok(Self(Cow::Borrowed(""))),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value<'de>, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "times and durations fit, and nothing else is used")]
    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "times and durations fit, and nothing else is used")]
    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// Names with a list of values each.
struct Lists<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> serde::Deserialize<'de> for Lists<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListsVisitor;
        impl<'de> Visitor<'de> for ListsVisitor {
            type Value = Lists<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("fields with lists of values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lists<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), values)) = map.next_entry::<Text<'de>, Vec<Text<'de>>>()? {
                    fields.extend(values.into_iter().map(|Text(value)| (name.clone(), value)));
                }
                Ok(Lists(fields))
            }
        }
        deserializer.deserialize_map(ListsVisitor)
    }
}
