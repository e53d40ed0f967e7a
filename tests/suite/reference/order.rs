//! The order of the keys: JSON objects have none, so it is that of the declarations in `src/config/file.rs`.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value as Json;

use crate::support::tollgate::repository;

/// The keys of each structure, in order.
pub(super) fn declared() -> BTreeMap<String, Vec<String>> {
    let parts = fs::read_dir(repository().join("src/config/file")).unwrap().map(|entry| entry.unwrap().path());
    let files = parts.chain([repository().join("src/config/file.rs")]);
    files.flat_map(|path| in_source(&fs::read_to_string(path).unwrap())).collect()
}

/// What stands in `keys! { … }`.
fn in_source(source: &str) -> Vec<(String, Vec<String>)> {
    let blocks = source.split("\nkeys! {\n").skip(1).map(|rest| rest.split("\n}\n").next().unwrap_or_default());
    blocks.map(declaration).collect()
}

fn declaration(block: &str) -> (String, Vec<String>) {
    let mut code = block.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    let name = code.next().and_then(|line| line.split_whitespace().next()).expect("a declaration has a name");
    let keys = code.filter(|line| line.ends_with(',')).filter_map(|line| line.split_once(':'));
    (name.to_owned(), keys.map(|(key, _)| key.trim_start_matches("r#").to_owned()).collect())
}

#[test]
fn the_declarations_and_the_schema_have_the_same_keys() {
    let schema = tollgate::config::schema::schema();
    let keys_of =
        |structure: &Json| -> Vec<String> { structure["properties"].as_object().unwrap().keys().cloned().collect() };
    let definitions = schema["$defs"].as_object().unwrap().iter().map(|(name, structure)| (name.as_str(), structure));
    let declared = declared();
    for (name, structure) in definitions.chain([("File", &schema)]) {
        let mut keys = declared.get(name).unwrap_or_else(|| panic!("{name} is declared with `keys!`")).clone();
        keys.sort();
        assert_eq!(keys, keys_of(structure), "{name}");
    }
}
