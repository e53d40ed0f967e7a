//! The scripts, their arguments and replies.
//!
//! A call sends the keys and numbers of all its limits; a reply is a flat array of integers (see
//! `lua/prelude.lua`). Whatever else comes back is a [`StoreErrorKind`], never a decision.

use std::time::{SystemTime, UNIX_EPOCH};

use redis::{ServerError, Value};
use smallvec::SmallVec;

use super::super::super::algorithm::penalty::Watches;
use super::super::super::algorithm::{Algorithm, Bucket};
use super::super::super::key;
use super::super::super::stats::StoreErrorKind;
use super::super::{Answer, Ask, Reply, Settle};
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
    /// Every algorithm.
    All,
    /// Refunds, further charges, slots that are renewed or end.
    Release,
    /// Many identical requests at once.
    Grant,
}

impl Script {
    /// Every script, in the order of [`Script`] as an index.
    pub const ALL: [Self; 6] =
        [Self::OneTokenBucket, Self::TokenBuckets, Self::Buckets, Self::All, Self::Release, Self::Grant];

    /// The smallest script that can decide these.
    #[must_use]
    pub fn for_asks(asks: &[Ask<'_>]) -> Self {
        let is_token_bucket = |ask: &Ask<'_>| matches!(ask.algorithm, Algorithm::TokenBucket(_));
        match asks {
            [ask]
                if !ask.is_shadow() && matches!(ask.algorithm, Algorithm::TokenBucket(bucket) if bucket.debt == 0) =>
            {
                Self::OneTokenBucket
            }
            asks if asks.iter().all(is_token_bucket) => Self::TokenBuckets,
            asks if asks.iter().all(|ask| ask.algorithm.bucket().is_some()) => Self::Buckets,
            _ => Self::All,
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
            Self::All => concat!(
                include_str!("../../../../lua/prelude.lua"),
                include_str!("../../../../lua/token_bucket.lua"),
                include_str!("../../../../lua/leaky_bucket.lua"),
                include_str!("../../../../lua/fixed_window.lua"),
                include_str!("../../../../lua/sliding_window.lua"),
                include_str!("../../../../lua/sliding_log.lua"),
                include_str!("../../../../lua/in_flight.lua"),
                include_str!("../../../../lua/penalty.lua"),
                include_str!("../../../../lua/decide.lua")
            ),
            Self::Release => concat!(
                include_str!("../../../../lua/prelude.lua"),
                include_str!("../../../../lua/token_bucket.lua"),
                include_str!("../../../../lua/fixed_window.lua"),
                include_str!("../../../../lua/sliding_window.lua"),
                include_str!("../../../../lua/sliding_log.lua"),
                include_str!("../../../../lua/release.lua")
            ),
            Self::Grant => concat!(
                include_str!("../../../../lua/prelude.lua"),
                include_str!("../../../../lua/token_bucket.lua"),
                include_str!("../../../../lua/fixed_window.lua"),
                include_str!("../../../../lua/sliding_window.lua"),
                include_str!("../../../../lua/sliding_log.lua"),
                include_str!("../../../../lua/grant.lua")
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
        self.call(("EVALSHA", sha), keys.into(), (now_us, 1), asks)
    }

    /// The same call with the whole text, for a server that does not know it.
    #[must_use]
    pub fn by_text<'k>(self, keys: impl Into<KeyForm<'k>>, now_us: i64, asks: &[Ask<'_>]) -> Command {
        self.call(("EVAL", self.text()), keys.into(), (now_us, 1), asks)
    }

    /// The call `EVALSHA sha …` that decides so many identical requests (`now_us`, how many).
    #[must_use]
    pub fn grant_by_sha(sha: &str, form: KeyForm<'_>, mode: (i64, u64), asks: &[Ask<'_>]) -> Command {
        Self::Grant.call(("EVALSHA", sha), form, mode, asks)
    }

    /// The same call with the whole text.
    #[must_use]
    pub fn grant_by_text(form: KeyForm<'_>, mode: (i64, u64), asks: &[Ask<'_>]) -> Command {
        Self::Grant.call(("EVAL", Self::Grant.text()), form, mode, asks)
    }

    fn call(
        self,
        (verb, script): (&str, &str),
        form: KeyForm<'_>,
        (now_us, mode): (i64, u64),
        asks: &[Ask<'_>],
    ) -> Command {
        let one =
            if let (Self::OneTokenBucket, [ask]) = (self, asks) { ask.algorithm.bucket().zip(Some(ask)) } else { None };
        let words = if one.is_some() { 10 } else { 5 + 10 * asks.len() };
        let keys: usize = asks.iter().map(|ask| form.prefix.len() + ask.subject.len() + ask.state_id.len() + 24).sum();
        let mut call = Command::with_words(words, script.len() + keys + 40);
        call.word(&[verb.as_bytes()]);
        call.word(&[script.as_bytes()]);
        call.number(asks.len());
        for ask in asks {
            write_key(&mut call, form, ask.state_id, ask.algorithm, ask.subject);
        }
        call.number(now_us);
        if let Some((bucket, ask)) = one {
            call.number(ask.cost);
            write_bucket(&mut call, bucket);
            return call;
        }
        call.number(mode);
        for ask in asks {
            write_letter(&mut call, ask.algorithm);
            call.number(ask.shadow);
            call.number(ask.cost);
            write_parameters(&mut call, ask.algorithm, now_us, ask.slot);
        }
        call
    }

    /// The call `EVALSHA sha …` that settles these.
    #[must_use]
    pub fn settle_by_sha(sha: &str, form: KeyForm<'_>, now_us: i64, settles: &[Settle<'_>]) -> Command {
        Self::settle("EVALSHA", sha, form, (now_us, settles))
    }

    /// The same call with the whole text.
    #[must_use]
    pub fn settle_by_text(form: KeyForm<'_>, now_us: i64, settles: &[Settle<'_>]) -> Command {
        Self::settle("EVAL", Self::Release.text(), form, (now_us, settles))
    }

