//! Short forms that stand for a whole part of the configuration, with the long form for those who tried to
//! write more.

use serde_json::{Value as Json, json};

use super::network::Address;
use crate::config::shape::{Problem, Word, nearest};

/// The store's short form: `memory`, this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct InMemory;

const LONG_STORE: &str = "write `store: { redis: { url: redis://127.0.0.1:6379/0 } }`";

impl Word for InMemory {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "memory" {
            return Ok(Self);
        }
        if text.contains("://") {
            // The text may hold a password: messages do not repeat it.
            return Err(Problem::new("the store is not given as an address alone", LONG_STORE));
        }
        let help = match nearest(text, ["memory", "redis"].into_iter()) {
            Some("memory") => "did you mean `memory`?".to_owned(),
            _ => format!("{LONG_STORE}, or `store: memory`"),
        };
        Err(Problem::new(format!("`{text}` is not known here"), help))
    }

    fn schema() -> Json {
        json!({ "enum": ["memory"] })
    }
}

/// No admin listener: `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Off;

impl Word for Off {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "none" {
            return Ok(Self);
        }
        let help = match <Address as Word>::parse(text) {
            Ok(_) => format!("did you mean `admin: {{ address: \"{text}\" }}`?"),
            Err(_) => "write `admin: { address: 127.0.0.1:9901 }`, or `admin: none`".to_owned(),
        };
        Err(Problem::new(format!("`{text}` is not known here"), help))
    }

    fn schema() -> Json {
        json!({ "enum": ["none"] })
    }
}
