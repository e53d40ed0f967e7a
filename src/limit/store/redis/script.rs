//! The scripts and their arguments: a call sends the keys and numbers of all its limits.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::super::algorithm::penalty::Watches;
use super::super::super::algorithm::{Algorithm, Bucket};
use super::super::super::key;
use super::super::{Ask, Settle};
use super::command::Command;
use super::keys::KeyForm;

/// A state's layout in Redis; part of the key, so that another layout starts afresh.
const FORMAT_VERSION: &[u8] = b"1";

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

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
