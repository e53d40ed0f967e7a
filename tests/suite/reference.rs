//! `docs/configuration.md`: every key of the configuration, from the schema that editors get, each with an example
//! that is known to load. The page in the repository is the one that they make now; `TOLLGATE_WRITE_REFERENCE=1`
//! writes it anew.

mod examples;
mod order;
mod page;
mod tree;
mod words;

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tollgate::config::schema::schema;

use crate::support::tollgate::repository;
pub(crate) use tree::Tree;

/// The structure that a schema refers to.
fn name_of(schema: &Json) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/$defs/")
}

/// Every pattern of a schema.
fn patterns(schema: &Json) -> Vec<String> {
    let below = match schema {
        Json::Array(items) => items.iter().flat_map(patterns).collect(),
        Json::Object(entries) => entries.values().flat_map(patterns).collect(),
        _ => Vec::new(),
    };
    schema["pattern"].as_str().map(str::to_owned).into_iter().chain(below).collect()
}

#[test]
fn the_page_about_the_configuration_says_what_the_schema_says() {
    let path = repository().join("docs/configuration.md");
    let written = page::write(&schema());
    if std::env::var_os("TOLLGATE_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = kept.lines().zip(written.lines()).position(|(kept, written)| kept != written).map_or(0, |at| at + 1);
    assert!(
        kept == written,
        "docs/configuration.md:{line} is not what the schema says; run this test with TOLLGATE_WRITE_REFERENCE=1"
    );
}

/// The last part of a key's path.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[test]
fn every_key_of_the_schema_is_on_the_page_once() {
    let page = page::write(&schema());
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let described = rows.filter(|path| path.contains('.'));
    let at_the_top = page.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
    described.map(last).chain(at_the_top).for_each(|key| *shown.entry(key).or_default() += 1);
    let schema = schema();
    let structures = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for key in structures.filter_map(|structure| structure["properties"].as_object()).flat_map(|keys| keys.keys()) {
        *expected.entry(key).or_default() += 1;
    }
    assert_eq!(shown, expected);
}

#[test]
fn every_link_within_the_page_leads_to_one_heading() {
    let page = page::write(&schema());
    let headings: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| page::anchor(line.trim_start_matches('#').trim()))
        .collect();
    for link in page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert_eq!(headings.iter().filter(|heading| **heading == format!("#{link}")).count(), 1, "#{link}");
    }
}
