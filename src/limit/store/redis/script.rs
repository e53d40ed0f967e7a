//! The scripts, their arguments and replies.
//!
//! A call sends the keys and numbers of all its limits; a reply is a flat array of integers (see
//! `lua/prelude.lua`). Whatever else comes back is a [`StoreErrorKind`], never a decision.

use redis::{ServerError, Value};
use smallvec::SmallVec;

use super::super::super::algorithm::Algorithm;
use super::super::super::stats::StoreErrorKind;
use super::super::{Answer, Ask, Reply};
use super::command::Command;
use super::keys::KeyForm;

/// A state's layout in Redis; part of the key, so that another layout starts afresh.
const FORMAT_VERSION: &[u8] = b"1";
/// Integers of a reply that stand before, and per, limit.
const HEAD: usize = 4;
const PER_LIMIT: usize = 4;
/// No number in a reply reaches this: every integer of a script is exact below 2^53.
const LARGEST: i64 = 1 << 53;

/// The texts a server is given, one per set of algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Script {
    /// One enforced token bucket.
    OneTokenBucket,
    /// Several limits, all token buckets.
    TokenBuckets,
    /// Token and leaky buckets.
    Buckets,
}

impl Script {
    /// Every script, in the order of [`Script`] as an index.
    pub const ALL: [Self; 3] = [Self::OneTokenBucket, Self::TokenBuckets, Self::Buckets];

    /// The smallest script that can decide these.
    #[must_use]
    pub fn for_asks(asks: &[Ask<'_>]) -> Self {
        match asks {
            [ask] if !ask.shadow && matches!(ask.algorithm, Algorithm::TokenBucket(_)) => Self::OneTokenBucket,
            asks if asks.iter().all(|ask| matches!(ask.algorithm, Algorithm::TokenBucket(_))) => Self::TokenBuckets,
            _ => Self::Buckets,
        }
    }

    /// Its text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::OneTokenBucket => include_str!("../../../../lua/one_token_bucket.lua"),
            Self::TokenBuckets => concat!(
                include_str!("../../../../lua/prelude.lua"),
                include_str!("../../../../lua/token_bucket.lua"),
                include_str!("../../../../lua/decide.lua")
            ),
            Self::Buckets => concat!(
                include_str!("../../../../lua/prelude.lua"),
                include_str!("../../../../lua/token_bucket.lua"),
                include_str!("../../../../lua/leaky_bucket.lua"),
                include_str!("../../../../lua/decide.lua")
            ),
        }
    }

    /// The command that gives a server this script.
    #[must_use]
    pub fn load(self) -> Command {
        Command::of(&["SCRIPT", "LOAD", self.text()])
    }

    /// The call `EVALSHA sha …` of this script.
    #[must_use]
    pub fn by_sha<'k>(self, sha: &str, keys: impl Into<KeyForm<'k>>, now_us: i64, asks: &[Ask<'_>]) -> Command {
        self.call("EVALSHA", sha, keys.into(), (now_us, asks))
    }

    /// The same call with the whole text, for a server that does not know it.
    #[must_use]
    pub fn by_text<'k>(self, keys: impl Into<KeyForm<'k>>, now_us: i64, asks: &[Ask<'_>]) -> Command {
        self.call("EVAL", self.text(), keys.into(), (now_us, asks))
    }

    fn call(self, verb: &str, script: &str, form: KeyForm<'_>, (now_us, asks): (i64, &[Ask<'_>])) -> Command {
        let keys: usize = asks.iter().map(|ask| form.prefix.len() + ask.subject.len() + ask.state_id.len() + 8).sum();
        let one = if let (Self::OneTokenBucket, [ask]) = (self, asks) { Some(ask) } else { None };
        let words = if one.is_some() { 10 } else { 5 + 9 * asks.len() };
        let mut call = Command::with_words(words, script.len() + keys + 40);
        call.word(&[verb.as_bytes()]);
        call.word(&[script.as_bytes()]);
        call.number(asks.len());
        for ask in asks {
            write_key(&mut call, form, ask);
        }
        call.number(now_us);
        if let Some(ask) = one {
            call.number(ask.cost);
            write_bucket(&mut call, ask);
        } else {
            call.word(&[b"1"]);
            for ask in asks {
                write_limit(&mut call, ask);
            }
        }
        call
    }
}

fn write_key(call: &mut Command, form: KeyForm<'_>, ask: &Ask<'_>) {
    with_key(form, ask, |pieces| call.word(pieces));
}

/// `<prefix>:{<subject>}:<state id>:<letter><version>`: what a subject has stays in one Cluster slot.
/// Tagged with a route it is `<prefix>:{<route>}:<subject>:<state id>:…`: what a route has stays in one.
pub(super) fn with_key<R>(form: KeyForm<'_>, ask: &Ask<'_>, take: impl FnOnce(&[&[u8]]) -> R) -> R {
    let mut letter = [0; 4];
    let letter = ask.algorithm.letter().encode_utf8(&mut letter).as_bytes();
    let (prefix, state_id) = (form.prefix.as_bytes(), ask.state_id.as_bytes());
    let (tag, subject) = match form.route(ask) {
        None => (&ask.subject[..], [&b""[..], b""]),
        Some(route) => (route.as_bytes(), [&ask.subject[..], b":"]),
    };
    take(&[prefix, b":{", tag, b"}:", subject[0], subject[1], state_id, b":", letter, FORMAT_VERSION])
}

