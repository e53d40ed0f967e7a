//! The keys of TLS on listeners, and towards upstreams.

use std::path::PathBuf;

use crate::config::shape::{OneOrMany, keys, words};
use crate::config::values::ServerNameText;

keys! {
    /// TLS of a listener.
    Tls {
        /// Certificates and their keys. A client gets the one for the name it asks for (SNI), else the first. Required.
        certificates: OneOrMany<CertificateFiles>,
        /// The oldest version that is spoken: `"1.2"` (default) or `"1.3"`.
        min_version: MinVersion,
        /// What a client gets that asks for a name of no certificate: `default` (the first one) or `reject` (the alert `unrecognized_name`). Default: default.
        unknown_name: UnknownName,
        /// Handshakes under way at once on each worker; more wait for their turn. Default: 1024.
        max_handshakes: u64,
        /// Whether clients show certificates. Default: they are not asked.
        client_auth: ClientAuth,
    }
}

words! {
    /// What an unknown name gets.
    UnknownName {
        /// The first certificate.
        Default = "default",
        /// No connection.
        Reject = "reject",
    }
}

keys! {
    /// A certificate and its key.
    CertificateFiles {
        /// PEM file: the certificate, then those of its issuers, without the root. Required.
        cert: PathBuf,
        /// PEM file: its private key, not encrypted. Required.
        key: PathBuf,
    }
}

words! {
    /// A version of TLS.
    MinVersion {
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
    }
}

keys! {
    /// Client certificates.
    ClientAuth {
        /// `none`, `request` (one that is shown must be valid) or `require` (no connection without one). Required.
        mode: ClientAuthMode,
        /// PEM file of the authorities whose client certificates are believed. Required, but for `none`.
        ca: PathBuf,
        /// Whether upstreams are told of a client's certificate, in Client-Cert and X-Client-Cert-Subject. Default: false.
        forward: bool,
    }
}

words! {
    /// Whether clients show certificates.
    ClientAuthMode {
        /// They are not asked.
        None = "none",
        /// They may.
        Request = "request",
        /// They must.
        Require = "require",
    }
}

keys! {
    /// TLS towards the servers of an upstream.
    UpstreamTls {
        /// PEM file of the authorities whose server certificates are believed. Default: the system's.
        ca: PathBuf,
        /// PEM file: the certificate that is shown to servers that ask for one. Default: none.
        cert: PathBuf,
        /// PEM file: its private key. Required with `cert`.
        key: PathBuf,
        /// The name that the servers' certificates must have, sent as SNI. Default: the host in the server's address.
        server_name: ServerNameText,
        /// The oldest version that is spoken: `"1.2"` (default) or `"1.3"`.
        min_version: MinVersion,
        /// `true` believes any certificate: whoever is in between reads and changes everything. Default: false.
        insecure_skip_verify: bool,
    }
}
