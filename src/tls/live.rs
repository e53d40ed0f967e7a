//! What a listener shows while it runs: read from its files at the start, and again when they change.
//!
//! A certificate and its key are two files, and files are written in pieces: for a moment they may not
//! fit each other. Such a moment is nobody's business. What stands is shown on, and the files are read
//! again until they fit; only when they are wrong and nobody writes them any more is anything said.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rustls::ServerConfig;

use super::{
    Authorities, AuthoritiesError, Certificate, CertificateError, ClientAuth, Names, Terms, Validity, server_config,
};

/// The largest file read, bytes.
const LARGEST: u64 = 1 << 20;
/// How long files that do not fit must have been left alone before anything is said.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long before its end a certificate is said to end, where it was made for long enough.
const NOTICE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A file that changed so lately may change again without a new time of change.
const UNSETTLED: Duration = Duration::from_secs(2);

/// What a listener shows and whom it believes, now.
#[derive(Debug)]
pub struct Credentials {
    /// In file order; the first is the default.
    pub certificates: Vec<Certificate>,
    /// Which clients are let in.
    pub client_auth: ClientAuth,
    /// All of it, ready for handshakes. Its sessions are its own: none outlives a swap.
    pub server: Arc<ServerConfig>,
    pub(super) names: Arc<Names>,
}

/// Credentials that follow their files.
#[derive(Debug)]
pub struct Live {
    terms: Terms,
    now: ArcSwap<Credentials>,
    watch: Mutex<Watch>,
    renewed: AtomicU64,
    failed: AtomicU64,
}

/// What the last look at the files has found.
#[derive(Debug, Default)]
struct Watch {
    stamps: Vec<Option<Stamp>>,
    failing: Option<Failing>,
    /// What was said of each certificate's age.
    ages: Vec<Age>,
}

/// Files that cannot be used, since when they are as they are, and what was said about them.
#[derive(Debug)]
struct Failing {
    since: Instant,
    told: Option<String>,
}

/// What tells that a file was written or replaced, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

/// What came of a look at the files, where there is something to say.
#[derive(Debug)]
pub enum Change {
    /// New credentials are shown from now on.
    Renewed(Arc<Credentials>),
    /// It was said that the files cannot be used; now they hold again what is shown.
    Restored,
    /// The files cannot be used, and nobody has written them for a while; what stood before is still shown.
    Stale(StaleError),
}

/// How near a certificate is to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// Far enough.
    Fresh,
    /// It ends within seven days, or within the last third of its time, whichever is shorter.
    Ending,
    /// It has ended.
    Ended,
}

/// A certificate that is shown and has come nearer to its end.
#[derive(Debug)]
pub struct Aged {
    /// Its file.
    pub path: PathBuf,
    /// How near it is now.
    pub age: Age,
    /// Its last second.
    pub until: Timestamp,
}

/// Why changed files are not used.
#[derive(Debug, thiserror::Error)]
pub enum StaleError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {cause}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A certificate or its key.
    #[error("`{}`: {cause}", path.display())]
    Certificate {
        /// The file to look into.
        path: PathBuf,
        /// What is wrong with it.
        cause: CertificateError,
    },
    /// The authorities of clients.
    #[error("`{}`: {cause}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: AuthoritiesError,
    },
    /// The parts do not fit together.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl Credentials {
    /// What is shown under these terms.
    ///
    /// # Errors
    /// When the parts do not fit together.
    pub(super) fn new(
        terms: &Terms,
        certificates: Vec<Certificate>,
        client_auth: ClientAuth,
    ) -> Result<Self, rustls::Error> {
        let names = Arc::new(Names::new(&certificates));
        let server = server_config(terms, Arc::clone(&names), &client_auth)?;
        Ok(Self { certificates, client_auth, server, names })
    }

    /// Whether a certificate is for this name.
    #[must_use]
    pub fn know(&self, name: &str) -> bool {
        self.names.know(name)
    }

    /// Reads the same files again.
    fn read_again(&self, terms: &Terms) -> Result<Self, StaleError> {
        let certificates = self.certificates.iter().map(|certificate| read_certificate(&certificate.files));
        let certificates = certificates.collect::<Result<_, _>>()?;
        let client_auth = match &self.client_auth {
            ClientAuth::None => ClientAuth::None,
            ClientAuth::Request(authorities) => ClientAuth::Request(read_authorities(&authorities.file)?),
            ClientAuth::Require(authorities) => ClientAuth::Require(read_authorities(&authorities.file)?),
        };
        Ok(Self::new(terms, certificates, client_auth)?)
    }

    /// Whether the files hold the same as before.
    fn is_same(&self, other: &Self) -> bool {
        let pairs = self.certificates.iter().zip(&other.certificates);
        pairs.into_iter().all(|(one, other)| one.key.cert == other.key.cert)
            && self.client_auth.authorities().map(|authorities| authorities.digest)
                == other.client_auth.authorities().map(|authorities| authorities.digest)
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(|certificate| [&certificate.files.0, &certificate.files.1]);
        let authorities = self.client_auth.authorities().map(|authorities| &authorities.file);
        pairs.chain(authorities).map(PathBuf::as_path)
    }
}

