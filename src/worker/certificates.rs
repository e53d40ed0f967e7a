//! Watches the files of certificates: new ones are shown as soon as they can be used.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Shared;
use crate::config::Listener;
use crate::tls::{Age, Aged, Change, Credentials, Live};

/// Time between two looks at the files. Looking is a call per file, whatever replaced it: an editor, a
/// rename, or the swapped directory of a mounted secret.
const INTERVAL: Duration = Duration::from_millis(500);

/// Keeps every listener's certificates up to date, until dropped.
///
/// # Errors
/// None; it is one of the server's threads.
pub async fn keep(shared: Arc<Shared>) -> io::Result<()> {
    loop {
        tokio::time::sleep(INTERVAL).await;
        for listener in &shared.config.load_full().listeners {
            if let Some(tls) = &listener.tls {
                refresh(listener, &tls.live);
                warn_of_age(listener, &tls.live);
            }
        }
    }
}

fn refresh(listener: &Listener, live: &Live) {
    let name = &*listener.name;
    match live.refresh() {
        Some(Change::Renewed(credentials)) => {
            let until = expires(&credentials);
            tracing::info!(listener = name, until, "certificates were read again and are shown from now on");
        }
        Some(Change::Stale(error)) => {
            tracing::warn!(listener = name, %error, "changed certificates cannot be used, the ones before are still shown");
        }
        Some(Change::Restored) => {
            tracing::info!(listener = name, "certificate files can be used again, and hold what is shown");
        }
        None => {}
    }
}

fn warn_of_age(listener: &Listener, live: &Live) {
    for Aged { path, age, until } in live.aged(Timestamp::now()) {
        let (listener, certificate) = (&*listener.name, path.display());
        if age == Age::Ended {
            tracing::warn!(listener, %certificate, %until, "a certificate has expired and is still shown: clients refuse it");
        } else {
            tracing::warn!(listener, %certificate, %until, "a certificate expires soon: renew it");
        }
    }
}

/// When the first of them expires.
fn expires(credentials: &Credentials) -> Option<String> {
    let ends = credentials.certificates.iter().map(|certificate| certificate.validity.not_after);
    ends.min().map(|end| end.to_string())
}