fn write_limit(call: &mut Command, ask: &Ask<'_>) {
    let mut letter = [0; 4];
    call.word(&[ask.algorithm.letter().encode_utf8(&mut letter).as_bytes()]);
    call.number(u8::from(ask.shadow));
    call.number(ask.cost);
    write_bucket(call, ask);
    match ask.algorithm {
        Algorithm::TokenBucket(_) => call.number(0),
        Algorithm::LeakyBucket { delay_after, .. } => call.number(*delay_after),
    }
}

fn write_bucket(call: &mut Command, ask: &Ask<'_>) {
    let bucket = ask.algorithm.bucket();
    for number in [bucket.capacity, bucket.period, bucket.rate, bucket.tick] {
        call.number(number);
    }
}

/// Reads what a script answered to `asks`.
///
/// # Errors
/// The error reply's kind, or [`StoreErrorKind::Protocol`] for anything that this script with these
/// asks cannot have said.
pub fn read_reply(value: Value, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
    match value {
        Value::Array(items) => reply(&items, asks).ok_or(StoreErrorKind::Protocol),
        Value::ServerError(error) => Err(error_kind(&error)),
        _ => Err(StoreErrorKind::Protocol),
    }
}

fn reply(items: &[Value], asks: &[Ask<'_>]) -> Option<Reply> {
    if items.len() != HEAD + PER_LIMIT * asks.len() {
        return None;
    }
    let (head, rest) = items.split_at(HEAD);
    let answers: SmallVec<[Answer; 2]> = rest.chunks_exact(PER_LIMIT).map(answer).collect::<Option<_>>()?;
    let reply = Reply {
        granted: flag(&head[0])?,
        now_us: integer(&head[1], 0)?,
        wait_us: unsigned(&head[2])?,
        retry_us: integer(&head[3], -1)?,
        answers,
    };
    let admitted = asks.iter().zip(&reply.answers).all(|(ask, answer)| ask.shadow || answer.allowed);
    (admitted == reply.granted && !(reply.granted && reply.retry_us != 0)).then_some(reply)
}

fn answer(items: &[Value]) -> Option<Answer> {
    let [allowed, remaining, retry, reset] = items else { return None };
    let answer = Answer {
        allowed: flag(allowed)?,
        remaining: unsigned(remaining)?,
        retry_us: integer(retry, -1)?,
        reset_us: unsigned(reset)?,
    };
    (answer.allowed == (answer.retry_us == 0)).then_some(answer)
}

fn integer(value: &Value, least: i64) -> Option<i64> {
    match *value {
        Value::Int(n) if (least..LARGEST).contains(&n) => Some(n),
        _ => None,
    }
}

fn unsigned(value: &Value) -> Option<u64> {
    integer(value, 0)?.try_into().ok()
}

fn flag(value: &Value) -> Option<bool> {
    match *value {
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        _ => None,
    }
}

/// What an error reply means. Servers before 7.0 wrap what a command inside a script said into
/// `ERR Error running script …: -OOM command not allowed …`, so the words of an `ERR` are searched.
#[must_use]
pub fn error_kind(error: &ServerError) -> StoreErrorKind {
    let details = error.details().unwrap_or_default();
    if let Some(kind) = kind_of_code(error.code()) {
        return kind;
    }
    if details.starts_with("max number of clients") {
        return StoreErrorKind::Refused;
    }
    if details.contains("The user executing the script can't") {
        return StoreErrorKind::Noperm;
    }
    let mut words = details.split([' ', ':']);
    words.find_map(|word| kind_of_code(word.strip_prefix('-')?)).unwrap_or(StoreErrorKind::Protocol)
}

fn kind_of_code(code: &str) -> Option<StoreErrorKind> {
    Some(match code {
        "LOADING" | "MASTERDOWN" => StoreErrorKind::Loading,
        "READONLY" => StoreErrorKind::Readonly,
        "OOM" => StoreErrorKind::Oom,
        "NOSCRIPT" => StoreErrorKind::Noscript,
        "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" => StoreErrorKind::Moved,
        "CLUSTERDOWN" => StoreErrorKind::Clusterdown,
        "NOAUTH" | "WRONGPASS" => StoreErrorKind::Noauth,
        "NOPERM" => StoreErrorKind::Noperm,
        "MISCONF" | "NOREPLICAS" => StoreErrorKind::Misconf,
        "BUSY" => StoreErrorKind::Busy,
        _ => return None,
    })
}

/// Whether a reply says that this server lets no script read its clock; nothing was executed then.
#[must_use]
pub fn refuses_time(value: &Value) -> bool {
    matches!(value, Value::ServerError(error)
        if error.details().is_some_and(|details| details.contains("command is not allowed from script")))
}

/// Whether a reply says that the server does not know the script; nothing was executed then.
#[must_use]
pub fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
