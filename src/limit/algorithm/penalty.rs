//! The penalty: a key that its limits denied again and again is blocked, each time for twice as long.
//!
//! A strike is the first denial after the previous strike's Retry-After ran out: who waits as told is
//! admitted then, and so not struck again, and who hammers is struck once per round, however often it
//! hammers. So many strikes block the key; denials inside the block change nothing; everything is
//! forgotten when a key kept quiet for the longest block.
//!
//! Above the penalty of an IPv6 key stand those of the networks around it. There a strike is a block of a part
//! that no block was known of: so many parts of a network block the whole of it, one part alone never does.
//!
//! # Order of operations
//!
//! 1. **Read.** A state is none once `max(until, blocked) + max <= now`. A block that ends later than the longest
//!    one and a second from now (the clock stepped back) ends the longest one from now, and so does a strike's round
//!    that is too far ahead; that is written even on a denial.
//! 2. **Evaluate.** `ok = (n = 0) or (blocked <= now)`; `retry` = the block's end.
//! 3. **Strike.** When ok, a limit beside it denied with retry r (never: the longest block). With `now < until` that
//!    belongs to the last strike, whose round it may shorten: `until = min(until, now + r)`, so that one dear request
//!    does not hide what cheap ones do. Else one strike more, `until = now + r`. The last of so many blocks: for `block`, or twice the last time, at
//!    most `max`; strikes begin anew. Then the penalty denies this request too, until the block's end.
//!    In a network's penalty a strike is a first block of the penalty before it; there `until` is the first strike of
//!    those that count, and strikes count for `max` from that. A part that is blocked again and again is known of
//!    for longer than that, so each of the strikes is another part's.

use super::{Algorithm, TOLERANCE_US};

/// The numbers of a penalty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty {
    /// Strikes that block, at least 1.
    pub after: u64,
    /// Length of the first block, microseconds.
    pub block_us: u64,
    /// Length of the longest, microseconds.
    pub max_us: u64,
    /// What is a strike.
    pub watches: Watches,
    /// How long a strike's round can last, microseconds: until the longest Retry-After of what it watches.
    pub round_us: u64,
}

/// What a penalty is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watches {
    /// Denials of so many limits, which are asked before it.
    Denials(usize),
    /// Blocks of the penalty that is asked before it, of keys that no block was known of.
    Parts,
}

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Strikes since the last block.
    pub strikes: u64,
    /// Length of the last block, microseconds; 0 before the first.
    pub length_us: u64,
    /// Until then denials are no strikes, microseconds since 1970.
    pub until_us: i64,
    /// Blocked until then.
    pub blocked_until_us: i64,
    /// Forgotten then.
    pub forgotten_at_us: i64,
}

/// A state at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    state: State,
    /// How long the block lasts; 0 when there is none.
    pub(super) blocked_us: i64,
    /// Whether it was blocked just now, and no block was known of it.
    pub(super) blocked_anew: bool,
    /// What is to be stored, whatever is decided.
    pub(super) written: Option<State>,
}

impl Penalty {
    /// The same penalty of the limits that are asked before it.
    #[must_use]
    pub fn of<'a>(self, watched: impl ExactSizeIterator<Item = &'a Algorithm>) -> Self {
        let watches = Watches::Denials(watched.len());
        let longest = watched.map(|algorithm| algorithm.longest_retry_us(algorithm.capacity())).max().unwrap_or(0);
        Self { watches, round_us: self.max_us.max(longest.unsigned_abs()), ..self }
    }

    /// The penalty of a network, so many parts of which block it.
    #[must_use]
    pub fn of_network(self, parts: u64) -> Self {
        Self { after: parts, watches: Watches::Parts, round_us: self.max_us, ..self }
    }

    /// Reads a stored state (step 1 of the module's order of operations).
    #[must_use]
    pub fn read(&self, stored: Option<State>, now_us: i64) -> Reading {
        let longest = self.max_us.cast_signed();
        let forgotten = |state: &State| state.until_us.max(state.blocked_until_us) + longest <= now_us;
        let mut state = stored.filter(|state| !forgotten(state)).unwrap_or_default();
        let mut written = None;
        let too_far = |until_us: i64, longest: i64| until_us - now_us > longest + TOLERANCE_US.cast_signed();
        if too_far(state.blocked_until_us, longest) || too_far(state.until_us, self.round_us.cast_signed()) {
            state.blocked_until_us = state.blocked_until_us.min(now_us + longest);
            state.until_us = state.until_us.min(now_us + longest);
            written = Some(self.sealed(state));
        }
        Reading { state, blocked_us: (state.blocked_until_us - now_us).max(0), blocked_anew: false, written }
    }

    /// The state with the instant at which it is forgotten.
    fn sealed(&self, state: State) -> State {
        let last = state.until_us.max(state.blocked_until_us);
        State { forgotten_at_us: last + self.max_us.cast_signed(), ..state }
    }

    /// A part of this network was blocked that no block was known of (step 3).
    pub(super) fn part_blocked(&self, reading: &mut Reading, now_us: i64) -> i64 {
        let state = &mut reading.state;
        if state.strikes == 0 || state.until_us + self.max_us.cast_signed() <= now_us {
            (state.strikes, state.until_us) = (0, now_us);
        }
        state.strikes += 1;
        self.after_strike(reading, now_us)
    }

    /// A limit beside it denied (step 3). Microseconds until the block's end; 0 when that blocks nothing.
    pub(super) fn strike(&self, reading: &mut Reading, retry_us: i64, now_us: i64) -> i64 {
        let state = &mut reading.state;
        let ends_us = now_us + if retry_us < 0 { self.max_us.cast_signed() } else { retry_us };
        if state.until_us > now_us {
            if ends_us < state.until_us {
                state.until_us = ends_us;
                reading.written = Some(self.sealed(reading.state));
            }
            return 0;
        }
        state.strikes += 1;
        state.until_us = ends_us;
        self.after_strike(reading, now_us)
    }

    /// Blocks when that was the last of so many. Microseconds until the block's end; 0 when it blocks nothing.
    fn after_strike(&self, reading: &mut Reading, now_us: i64) -> i64 {
        let state = &mut reading.state;
        let mut blocked_us = 0;
        if state.strikes >= self.after {
            reading.blocked_anew = state.length_us == 0;
            let length = if state.length_us == 0 { self.block_us } else { state.length_us.saturating_mul(2) };
            state.length_us = length.min(self.max_us);
            state.strikes = 0;
            state.blocked_until_us = now_us + state.length_us.cast_signed();
            blocked_us = state.length_us.cast_signed();
        }
        reading.written = Some(self.sealed(reading.state));
        blocked_us
    }

    /// Strikes left before a block, and microseconds until everything is forgotten.
    pub(super) fn left(&self, reading: &Reading, now_us: i64) -> (u64, u64) {
        let state = self.sealed(reading.state);
        let seen = state.until_us.max(state.blocked_until_us) > 0;
        let blocked = state.blocked_until_us > now_us;
        let reset = if seen { u64::try_from(state.forgotten_at_us - now_us).unwrap_or(0) } else { 0 };
        (if blocked { 0 } else { self.after.saturating_sub(state.strikes) }, reset)
    }
}

impl State {
    /// The instant from which this state equals "never seen", microseconds since 1970.
    #[must_use]
    pub fn full_at_us(&self) -> i64 {
        self.forgotten_at_us
    }
}
