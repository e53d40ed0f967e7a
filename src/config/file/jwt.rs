//! The keys of tokens.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use crate::config::shape::{OneOrMany, keys};
use crate::config::values::{JwksAddress, Signature};

keys! {
    /// Whose tokens to believe. One of `jwks_url`, `jwks_file` and `public_key_file` is required.
    Jwt {
        /// Where the issuer publishes its keys, a JSON Web Key Set: `https://…`, or `http://` on this machine.
        jwks_url: JwksAddress,
        /// A file with the issuer's keys, a JSON Web Key Set; read again when it changes.
        jwks_file: PathBuf,
        /// A PEM file with the issuer's public keys; read again when it changes.
        public_key_file: PathBuf,
        /// PEM file of the authorities to trust for `jwks_url`. Default: the system's.
        jwks_ca: PathBuf,
        /// The token must be meant for one of these (`aud`). Default: not looked at.
        audience: OneOrMany<String>,
        /// One of these must have issued the token (`iss`). Default: not looked at.
        issuer: OneOrMany<String>,
        /// Signatures that are accepted: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`. Default: all, each where a key is for it.
        algorithms: OneOrMany<Signature>,
        /// The field that carries the token, with or without `Bearer` before it. Default: authorization.
        header: HeaderName,
        /// How far the issuer's clock may be from this one. Default: 60s.
        leeway: Duration,
        /// Time between two fetches of `jwks_url`. Default: 5m.
        refresh: Duration,
    }
}
