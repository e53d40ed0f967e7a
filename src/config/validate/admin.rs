//! Where the process is watched.

use super::Check;
use super::listeners::overlap;
use crate::config::file::{self, File};
use crate::config::shape::{Setting, Short};
use crate::config::values::Off;
use crate::config::{AdminSettings, ListenAddress, Listener};
use crate::limit::policy::PathPattern;

impl Check<'_> {
    pub(super) fn admin(&mut self, file: &File, listeners: &[Listener]) -> Option<AdminSettings> {
        let admin = match file.admin.get() {
            Some(Short::Short(Off)) => return None,
            Some(Short::Long(admin)) => admin.clone(),
            None => file::Admin::default(),
        };
        let address = admin.address.get().map_or(AdminSettings::DEFAULT_ADDRESS, |address| address.0);
        let token = self.secret_file(&admin.token_file);
        if let Some(given) = admin.address.spanned() {
            if !address.ip().is_loopback() && admin.token_file.is_absent() {
                self.error(
                    given.span,
                    "the admin listener is open to other machines without a token",
                    "add `token_file`, or listen on 127.0.0.1",
                );
            }
            if let Some(other) = listeners.iter().find(|other| overlap(&other.address, &ListenAddress::Tcp(address))) {
                let message = format!("the listener `{}` has this address already", other.name);
                self.error(given.span, message, "give the admin listener its own port");
            }
        }
        let dashboard = admin.dashboard.get().copied().unwrap_or(true);
        Some(AdminSettings { address, token, dashboard })
    }

    pub(super) fn metrics_path(&mut self, file: &File) -> Box<str> {
        let given = file.metrics.get().and_then(|metrics| metrics.path.spanned());
        let Some(given) = given else { return "/metrics".into() };
        match &given.value {
            PathPattern::Exact(path) if !matches!(&**path, "/healthz" | "/readyz" | "/") && !is_taken(path) => {
                path.clone()
            }
            _ => {
                self.error(given.span, "the metrics cannot stand here", "write a path of its own, such as /metrics");
                "/metrics".into()
            }
        }
    }
}

/// Whether nothing that was written of the admin listener's address and token was unreadable.
pub(super) fn is_read(file: &File) -> bool {
    match &file.admin {
        Setting::Invalid => false,
        setting => match setting.get() {
            Some(Short::Long(admin)) => {
                !matches!(admin.address, Setting::Invalid) && !matches!(admin.token_file, Setting::Invalid)
            }
            Some(Short::Short(_)) | None => true,
        },
    }
}

/// Whether the admin listener has something else there.
fn is_taken(path: &str) -> bool {
    path.starts_with("/api/") || matches!(path, "/app.js" | "/app.css" | "/index.html")
}

/// Whether the metrics are for the token's holder alone.
pub(super) fn metrics_need_token(file: &File) -> bool {
    let given = file.metrics.get().and_then(|metrics| metrics.token.get());
    !given.is_some_and(|token| *token == file::MetricsToken::None)
}
