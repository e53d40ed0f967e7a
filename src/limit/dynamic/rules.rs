//! What a limit's configuration allows to be set for single keys, and the terms that come of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Naming;
use crate::limit::algorithm::fixed_window::Align;
use crate::limit::algorithm::{Algorithm, Bucket, FixedWindow, Penalty, SlidingLog, SlidingWindow};
use crate::limit::policy::{Limit, Terms};
use crate::units::{DurationText, Rate};

/// What a limit allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// `<policy>@dynamic`: all overrides of a limit read states of this name, each its key's own.
    pub state_id: Arc<str>,
    /// The highest rate; `None` allows `unlimited` too.
    pub max_rate: Option<Rate>,
    /// The most at once; `None` sets no bound.
    pub max_burst: Option<u64>,
    /// The longest an override may last.
    pub max_ttl: Duration,
    /// How the limit counts.
    pub counting: Counting,
    /// What blocks keys that are denied again and again, watching the one limit before it.
    pub penalty: Option<Penalty>,
    /// How far answers may charge beyond the burst.
    pub debt: Debt,
    /// The largest cost of one request.
    pub largest_cost: u64,
    /// What its keys are called.
    pub naming: Naming,
}

/// How far settlements may go beyond what a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debt {
    /// Not at all: what a request costs is known when it comes.
    None,
    /// As far again as the burst.
    Burst,
    /// So many units.
    Units(u64),
}

/// How a limit counts, without its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counting {
    /// A token bucket.
    TokenBucket,
    /// A leaky bucket.
    LeakyBucket {
        /// How many go through without delay.
        delay_after: u64,
        /// The longest a request may be held.
        max_wait: Duration,
    },
    /// A fixed window.
    FixedWindow(Align),
    /// Two weighted windows.
    SlidingWindow,
    /// A log.
    SlidingLog,
}

/// What is to hold for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Not counted.
    Unlimited,
    /// Denied.
    Deny,
    /// Counted.
    Counted {
        /// How much is earned back.
        rate: Rate,
        /// The most at once; for windows the count of the rate.
        burst: u64,
    },
}

/// What is wrong with an override, as a sentence for whoever sets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Above the cap.
    #[error("A rate of {wanted} is above this limit's max_rate, {max}.")]
    Rate {
        /// Asked for.
        wanted: Rate,
        /// Allowed.
        max: Rate,
    },
    /// Likewise.
    #[error("`unlimited` is above this limit's max_rate, {0}.")]
    Unlimited(Rate),
    /// Likewise.
    #[error("{wanted} at once is above this limit's max_burst, {max}: give a smaller `burst`, or a smaller count.")]
    Burst {
        /// Asked for.
        wanted: u64,
        /// Allowed.
        max: u64,
    },
    /// Likewise.
    #[error("A ttl of {} is above this limit's max_ttl, {}.", DurationText(*.wanted), DurationText(*.max))]
    Ttl {
        /// Asked for.
        wanted: Duration,
        /// Allowed.
        max: Duration,
    },
    /// It would end at once.
    #[error("A ttl must be at least 1s.")]
    NoTtl,
    /// A burst where none belongs.
    #[error("A burst has no meaning beside this rate.")]
    BurstBeside,
    /// A window has a count.
    #[error("This limit counts in windows, which have no burst: their count is the most at once.")]
    BurstOfWindow,
    /// It would never admit what some requests cost.
    #[error("{burst} at once never admit a request that costs {cost}.")]
    Cost {
        /// Asked for.
        burst: u64,
        /// The largest cost.
        cost: u64,
    },
    /// The last of the burst would wait for too long.
    #[error("The last of a burst of {burst} would be held longer than this limit's max_wait, {}.", DurationText(*.max_wait))]
    Wait {
        /// Asked for.
        burst: u64,
        /// The longest a request may be held.
        max_wait: Duration,
    },
    /// It cannot be counted exactly.
    #[error("{0}.")]
    Inexact(String),
    /// It is not written as rates are.
    #[error("{0}.")]
    Unit(#[from] crate::units::UnitError),
    /// There is no key.
    #[error("An empty key has no override.")]
    NoKey,
    /// The limit counts by address.
    #[error("This limit counts by client address, and the key is no address (nor a block of the length it counts by).")]
    NotAnAddress,
    /// Several parts of the limit's key have values.
    #[error("Say of which part: write {0}.")]
    WhichPart(String),
}

impl Rules {
    /// What holds under an override that is allowed.
    ///
    /// # Errors
    /// When it is above what the configuration allows, or cannot be counted.
    pub fn allow(&self, wanted: &Wanted, ttl: Duration) -> Result<Terms, Wrong> {
        if ttl < Duration::from_secs(1) {
            return Err(Wrong::NoTtl);
        }
        if ttl > self.max_ttl {
            return Err(Wrong::Ttl { wanted: ttl, max: self.max_ttl });
        }
        self.within(wanted)?;
        self.terms(wanted)
    }

    /// What holds under an override that was set under another configuration: cut to what this one allows.
    pub(super) fn cut(&self, wanted: &Wanted) -> Option<(Wanted, Terms)> {
        let wanted = match (*wanted, self.max_rate) {
            (Wanted::Counted { rate, burst }, max_rate) => Wanted::Counted {
                rate: max_rate.filter(|max| is_above(rate, *max)).unwrap_or(rate),
                burst: self.max_burst.map_or(burst, |max| burst.min(max)),
            },
            (Wanted::Unlimited, Some(rate)) => Wanted::Counted { rate, burst: self.max_burst.unwrap_or(rate.count) },
            (uncapped, _) => uncapped,
        };
        let wanted = match wanted {
            Wanted::Counted { rate, .. } if !self.has_burst() => Wanted::Counted { rate, burst: rate.count },
            other => other,
        };
        self.within(&wanted).ok()?;
        Some((wanted, self.terms(&wanted).ok()?))
    }

