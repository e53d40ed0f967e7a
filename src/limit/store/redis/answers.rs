//! What scripts answer: a flat array of integers (see `lua/prelude.lua`). Whatever else comes back is a
//! [`StoreErrorKind`], never a decision.

use redis::{ServerError, Value};
use smallvec::SmallVec;

use super::super::super::stats::StoreErrorKind;
use super::super::{Answer, Ask, Reply};

/// Integers of a reply that stand before, and per, limit.
const HEAD: usize = 4;
const PER_LIMIT: usize = 4;
/// No number in a reply reaches this: every integer of a script is exact below 2^53.
const LARGEST: i64 = 1 << 53;

/// Reads what a script answered to `asks`.
///
/// # Errors
/// The error reply's kind, or [`StoreErrorKind::Protocol`] for anything that this script with these
/// asks cannot have said.
pub(super) fn read_reply(value: Value, asks: &[Ask<'_>]) -> Result<Reply, StoreErrorKind> {
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
        instants: SmallVec::new(),
    };
    let admitted = asks.iter().zip(&reply.answers).all(|(ask, answer)| ask.is_shadow() || answer.allowed);
    (admitted == reply.granted && !(reply.granted && reply.retry_us != 0)).then_some(reply)
}

/// The four numbers that a script says of one limit.
pub(super) fn answer(items: &[Value]) -> Option<Answer> {
    let [allowed, remaining, retry, reset] = items else { return None };
    let answer = Answer {
        allowed: flag(allowed)?,
        remaining: unsigned(remaining)?,
        retry_us: integer(retry, -1)?,
        reset_us: unsigned(reset)?,
    };
    (answer.allowed == (answer.retry_us == 0)).then_some(answer)
}

/// A whole number in the exact range, of at least this.
pub(super) fn integer(value: &Value, least: i64) -> Option<i64> {
    match *value {
        Value::Int(n) if (least..LARGEST).contains(&n) => Some(n),
        _ => None,
    }
}

/// The same, not below 0.
pub(super) fn unsigned(value: &Value) -> Option<u64> {
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
pub(super) fn error_kind(error: &ServerError) -> StoreErrorKind {
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

/// Whether a reply may say that this server lets no script read its clock: a managed server, an ACL
/// without TIME, a renamed TIME. Nothing was executed then, for the clock is read first.
pub(super) fn refuses_time(value: &Value) -> bool {
    const REFUSALS: [&str; 3] = [
        "command is not allowed from script",
        "The user executing the script can't run",
        "Unknown Redis command called from script",
    ];
    matches!(value, Value::ServerError(error)
        if error.details().is_some_and(|details| REFUSALS.iter().any(|refusal| details.contains(refusal))))
}

/// Whether a reply says that the server does not know the script; nothing was executed then.
pub(super) fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
