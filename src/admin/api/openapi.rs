//! The description of the API (`OpenAPI` 3.1), from the same file that is documentation.

use std::sync::OnceLock;

use serde_json::Value;

use crate::admin::answer::Answer;

/// The file.
const DOCUMENT: &str = include_str!("../../../docs/openapi.yaml");

/// The document as JSON, read once.
pub(super) fn answer() -> Answer {
    static READ: OnceLock<Option<Value>> = OnceLock::new();
    let document = READ.get_or_init(|| serde_yaml::from_str(DOCUMENT).ok());
    document.as_ref().map_or_else(|| Answer::problem(500, "Internal error", "The document is broken."), Answer::json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_can_be_read() {
        assert!(answer().is_done());
    }
}
