//! A certificate of ours with its key: read from PEM, checked against each other.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::der::{Der, Element, tag};

/// A certificate, its chain and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where it was read from: the certificate, and its key.
    pub files: (PathBuf, PathBuf),
    /// The DNS names it is for, in lower case; `*.` may come first.
    pub names: Vec<Box<str>>,
    /// From when to when.
    pub validity: Validity,
    pub(super) key: Arc<CertifiedKey>,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: Timestamp,
    /// Last second.
    pub not_after: Timestamp,
}

/// Why a certificate cannot be used, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The first file holds none.
    #[error("this file holds no certificate; it must be PEM, from -----BEGIN CERTIFICATE----- on")]
    NoCertificate,
    /// The first file cannot be read as a certificate.
    #[error("this certificate cannot be used: {0}; it must be X.509 version 3, in PEM")]
    Certificate(String),
    /// The second file holds no key.
    #[error("this file holds no private key; it must be PEM (PKCS #8, PKCS #1 or SEC1), not encrypted")]
    NoKey,
    /// A key of a kind we cannot sign with.
    #[error("this private key cannot be used: {0}; use ECDSA (P-256, P-384, P-521), Ed25519 or RSA from 2048 bits on")]
    Key(String),
    /// The two do not belong together.
    #[error("this private key does not belong to the certificate; name the key that the certificate was made for")]
    Mismatch,
    /// It was valid once.
    #[error("this certificate has expired, on {0}; clients refuse it: renew it")]
    Expired(String),
    /// It will be valid.
    #[error("this certificate is valid only from {0} on; clients refuse it until then")]
    NotYetValid(String),
}

impl CertificateError {
    /// Whether the key's file is the one to look into.
    #[must_use]
    pub fn is_about_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Key(_) | Self::Mismatch)
    }
}

impl Certificate {
    /// Reads a certificate (then its issuers' ones, if they are there) and its key from PEM.
    ///
    /// # Errors
    /// When one of them cannot be used, or the two do not belong together.
    pub fn read(files: (PathBuf, PathBuf), certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn std::error::Error| CertificateError::Certificate(error.to_string());
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| unusable(&error))?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let parsed = EndEntityCert::try_from(leaf).map_err(|error| unusable(&error))?;
        for issuer in &chain[1..] {
            EndEntityCert::try_from(issuer).map_err(|error| unusable(&error))?;
        }
        let names = parsed.valid_dns_names().map(|name| name.to_ascii_lowercase().into()).collect();
        let validity = Validity::of(leaf).ok_or_else(|| CertificateError::Certificate("it has no dates".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let key = any_supported_type(&key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| CertificateError::Mismatch)?;
        Ok(Self { files, names, validity, key: Arc::new(key) })
    }
}

impl Validity {
    /// Whether clients take the certificate at this time.
    ///
    /// # Errors
    /// When it is too early or too late.
    pub fn holds_at(self, now: Timestamp) -> Result<(), CertificateError> {
        let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
        if self.not_after < now {
            return Err(CertificateError::Expired(day(self.not_after)));
        }
        if self.not_before > now {
            return Err(CertificateError::NotYetValid(day(self.not_before)));
        }
        Ok(())
    }

    /// The dates in a certificate (RFC 5280 §4.1.2.5).
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = Der::new(certificate).expect(tag::SEQUENCE)?;
        let mut fields = Der::new(Der::new(certificate).expect(tag::SEQUENCE)?);
        if fields.peek() == Some(tag::CONTEXT_0) {
            fields.next()?;
        }
        fields.expect(tag::INTEGER)?;
        let (_algorithm, _issuer) = (fields.expect(tag::SEQUENCE)?, fields.expect(tag::SEQUENCE)?);
        let mut dates = Der::new(fields.expect(tag::SEQUENCE)?);
        Some(Self { not_before: time(dates.next()?)?, not_after: time(dates.next()?)? })
    }
}

/// `YYMMDDHHMMSSZ` (1950 to 2049) or `YYYYMMDDHHMMSSZ`.
fn time(element: Element<'_>) -> Option<Timestamp> {
    let digits = element.contents.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i16::from(digit - b'0'));
    let (year, rest) = match (element.tag, digits.len()) {
        (tag::UTC_TIME, 12) => {
            let short = number(&digits[..2]);
            (if short < 50 { 2000 + short } else { 1900 + short }, &digits[2..])
        }
        (tag::GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let mut pairs = rest.chunks(2).filter_map(|pair| i8::try_from(number(pair)).ok());
    let mut next = || pairs.next();
    let at = DateTime::new(year, next()?, next()?, next()?, next()?, next()?, 0).ok()?;
    // The year 9999 says that there is no end (RFC 5280 §4.1.2.5).
    Some(Offset::UTC.to_timestamp(at).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn pem(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2001, 2, 3), date_time_ymd(2050, 12, 31));
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn read(certificate: &str, key: &str) -> Result<Certificate, CertificateError> {
        Certificate::read((PathBuf::from("cert"), PathBuf::from("key")), certificate.as_bytes(), key.as_bytes())
    }

    #[test]
    fn names_and_dates_are_read() {
        let (certificate, key) = pem(&["A.example", "*.b.example"]);
        let certificate = read(&certificate, &key).unwrap();
        assert_eq!(certificate.names, ["a.example", "*.b.example"].map(Box::<str>::from));
        // Up to 2049 dates have two digits for the year, from 2050 on four.
        assert_eq!(certificate.validity.not_before.to_string(), "2001-02-03T00:00:00Z");
        assert_eq!(certificate.validity.not_after.to_string(), "2050-12-31T00:00:00Z");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_file_to_look_into_named() {
        let ((certificate, key), (_, other)) = (pem(&["a.example"]), pem(&["a.example"]));
        for (certificate, key, about_key, says) in [
            ("", &*key, false, "holds no certificate"),
            (&*key, &key, false, "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, false, "cannot be used"),
            (&certificate, "", true, "holds no private key"),
            (&certificate, &certificate, true, "holds no private key"),
            (&certificate, &other, true, "does not belong"),
        ] {
            let error = read(certificate, key).unwrap_err();
            assert_eq!(error.is_about_key(), about_key, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
