//! The files that examples and documents name, so that what they show can be loaded as it stands: certificates, keys
//! and secrets of nobody.

use std::path::Path;

use tollgate::config::{Loaded, Origin, Report, parse};

use super::certificates::{Authority, Wanted};
use super::tokens::{Issuer, key_set};

/// A directory with all of them.
pub(crate) struct NamedFiles {
    authority: Authority,
}

/// Directories that are named in examples; all their files lie in the one directory.
const DIRECTORIES: [&str; 3] = ["/run/secrets", "/etc/tollgate", "/var/log/tollgate"];

impl NamedFiles {
    pub(crate) fn make() -> Self {
        let authority = Authority::new();
        let signed = |files: super::certificates::Files| {
            [files.cert, files.key].map(|path| std::fs::read_to_string(path).expect("it was written"))
        };
        let [server, server_key] = signed(authority.sign(&Wanted::server("a-server", &["localhost"])));
        for name in ["tls", "a", "b"] {
            authority.write(&format!("{name}.crt"), &server);
            authority.write(&format!("{name}.key"), &server_key);
        }
        let [client, client_key] = signed(authority.sign(&Wanted::client("a-client", "Example", "reader")));
        for (certificate, key) in [("client.pem", "client.key"), ("me.crt", "me.key")] {
            authority.write(certificate, &client);
            authority.write(key, &client_key);
        }
        let trusted = std::fs::read_to_string(authority.ca()).expect("it was written");
        for name in ["clients.pem", "partner-ca.pem", "collector-ca.pem", "redis-ca.pem"] {
            authority.write(name, &trusted);
        }
        for name in ["redis-password", "w", "tollgate-admin-token", "tollgate-key-secret", "otlp-token"] {
            authority.write(name, "a secret of at least thirty-two bytes");
        }
        let issuer = Issuer::new("ES256", Some("first"));
        authority.write("jwks.json", &key_set(&[&issuer]));
        authority.write("issuer.pem", &issuer.pem());
        Self { authority }
    }

    fn directory(&self) -> std::path::PathBuf {
        self.authority.ca().parent().map(Path::to_owned).expect("a file lies in a directory")
    }

    /// Loads a configuration that names them, in an empty environment.
    pub(crate) fn load(&self, text: &str) -> Result<Loaded, Report> {
        let here = self.directory();
        let text = DIRECTORIES
            .iter()
            .fold(text.to_owned(), |text, directory| text.replace(directory, here.to_str().expect("the path is text")));
        parse(&text, &Origin::File(here.join("proxy.yaml")), &|_| None)
    }
}
