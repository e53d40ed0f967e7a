//! Why an answer or a tunnel ended before its end, where it is not the client that left.

/// What cut it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The upstream's response broke off after its head.
    BrokeOff,
    /// The upstream sent nothing more of it for too long.
    Stalled,
    /// The upstream's side of a tunnel failed.
    TunnelBrokeOff,
    /// Nothing came through a tunnel for too long.
    TunnelIdle,
    /// This process ended, and its grace period was over.
    Shutdown,
}

impl Cut {
    /// As the access log tells it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::BrokeOff => "response_broke_off",
            Self::Stalled => "response_stalled",
            Self::TunnelBrokeOff => "tunnel_broke_off",
            Self::TunnelIdle => "tunnel_idle",
            Self::Shutdown => "cut_by_shutdown",
        }
    }
}