    fn within(&self, wanted: &Wanted) -> Result<(), Wrong> {
        match (*wanted, self.max_rate) {
            (Wanted::Unlimited, Some(max)) => Err(Wrong::Unlimited(max)),
            (Wanted::Counted { rate, .. }, Some(max)) if is_above(rate, max) => Err(Wrong::Rate { wanted: rate, max }),
            (Wanted::Counted { burst, .. }, _) if self.max_burst.is_some_and(|max| burst > max) => {
                Err(Wrong::Burst { wanted: burst, max: self.max_burst.unwrap_or(burst) })
            }
            _ => Ok(()),
        }
    }

    /// Whether a burst may differ from the rate's count.
    fn has_burst(&self) -> bool {
        matches!(self.counting, Counting::TokenBucket | Counting::LeakyBucket { .. })
    }

    fn terms(&self, wanted: &Wanted) -> Result<Terms, Wrong> {
        let (rate, burst) = match *wanted {
            Wanted::Unlimited => return Ok(Terms::Unlimited),
            Wanted::Deny => return Ok(Terms::Deny),
            Wanted::Counted { rate, burst } => (rate, burst),
        };
        if burst < self.largest_cost {
            return Err(Wrong::Cost { burst, cost: self.largest_cost });
        }
        if burst != rate.count && !self.has_burst() {
            return Err(Wrong::BurstOfWindow);
        }
        let algorithm = self.algorithm(rate, burst)?;
        let limit = Limit {
            state_id: Arc::clone(&self.state_id),
            suffix: "".into(),
            rate: Some(rate),
            lease: None,
            algorithm,
            network: None,
        };
        let penalty = self.penalty.map(|penalty| Limit {
            state_id: format!("{}~penalty", self.state_id).into(),
            suffix: "~penalty".into(),
            rate: None,
            lease: None,
            algorithm: Algorithm::Penalty(penalty.of(std::iter::once(&limit.algorithm))),
            network: None,
        });
        Ok(Terms::Limited([limit].into_iter().chain(penalty).collect()))
    }

    fn algorithm(&self, rate: Rate, burst: u64) -> Result<Algorithm, Wrong> {
        let debt = match self.debt {
            Debt::None => 0,
            Debt::Burst => burst,
            Debt::Units(units) => units,
        };
        let bucket = || Bucket::with_debt(rate, burst, debt).map_err(|error| Wrong::Inexact(error.to_string()));
        let window = match &self.counting {
            Counting::TokenBucket => return Ok(Algorithm::TokenBucket(bucket()?)),
            &Counting::LeakyBucket { delay_after, max_wait } => {
                let bucket = bucket()?;
                let delay_after = delay_after.min(burst);
                let wait_us = bucket.wait_us((burst - 1) * bucket.period, delay_after);
                if u128::from(wait_us) > max_wait.as_micros() {
                    return Err(Wrong::Wait { burst, max_wait });
                }
                return Ok(Algorithm::LeakyBucket { bucket, delay_after });
            }
            Counting::FixedWindow(align) => FixedWindow::new(rate, align.clone(), debt).map(Algorithm::FixedWindow),
            Counting::SlidingWindow => SlidingWindow::new(rate, debt).map(Algorithm::SlidingWindow),
            Counting::SlidingLog => SlidingLog::new(rate, debt).map(Algorithm::SlidingLog),
        };
        window.map_err(|error| Wrong::Inexact(error.to_string()))
    }
}

/// Whether more is earned per time.
fn is_above(rate: Rate, max: Rate) -> bool {
    u128::from(rate.count) * max.period.as_micros() > u128::from(max.count) * rate.period.as_micros()
}

impl Wanted {
    /// From a rate and a burst as people write them.
    ///
    /// # Errors
    /// When the rate is none, or the burst has no meaning beside it.
    pub fn parse(rate: &str, burst: Option<u64>) -> Result<Self, Wrong> {
        let uncounted = match rate.trim() {
            "unlimited" => Some(Self::Unlimited),
            text => {
                let rate: Rate = text.parse()?;
                if rate.count > 0 {
                    return Ok(Self::Counted { rate, burst: burst.unwrap_or(rate.count) });
                }
                Some(Self::Deny)
            }
        };
        uncounted.filter(|_| burst.is_none()).ok_or(Wrong::BurstBeside)
    }

    /// What [`Wanted`] shows, read again.
    pub(super) fn read(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some((rate, burst)) => Self::parse(rate, Some(burst.parse().ok()?)).ok(),
            None => Self::parse(text, None).ok(),
        }
    }

    /// The rate as people write it.
    #[must_use]
    pub fn rate(&self) -> String {
        match self {
            Self::Unlimited => "unlimited".to_owned(),
            Self::Deny => "0/s".to_owned(),
            Self::Counted { rate, .. } => rate.to_string(),
        }
    }

    /// The burst, where there is one.
    #[must_use]
    pub fn burst(&self) -> Option<u64> {
        if let Self::Counted { burst, .. } = self { Some(*burst) } else { None }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rate())?;
        self.burst().map_or(Ok(()), |burst| write!(f, " {burst}"))
    }
}
