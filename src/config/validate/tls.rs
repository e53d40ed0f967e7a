//! TLS of listeners. Everything is read and checked here: a listener whose certificates or authorities
//! cannot be used does not open.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::Check;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Problem, Setting, Spanned};
use crate::config::{Listener, ListenerTls, Protocols};
use crate::limit::key::KeyPart;
use crate::tls::{self, Authorities, Certificate, ClientAuth, Live, MinVersion, Terms, UnknownName};

impl Check<'_> {
    pub(super) fn tls(&mut self, setting: &Setting<file::Tls>, protocols: Protocols) -> Option<Arc<ListenerTls>> {
        let (given, key) = (setting.get()?, setting.key()?);
        let certificates = self.certificates(given, key);
        let client_auth = self.client_auth(&given.client_auth);
        let max_handshakes = self.number(&given.max_handshakes, 1024, 1..=1_000_000);
        let forward = given.client_auth.get().is_some_and(|auth| auth.forward.or(false));
        let (certificates, client_auth) = (certificates?, client_auth?);
        match Live::new(terms(given, protocols), certificates, client_auth) {
            Ok(live) => Some(Arc::new(ListenerTls { live, forward_client_certificate: forward, max_handshakes })),
            Err(error) => {
                let message = format!("TLS cannot be set up: {error}");
                self.error(key, message, "use a key and a version that fit each other");
                None
            }
        }
    }

    /// Every certificate; `None` when one is wrong, after all were looked at.
    fn certificates(&mut self, given: &file::Tls, key: Span) -> Option<Vec<Certificate>> {
        let listed = given.certificates.get().map(|list| list.0.as_slice()).unwrap_or_default();
        if listed.is_empty() && !matches!(given.certificates, Setting::Invalid) {
            self.error(key, "`tls` has no certificate", "write `certificates: [{ cert: FILE, key: FILE }]` below it");
            return None;
        }
        let read: Vec<_> = listed.iter().map(|item| self.certificate(item)).collect();
        for (position, (item, certificate)) in listed.iter().zip(&read).enumerate() {
            if position > 0 && certificate.as_ref().is_some_and(|certificate| certificate.names.is_empty()) {
                self.warn(
                    item.span,
                    "no client gets this certificate: it is for no DNS name, and not the first",
                    "have it made with a subject alternative name, or leave it out",
                );
            }
        }
        read.into_iter().collect()
    }

    fn certificate(&mut self, item: &Spanned<file::CertificateFiles>) -> Option<Certificate> {
        if item.cert.is_absent() || item.key.is_absent() {
            self.error(item.span, "a certificate needs its key, and a key its certificate", "give `cert` and `key`");
        }
        self.read_certificate(&item.cert, &item.key)
    }

    /// A certificate and its key, from their files.
    pub(super) fn read_certificate(
        &mut self,
        cert_setting: &Setting<PathBuf>,
        key_setting: &Setting<PathBuf>,
    ) -> Option<Certificate> {
        let (cert, key) = (self.contents(cert_setting), self.contents(key_setting));
        let (cert_file, key_file) = (cert_setting.spanned()?, key_setting.spanned()?);
        let files = (self.path(cert_file), self.path(key_file));
        let read = Certificate::read(files, &cert?, &key?);
        match read.and_then(|read| read.validity.holds_at(Timestamp::now()).map(|()| read)) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                let span = if error.is_about_key() { key_file.span } else { cert_file.span };
                self.reader.error(span, Problem::from(error));
                None
            }
        }
    }

    /// Which clients are let in; `None` when that is not sure.
    fn client_auth(&mut self, setting: &Setting<file::ClientAuth>) -> Option<ClientAuth> {
        let (given, key) = match setting {
            Setting::Absent => return Some(ClientAuth::None),
            Setting::Invalid => return None,
            Setting::Given { value, key } => (&value.value, *key),
        };
        if given.mode.is_absent() {
            self.error(key, "`client_auth` does not say what is asked of clients", "write `mode: require` below it");
        }
        let mode = *given.mode.get()?;
        if mode == file::ClientAuthMode::None {
            let help = "write `mode: require`, or leave it out";
            if let Some(ca) = given.ca.key() {
                self.warn(ca, "`ca` has no effect while clients are not asked", help);
            }
            if let Some(forward) = given.forward.key() {
                self.warn(forward, "`forward` has no effect while clients are not asked", help);
            }
            return Some(ClientAuth::None);
        }
        let authorities = self.authorities(&given.ca, key)?;
        Some(match mode {
            file::ClientAuthMode::Require => ClientAuth::Require(authorities),
            _ => ClientAuth::Request(authorities),
        })
    }

    fn authorities(&mut self, setting: &Setting<std::path::PathBuf>, key: Span) -> Option<Authorities> {
        if setting.is_absent() {
            self.error(key, "nothing says whose client certificates are believed", "write `ca: FILE` below it");
        }
        let pem = self.contents(setting)?;
        let given = setting.spanned()?;
        match Authorities::read(self.path(given), &pem) {
            Ok(authorities) => Some(authorities),
            Err(error) => {
                self.reader.error(given.span, Problem::from(error));
                None
            }
        }
    }

    /// A key that no request can have is a mistake, not a limit by something else.
    pub(super) fn certificate_key(&mut self, part: &KeyPart, span: Span) {
        if *part == KeyPart::TlsSubject && !self.asks_certificates {
            self.error(
                span,
                "no listener asks for client certificates, so there is never a `tls:subject`",
                "give a listener `tls: { client_auth: { mode: require, ca: FILE } }`, or choose another key",
            );
        }
    }
}

/// What stays while certificates come and go.
fn terms(given: &file::Tls, protocols: Protocols) -> Terms {
    let offered = [(protocols.h2, tls::H2), (protocols.h1, tls::HTTP_1_1)];
    Terms {
        min_version: match given.min_version.or(file::MinVersion::Tls12) {
            file::MinVersion::Tls12 => MinVersion::Tls12,
            file::MinVersion::Tls13 => MinVersion::Tls13,
        },
        unknown_name: match given.unknown_name.or(file::UnknownName::Default) {
            file::UnknownName::Default => UnknownName::Default,
            file::UnknownName::Reject => UnknownName::Reject,
        },
        protocols: offered.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name).collect(),
    }
}

/// Whether any of these asks its clients for certificates.
pub(super) fn ask_for_certificates(listeners: &[Listener]) -> bool {
    listeners.iter().filter_map(|listener| listener.tls.as_ref()).any(|tls| tls.live.now().client_auth.asks())
}
