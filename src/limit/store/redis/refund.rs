//! Giving back what a decision was charged: a later part of it was denied, on another server.

use super::super::super::algorithm::{Algorithm, Settlement};
use super::super::{Ask, Reply, Settle};
use super::keys::KeyForm;
use super::order::Order;

/// What is to be given back, all of it in one slot.
#[derive(Debug)]
pub(super) struct Refund<'a> {
    slot: u16,
    /// As in the decision: `None` is the server's clock.
    now_us: Option<i64>,
    /// The instant of the charge by its server's clock.
    pub(super) charged_at_us: i64,
    settles: Vec<Settle<'a>>,
}

impl<'a> Refund<'a> {
    /// Whatever these asks, all of one slot, were charged by this granted reply; `None` when that is nothing.
    pub(super) fn of(form: KeyForm<'_>, now_us: Option<i64>, asks: &[Ask<'a>], granted: &Reply) -> Option<Self> {
        let denied =
            |shadow: u8| asks.iter().zip(&granted.answers).any(|(ask, answer)| ask.shadow == shadow && !answer.allowed);
        let charged = |ask: &&Ask<'a>| {
            granted.granted && ask.cost > 0 && !denied(ask.shadow) && !matches!(ask.algorithm, Algorithm::Penalty(_))
        };
        let settles: Vec<_> = asks.iter().filter(charged).map(|ask| given_back(ask, granted.now_us)).collect();
        let first = asks.first().filter(|_| !settles.is_empty())?;
        Some(Self { slot: form.slot(first), now_us, charged_at_us: granted.now_us, settles })
    }

    /// The slot of its states.
    pub(super) fn slot(&self) -> u16 {
        self.slot
    }

    /// What the slot's server is told.
    pub(super) fn order(&self) -> Order<'_> {
        Order::Settle { now_us: self.now_us, settles: &self.settles }
    }
}

fn given_back<'a>(ask: &Ask<'a>, charged_at_us: i64) -> Settle<'a> {
    let amount = -i64::try_from(ask.cost).unwrap_or(i64::MAX);
    let settlement = Settlement { amount, charged_at_us, slot: ask.slot };
    Settle { state_id: ask.state_id, algorithm: ask.algorithm, subject: ask.subject, settlement }
}