    fn settle(verb: &str, script: &str, form: KeyForm<'_>, (now_us, settles): (i64, &[Settle<'_>])) -> Command {
        let mut call = Command::with_words(5 + 10 * settles.len(), script.len() + 200 * settles.len());
        call.word(&[verb.as_bytes()]);
        call.word(&[script.as_bytes()]);
        call.number(settles.len());
        for settle in settles {
            write_key(&mut call, form, settle.state_id, settle.algorithm, settle.subject);
        }
        call.number(now_us);
        call.word(&[b"1"]);
        for Settle { algorithm, settlement, .. } in settles {
            write_letter(&mut call, algorithm);
            call.number(settlement.charged_at_us);
            call.number(settlement.amount);
            write_parameters(&mut call, algorithm, now_us, settlement.slot);
        }
        call
    }
}

fn write_key(call: &mut Command, form: KeyForm<'_>, state_id: &str, algorithm: &Algorithm, subject: &[u8]) {
    with_key(form, (state_id, subject), algorithm, |pieces| call.word(pieces));
}

/// `<prefix>:{<subject>}:<state id>:<letter><version>`: what a subject has stays in one Cluster slot. Tagged with
/// a route it is `<prefix>:{<route>}:<subject>:<state id>:…`: what a route has stays in one; a subject inside
/// a network whose parts are watched is tagged with the network in the same way. A window's length stands behind
/// it: another length is another state.
pub(super) fn with_key<R>(
    form: KeyForm<'_>,
    (state_id, subject): (&str, &[u8]),
    algorithm: &Algorithm,
    take: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    let mut letter = [0; 4];
    let letter = algorithm.letter().encode_utf8(&mut letter).as_bytes();
    let mut digits = itoa::Buffer::new();
    let [dot, window]: [&[u8]; 2] = match algorithm.window_us() {
        0 => [b"", b""],
        window_us => [b".", digits.format(window_us).as_bytes()],
    };
    let (network, own) = key::network_of(subject);
    let (tag, behind): (&[u8], [&[u8]; 2]) = match (form.route(state_id), network) {
        (None, None) => (own, [b"", b""]),
        (None, Some(network)) => (network, [own, b":"]),
        (Some(route), _) => (route.as_bytes(), [own, b":"]),
    };
    let [subject, colon] = behind;
    let (prefix, state_id) = (form.prefix.as_bytes(), state_id.as_bytes());
    take(&[prefix, b":{", tag, b"}:", subject, colon, state_id, b":", letter, FORMAT_VERSION, dot, window])
}

fn write_letter(call: &mut Command, algorithm: &Algorithm) {
    let mut letter = [0; 4];
    call.word(&[algorithm.letter().encode_utf8(&mut letter).as_bytes()]);
}

/// The six parameters of a limit (see the heads of `lua/*.lua`).
fn write_parameters(call: &mut Command, algorithm: &Algorithm, now_us: i64, slot: &str) {
    match algorithm {
        Algorithm::TokenBucket(bucket) => {
            write_bucket(call, bucket);
            write_numbers(call, [0, bucket.debt]);
        }
        Algorithm::LeakyBucket { bucket, delay_after } => {
            write_bucket(call, bucket);
            write_numbers(call, [*delay_after, bucket.debt]);
        }
        Algorithm::FixedWindow(window) => {
            // What the server's clock says is not known yet; its window is found from ours.
            let near = if now_us == 0 { wall_clock_us() } else { now_us.saturating_abs() };
            let [from, to, next] = window.windows_near(near).unwrap_or_default().map(i64::unsigned_abs);
            write_numbers(call, [window.limit, window.window_us, from, to, next, window.debt]);
        }
        Algorithm::SlidingWindow(window) => {
            write_numbers(call, [window.limit, window.window, window.tick, 0, 0, window.debt]);
        }
        Algorithm::SlidingLog(log) => write_numbers(call, [log.limit, log.window_us, 0, 0, 0, log.debt]),
        Algorithm::InFlight(slots) => {
            write_numbers(call, [slots.limit, slots.slot_us]);
            call.word(&[slot.as_bytes()]);
            write_numbers(call, [0, 0, 0]);
        }
        Algorithm::Penalty(penalty) => {
            let watches = match penalty.watches {
                Watches::Denials(limits) => limits as u64,
                Watches::Parts => 0,
            };
            write_numbers(call, [penalty.after, penalty.block_us, penalty.max_us, watches, penalty.round_us, 0]);
        }
    }
}

fn write_bucket(call: &mut Command, bucket: &Bucket) {
    write_numbers(call, [bucket.capacity, bucket.period, bucket.rate, bucket.tick]);
}

fn write_numbers<const N: usize>(call: &mut Command, numbers: [u64; N]) {
    for number in numbers {
        call.number(number);
    }
}

/// This process' wall clock, microseconds since 1970.
fn wall_clock_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(1).max(1)
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

/// Whether a reply may say that this server lets no script read its clock: a managed server, an ACL
/// without TIME, a renamed TIME. Nothing was executed then, for the clock is read first.
#[must_use]
pub fn refuses_time(value: &Value) -> bool {
    const REFUSALS: [&str; 3] = [
        "command is not allowed from script",
        "The user executing the script can't run",
        "Unknown Redis command called from script",
    ];
    matches!(value, Value::ServerError(error)
        if error.details().is_some_and(|details| REFUSALS.iter().any(|refusal| details.contains(refusal))))
}

/// Whether a reply says that the server does not know the script; nothing was executed then.
#[must_use]
pub fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
