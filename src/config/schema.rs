//! The JSON Schema of the file, from the same types that read it: editors complete and check with it.

use serde_json::{Value, json};

use super::file::File;
use super::shape::{Definitions, Shape};

/// The schema, as a JSON document (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let mut definitions = Definitions::new();
    File::schema(&mut definitions);
    let mut root = definitions.remove("File").unwrap_or_default();
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Tollgate configuration");
    root["$defs"] = json!(definitions);
    root
}
