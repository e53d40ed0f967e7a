//! Keeps the keys fresh, on a thread of its own. What fails leaves the keys as they are.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::fetch::{FetchError, fetch};
use super::key_set::{KeySetError, LARGEST};
use super::keys::Keys;
use super::settings::{JwksUrl, KeySource};

/// Between two looks at a file.
const FILE_PAUSE: Duration = Duration::from_secs(2);
/// Between two fetches because of keys that tokens name and nobody knows: such tokens can be made up.
const EARLY_PAUSE: Duration = Duration::from_secs(10);
/// After the first failure; twice as long after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Reasons of one outage that are told; a server may make up new ones without end.
const MOST_REASONS: usize = 8;
/// At most this long after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Why a source gave no keys.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// Follows the source of these keys until dropped. Needs a local runtime.
///
/// # Errors
/// Never; it ends with its thread.
pub async fn keep(keys: Arc<Keys>) -> io::Result<()> {
    let mut keeper = Keeper { failing: false, reasons: Vec::new(), keys: &keys };
    match &keys.settings().source {
        KeySource::Url(url) => keeper.follow_url(url).await,
        KeySource::File(path) | KeySource::Pem(path) => keeper.follow_file(path).await,
    }
    Ok(())
}

struct Keeper<'a> {
    keys: &'a Keys,
    /// Whether the last attempt failed; the log tells changes of this.
    failing: bool,
    /// Why it did since it last succeeded, as the log was told.
    reasons: Vec<String>,
}

impl Keeper<'_> {
    /// Fetches at once, then every `refresh`; sooner after a failure, or when a key is missed.
    async fn follow_url(&mut self, url: &JwksUrl) {
        let refresh = self.keys.settings().refresh;
        let mut retry = FIRST_RETRY;
        let mut last_early = None;
        loop {
            let fetched = fetch(url).await.map_err(SourceError::from);
            self.take(fetched.map(|contents| contents.to_vec()));
            let pause = if self.failing { retry.min(refresh) } else { refresh };
            retry = if self.failing { (retry * 2).min(LONGEST_RETRY) } else { FIRST_RETRY };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.missed(&mut last_early) => {}
            }
        }
    }

    /// Returns when a key was missed, and the last time that this led to a fetch is long enough ago.
    async fn missed(&self, last: &mut Option<Instant>) {
        self.keys.missed().await;
        if let Some(last) = last {
            sleep_until(*last + EARLY_PAUSE).await;
        }
        *last = Some(Instant::now());
    }

    /// Looks at the file again and again. Its contents decide, not its time: whoever swaps a link or keeps
    /// times while copying is noticed as well.
    async fn follow_file(&mut self, path: &Path) {
        loop {
            sleep(FILE_PAUSE).await;
            self.take(read(path).map_err(SourceError::from));
        }
    }

    /// Makes keys of what the source gave, and tells the log what that changes.
    fn take(&mut self, contents: Result<Vec<u8>, SourceError>) {
        let settings = self.keys.settings();
        let source = &settings.source;
        let set = contents.and_then(|contents| Ok(source.read(&contents, &settings.algorithms)?));
        match set {
            Ok(set) => {
                let (count, ignored) = (set.len(), set.ignored().join(", "));
                if self.keys.replace(set) {
                    tracing::info!(%source, keys = count, ignored, "keys of tokens loaded");
                } else if self.failing {
                    tracing::info!(%source, keys = count, "keys of tokens can be loaded again");
                }
                self.failing = false;
                self.reasons.clear();
            }
            Err(error) => {
                self.keys.fail();
                self.failing = true;
                self.tell(&error.to_string());
            }
        }
    }

    /// Logs why there are no new keys: the first reason of an outage, and each further one once.
    fn tell(&mut self, error: &str) {
        if self.reasons.len() >= MOST_REASONS || self.reasons.iter().any(|told| told == error) {
            return;
        }
        let (source, keys) = (&self.keys.settings().source, self.keys.status().keys);
        match (self.reasons.is_empty(), keys) {
            (false, _) => tracing::info!(%source, error, keys, "keys of tokens still cannot be loaded"),
            (true, 0) => {
                tracing::warn!(%source, error, keys, "keys of tokens cannot be loaded and there are none: no token is believed");
            }
            (true, _) => tracing::warn!(%source, error, keys, "keys of tokens cannot be loaded, those there are stay"),
        }
        self.reasons.push(error.to_owned());
    }
}

/// A file's bytes, one more than allowed at most.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    std::fs::File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut contents)?;
    Ok(contents)
}

/// Up to a tenth less, so that proxies started together do not fetch together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - fastrand::f64() / 10.0)
}