impl Live {
    /// Begins with what was read when the configuration was loaded.
    ///
    /// # Errors
    /// When the parts do not fit together.
    pub fn new(terms: Terms, certificates: Vec<Certificate>, client_auth: ClientAuth) -> Result<Self, rustls::Error> {
        let credentials = Credentials::new(&terms, certificates, client_auth)?;
        Ok(Self {
            terms,
            now: ArcSwap::from_pointee(credentials),
            watch: Mutex::default(),
            renewed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// What stays while files change.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What is shown now.
    #[must_use]
    pub fn now(&self) -> Arc<Credentials> {
        self.now.load_full()
    }

    /// How often new credentials came, and how often files could not be used for a while.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        (self.renewed.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Looks at the files, and shows what is in them if that is new and can be used.
    pub fn refresh(&self) -> Option<Change> {
        let mut watch = self.watch.lock();
        let current = self.now();
        // Before the files are read: what changes meanwhile is seen the next time.
        let stamps: Vec<_> = current.files().map(Stamp::of).collect();
        let settled = stamps.iter().all(|stamp| stamp.is_some_and(Stamp::is_settled));
        if settled && watch.failing.is_none() && watch.stamps == stamps {
            return None;
        }
        if watch.stamps != stamps {
            watch.stamps = stamps;
            watch.failing.iter_mut().for_each(|failing| failing.since = Instant::now());
        }
        match current.read_again(&self.terms) {
            Ok(read) => {
                let failed = watch.failing.take();
                if read.is_same(&current) {
                    return failed.and_then(|failed| failed.told).map(|_| Change::Restored);
                }
                let read = Arc::new(read);
                self.now.store(Arc::clone(&read));
                watch.ages.clear();
                self.renewed.fetch_add(1, Ordering::Relaxed);
                Some(Change::Renewed(read))
            }
            Err(error) => self.stale(&mut watch.failing, error),
        }
    }

    /// The certificates that have come nearer to their end since the last look; each is told twice at most.
    pub fn aged(&self, now: Timestamp) -> Vec<Aged> {
        let mut watch = self.watch.lock();
        let current = self.now();
        watch.ages.resize(current.certificates.len(), Age::Fresh);
        let shown = current.certificates.iter().zip(&mut watch.ages);
        let aged = shown.filter_map(|(certificate, told)| {
            let age = Age::of(certificate.validity, now);
            let older = age > *told;
            *told = age.max(*told);
            let until = certificate.validity.not_after;
            older.then(|| Aged { path: certificate.files.0.clone(), age, until })
        });
        aged.collect()
    }

    /// Says what is wrong once the files have been left alone for a while, and once only.
    fn stale(&self, failing: &mut Option<Failing>, error: StaleError) -> Option<Change> {
        let failing = failing.get_or_insert_with(|| Failing { since: Instant::now(), told: None });
        let text = error.to_string();
        if failing.since.elapsed() < PATIENCE || failing.told.as_ref() == Some(&text) {
            return None;
        }
        failing.told = Some(text);
        self.failed.fetch_add(1, Ordering::Relaxed);
        Some(Change::Stale(error))
    }
}

impl Age {
    fn of(validity: Validity, now: Timestamp) -> Self {
        let notice = NOTICE.min(validity.not_before.duration_until(validity.not_after) / 3);
        match now.duration_until(validity.not_after) {
            left if left.is_negative() => Self::Ended,
            left if left < notice => Self::Ending,
            _ => Self::Fresh,
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            // The time of change cannot be set, unlike that of modification.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn is_settled(self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(0));
        now.checked_sub(changed).is_none_or(|age| age > UNSETTLED)
    }
}

fn read_certificate(files: &(PathBuf, PathBuf)) -> Result<Certificate, StaleError> {
    let (certificate, key) = (contents(&files.0)?, contents(&files.1)?);
    let read = Certificate::read(files.clone(), &certificate, &key);
    let valid = read.and_then(|read| read.validity.holds_at(Timestamp::now()).map(|()| read));
    valid.map_err(|cause| {
        let path = if cause.is_about_key() { &files.1 } else { &files.0 };
        StaleError::Certificate { path: path.clone(), cause }
    })
}

fn read_authorities(file: &Path) -> Result<Authorities, StaleError> {
    let read = Authorities::read(file.to_owned(), &contents(file)?);
    read.map_err(|cause| StaleError::Authorities { path: file.to_owned(), cause })
}

fn contents(path: &Path) -> Result<Vec<u8>, StaleError> {
    let mut contents = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut contents));
    read.map(|_| contents).map_err(|cause| StaleError::Unreadable { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_ages_within_its_last_week_or_the_last_third_of_a_short_life() {
        let at = |hours: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let age = |life: i64, now: i64| Age::of(Validity { not_before: at(0), not_after: at(life) }, at(now));
        let (year, week) = (365 * 24, 7 * 24);
        assert_eq!(
            [age(year, 0), age(year, year - week), age(year, year - week + 1)],
            [Age::Fresh, Age::Fresh, Age::Ending]
        );
        assert_eq!([age(year, year), age(year, year + 1)], [Age::Ending, Age::Ended]);
        assert_eq!(
            [age(24, 0), age(24, 16), age(24, 17), age(24, 25)],
            [Age::Fresh, Age::Fresh, Age::Ending, Age::Ended]
        );
    }
}
