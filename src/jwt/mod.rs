//! Whose tokens are believed, and what they say: JSON Web Tokens (RFC 7519) with a signature (RFC 7515)
//! that keys of the configuration verify (RFC 7517). No request waits for a key.
//!
//! [`Keys`] belong to the process; a thread of its own ([`keeper`]) fetches them and keeps them fresh. Each
//! worker has [`Tokens`], which remembers what it has verified. Each request has a [`Presented`] token,
//! which nobody looks at unless one of its limits is keyed by a claim.

mod claims;
mod fetch;
pub mod keeper;
pub mod key_set;
mod keys;
mod presented;
pub mod settings;
mod stats;
mod token;
mod tokens;

pub use claims::ClaimSet;
pub use key_set::KeySet;
pub use keys::{KeyStatus, Keys};
pub use presented::{Presented, only_token};
pub use settings::JwtSettings;
pub use stats::{TokenKind, TokenStats};
pub use tokens::Tokens;

#[cfg(test)]
mod tests;
