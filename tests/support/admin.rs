//! The admin API, held against its own description.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::client::{Answer, Client, Request};

/// An admin listener, and the document that it serves.
pub(crate) struct Api {
    address: SocketAddr,
    document: Value,
    /// Operations that were answered as they should be.
    answered: Mutex<BTreeSet<String>>,
}

impl Api {
    /// Reads the document.
    #[track_caller]
    pub(crate) fn of(address: SocketAddr) -> Self {
        let answer = Client::connect(address).get("/api/v1/openapi.json");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self { address, document: answer.json(), answered: Mutex::default() }
    }

    /// The document.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// Operations that were answered as they should be.
    pub(crate) fn answered(&self) -> BTreeSet<String> {
        self.answered.lock().unwrap().clone()
    }

    /// Sends a request with JSON, which may be none; the answer must be one that the document describes.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = Request::new(method, &format!("/api/v1/{path}")).header("content-type", "application/json");
        self.send(method, path, &if body.is_empty() { request } else { request.body(body) })
    }

    /// The JSON of a call that must be carried out.
    #[track_caller]
    pub(crate) fn done(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.call(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// The status and detail of a call that must be refused.
    #[track_caller]
    pub(crate) fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self.call(method, path, body);
        (answer.status, answer.json()["detail"].as_str().expect("a detail").to_owned())
    }

    /// Sends any request to a path below `/api/v1/`.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, request: &Request) -> Answer {
        let answer = Client::connect(self.address).send(request);
        self.check(method, path, &answer);
        answer
    }

    /// Holds an answer against the schema of its operation.
    #[track_caller]
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let told = format!("{method} {path} {}: {}", answer.status, answer.text());
        let (pattern, operations) = self.find(path).unwrap_or_else(|| panic!("no path of the document: {told}"));
        let kind = answer.header("content-type").unwrap_or_default();
        let schema = if answer.status == 200 {
            let operation = &operations[method.to_lowercase()];
            self.answered.lock().unwrap().insert(format!("{method} {pattern}"));
            operation["responses"]["200"]["content"][kind]["schema"].clone()
        } else {
            assert_eq!(kind, "application/problem+json", "{told}");
            assert_eq!(answer.json()["status"], answer.status, "{told}");
            json!({ "$ref": "#/components/schemas/Problem" })
        };
        assert!(schema.is_object(), "the document has no schema for {told}");
        self.hold(&schema, &answer.json(), &told);
    }

    /// Holds JSON against a schema of the document.
    #[track_caller]
    pub(crate) fn hold(&self, schema: &Value, instance: &Value, told: &str) {
        let whole = json!({ "$ref": "#/wanted", "wanted": schema, "components": self.document["components"] });
        let validator = jsonschema::validator_for(&whole).expect("a schema");
        let errors: Vec<_> =
            validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{told}\n{errors:#?}");
    }

    /// The path of the document that a path is one of.
    fn find(&self, path: &str) -> Option<(&str, &Value)> {
        let path = format!("/api/v1/{}", path.split('?').next().unwrap_or_default());
        let fits = |pattern: &str| {
            let (wanted, given): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
            let mut both = wanted.iter().zip(&given);
            wanted.len() == given.len() && both.all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
        };
        let paths = self.document["paths"].as_object()?;
        paths.iter().find(|(pattern, _)| fits(pattern)).map(|(pattern, operations)| (pattern.as_str(), operations))
    }
}
