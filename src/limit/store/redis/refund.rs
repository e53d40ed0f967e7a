//! Giving back what a decision was charged: a later part of it was denied, on another server.

use super::super::super::algorithm::Algorithm;
use super::super::Ask;
use super::super::Reply;
use super::command::Command;
use super::keys::KeyForm;
use super::script::with_key;

/// The script (`lua/refund.lua`).
const TEXT: &str = include_str!("../../../../lua/refund.lua");
/// Numbers per state.
const NUMBERS: usize = 4;

/// What is to be given back, all of it in one slot.
#[derive(Debug)]
pub(super) struct Refund {
    slot: u16,
    /// As in the decision: `None` is the server's clock.
    now_us: Option<i64>,
    states: Vec<State>,
}

/// One state, and what it was charged.
#[derive(Debug)]
struct State {
    key: Vec<u8>,
    /// Cost, P, R, U.
    numbers: [u64; NUMBERS],
}

impl Refund {
    /// Whatever these asks, all of one slot, were charged by this granted reply; `None` when that is nothing.
    pub(super) fn of(form: KeyForm<'_>, now_us: Option<i64>, asks: &[Ask<'_>], granted: &Reply) -> Option<Self> {
        let answered = asks.iter().zip(&granted.answers);
        let charged = answered.filter(|(ask, answer)| granted.granted && answer.allowed && ask.cost > 0);
        let states: Vec<_> = charged.map(|(ask, _)| State::of(form, ask)).collect();
        let first = asks.first().filter(|_| !states.is_empty())?;
        Some(Self { slot: form.slot(first), now_us, states })
    }

    /// The slot of its states.
    pub(super) fn slot(&self) -> u16 {
        self.slot
    }

    /// The clock that the caller of the decision gave.
    pub(super) fn now_us(&self) -> Option<i64> {
        self.now_us
    }

    /// The call, with this clock. It is rare, so its text is always sent along.
    pub(super) fn call(&self, now_us: i64) -> Command {
        let keys: usize = self.states.iter().map(|state| state.key.len()).sum();
        let mut call = Command::with_words(4 + (1 + NUMBERS) * self.states.len(), TEXT.len() + keys + 40);
        call.word(&[b"EVAL"]);
        call.word(&[TEXT.as_bytes()]);
        call.number(self.states.len());
        for state in &self.states {
            call.word(&[&state.key]);
        }
        call.number(now_us);
        for number in self.states.iter().flat_map(|state| state.numbers) {
            call.number(number);
        }
        call
    }
}

impl State {
    fn of(form: KeyForm<'_>, ask: &Ask<'_>) -> Self {
        let (Algorithm::TokenBucket(bucket) | Algorithm::LeakyBucket { bucket, .. }) = ask.algorithm;
        Self {
            key: with_key(form, ask, |pieces| pieces.concat()),
            numbers: [ask.cost, bucket.period, bucket.rate, bucket.tick],
        }
    }
}
