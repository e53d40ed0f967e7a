//! What would happen to one request, and why, without one that is sent: the canonical target, the route and
//! those passed over, what the route does, each limit with its key and cost. Nothing is counted.

pub(crate) mod account;
mod effects;
pub(crate) mod request;
pub(crate) mod token;

pub(crate) use account::{Account, Changed, Left, conditions_of};
