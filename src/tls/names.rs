//! The certificate for a name: what the client asks for (SNI, RFC 6066 §3), else the first.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;

/// Certificates by name.
#[derive(Debug)]
pub(super) struct Names {
    /// For names that nobody has, and clients that name none.
    default: Option<Arc<CertifiedKey>>,
    /// In file order: a name may have one of each kind of key. A wildcard stands as its suffix, from
    /// the dot on.
    by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
}

impl Names {
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        let default = certificates.first().map(|certificate| Arc::clone(&certificate.key));
        let mut by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for Certificate { names, key, .. } in certificates {
            for name in names {
                let name = name.strip_prefix('*').unwrap_or(name).into();
                by_name.entry(name).or_default().push(Arc::clone(key));
            }
        }
        Self { default, by_name }
    }

    /// Whether a certificate is for this name.
    pub(super) fn know(&self, name: &str) -> bool {
        !self.find(name).is_empty()
    }

    /// The certificates of a name: its own, or those of a wildcard in place of its first label.
    fn find(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let exact = self.by_name.get(&*name);
        let wildcard = || self.by_name.get(&name[name.find('.')?..]);
        exact.or_else(wildcard).map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = hello.server_name().map_or(&[][..], |name| self.find(name));
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(usable).or(candidates.first()).or(self.default.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let files = (PathBuf::new(), PathBuf::new());
        Certificate::read(files, pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard_which_stands_for_one_label() {
        let (exact, wildcard) = (certificate(&["api.a.example"]), certificate(&["*.a.example"]));
        let names = Names::new(&[exact.clone(), wildcard.clone()]);
        let found = |name: &str| match names.find(name) {
            [key] if Arc::ptr_eq(key, &exact.key) => "exact",
            [key] if Arc::ptr_eq(key, &wildcard.key) => "wildcard",
            [] => "none",
            _ => "several",
        };
        for (name, expected) in [
            ("api.a.example", "exact"),
            ("API.A.example", "exact"),
            ("www.a.example", "wildcard"),
            ("a.example", "none"),
            ("x.y.a.example", "none"),
            ("b.example", "none"),
            ("localhost", "none"),
        ] {
            assert_eq!(found(name), expected, "{name}");
        }
    }
}
