//! What upstreams are told of a client's certificate, and what clients must not say of one: the
//! fields of RFC 9440, and the subject as text.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

/// The certificate (RFC 9440 §2.2).
static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// Its subject, as `tls:subject` has it.
static SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");

/// The fields that tell of one certificate.
#[derive(Debug)]
pub struct CertificateFields {
    certificate: HeaderValue,
    subject: Option<HeaderValue>,
}

impl CertificateFields {
    /// The certificate in DER as a byte sequence (RFC 9651 §3.3.5), and its subject; `None` for what no
    /// certificate is long enough for.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>, subject: Option<&str>) -> Option<Self> {
        let certificate = HeaderValue::try_from(format!(":{}:", STANDARD.encode(certificate))).ok()?;
        let subject = subject.and_then(|subject| HeaderValue::try_from(in_ascii(subject)).ok());
        Some(Self { certificate, subject })
    }

    /// Adds the fields to a request.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CLIENT_CERT.clone(), self.certificate.clone());
        if let Some(subject) = &self.subject {
            headers.insert(SUBJECT.clone(), subject.clone());
        }
    }
}

/// Whether a field tells of a client's certificate. Nobody but this proxy may say that: RFC 9440 §3
/// has them removed from every request, wherever it comes from.
#[must_use]
pub fn tells_certificate(name: &str) -> bool {
    name == "client-cert" || name == "client-cert-chain" || name.starts_with("x-client-cert-")
}

/// Other letters as the hexadecimal digits of their bytes (RFC 4514 §2.4): many servers read fields as
/// ASCII only.
fn in_ascii(subject: &str) -> String {
    let mut text = String::with_capacity(subject.len());
    for letter in subject.chars() {
        if letter.is_ascii() {
            text.push(letter);
            continue;
        }
        for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(text, "\\{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_as_bytes_and_its_subject_in_ascii() {
        let der = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xfe]);
        let mut headers = HeaderMap::new();
        CertificateFields::of(&der, Some("CN=Zoë,O=Example")).unwrap().write(&mut headers);
        assert_eq!(headers["client-cert"], ":MIL//g==:");
        assert_eq!(headers["x-client-cert-subject"], "CN=Zo\\c3\\ab,O=Example");
        assert!(headers.keys().all(|name| tells_certificate(name.as_str())));
    }

    #[test]
    fn without_a_subject_there_is_no_field_for_it() {
        let mut headers = HeaderMap::new();
        CertificateFields::of(&CertificateDer::from(vec![1]), None).unwrap().write(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
