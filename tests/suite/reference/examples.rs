//! An example of each key: what `examples/full.yaml` says of it, or another file of `examples/`. Keys that exclude what
//! the full example has stand in its comments; each group of those makes a configuration of its own, which must load.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value as Json;
use tollgate::config::frames::Colour;

use super::tree::Tree;
use crate::support::named_files::NamedFiles;
use crate::support::tollgate::repository;

/// The full example with some of its comments in force.
struct Alternative {
    /// Comments that become keys, by their beginnings.
    shows: &'static [&'static str],
    /// Lines that become comments, by their beginnings.
    hides: &'static [&'static str],
    /// What must be different beside that.
    changes: &'static [(&'static str, &'static str)],
}

const ALTERNATIVES: &[Alternative] = &[
    Alternative {
        shows: &["tls:  ", "certificates:", "min_version:", "unknown_name:", "max_handshakes:", "client_auth:"],
        hides: &[],
        changes: &[],
    },
    Alternative {
        shows: &["redirect_to_https:"],
        hides: &[],
        changes: &[(
            "internal: 127.0.0.1:8081",
            "internal: { address: ':8443', tls: { certificates: { cert: tls.crt, key: tls.key } } }",
        )],
    },
    Alternative { shows: &["local:"], hides: &[], changes: &[] },
    Alternative { shows: &["hash_key:"], hides: &[], changes: &[("balance: round_robin", "balance: hash")] },
    Alternative { shows: &["sticky:"], hides: &[], changes: &[] },
    Alternative { shows: &["active: { type: grpc"], hides: &["active: { type: http"], changes: &[] },
    Alternative { shows: &["tls: { ca: partner"], hides: &["tls: { server_name"], changes: &[] },
    Alternative { shows: &["rewrite: { regex"], hides: &["rewrite: { path"], changes: &[] },
    Alternative {
        shows: &["sentinel:", "database:", "tls: { ca: ca.pem", "password_file:", "key_secret_file:"],
        hides: &["url: ${REDIS", "password:"],
        changes: &[],
    },
    Alternative {
        shows: &["sentinel:"],
        hides: &["url: ${REDIS"],
        changes: &[("password_file: /run/secrets/w", "password: '${SENTINEL_PASSWORD:-}'")],
    },
    Alternative { shows: &["cluster:", "hash_tag:"], hides: &["url: ${REDIS"], changes: &[] },
    Alternative { shows: &["jwks_ca:"], hides: &[], changes: &[] },
    Alternative { shows: &["jwks_file:"], hides: &["jwks_url:", "refresh:"], changes: &[] },
    Alternative { shows: &["public_key_file:"], hides: &["jwks_url:", "refresh:"], changes: &[] },
    Alternative { shows: &["file: /var/log"], hides: &[], changes: &[] },
    Alternative {
        shows: &["token_file: /run/secrets/otlp-token", "ca: collector-ca.pem"],
        hides: &[],
        changes: &[("endpoint: http:", "endpoint: https:")],
    },
    Alternative { shows: &["token_file: /run/secrets/tollgate-admin-token"], hides: &[], changes: &[] },
];

impl Alternative {
    fn applied(&self, full: &str) -> String {
        let text = self.changes.iter().fold(full.to_owned(), |text, (from, to)| {
            assert_eq!(text.matches(from).count(), 1, "`{from}` stands once in examples/full.yaml");
            text.replace(from, to)
        });
        for beginning in self.shows.iter().chain(self.hides) {
            let is_there = |line: &str| line.trim_start().trim_start_matches("# ").trim_start().starts_with(beginning);
            assert!(text.lines().any(is_there), "`{beginning}` stands in examples/full.yaml");
        }
        text.lines().map(|line| self.line(line) + "\n").collect()
    }

    fn line(&self, line: &str) -> String {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let begins = |text: &str, with: &[&str]| with.iter().any(|beginning| text.trim_start().starts_with(beginning));
        match rest.strip_prefix("# ") {
            Some(shown) if begins(shown, self.shows) => format!("{indent}{shown}"),
            None if begins(rest, self.hides) => format!("{indent}# {rest}"),
            _ => line.to_owned(),
        }
    }
}

/// The short form of listeners and routes, which the full example begins with: a configuration by itself.
fn short_form(full: &str) -> String {
    let lines = full.lines().filter_map(|line| line.strip_prefix("# "));
    lines
        .filter(|line| ["listen:", "upstream:"].iter().any(|key| line.starts_with(key)))
        .map(|line| line.to_owned() + "\n")
        .collect()
}

/// Configurations, those first whose examples come first. All of them load.
fn sources() -> Vec<Tree> {
    let directory = repository().join("examples");
    let full = fs::read_to_string(directory.join("full.yaml")).unwrap();
    let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut others: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    others.sort();
    let alternatives: Vec<_> = ALTERNATIVES.iter().map(|alternative| alternative.applied(&full)).collect();
    let mut texts = vec![full.clone(), short_form(&full)];
    texts.extend(alternatives);
    texts.extend(others.iter().map(|path| fs::read_to_string(path).unwrap()));
    let files = NamedFiles::make();
    texts
        .iter()
        .map(|text| {
            if let Err(report) = files.load(text) {
                panic!("{}", report.render(Colour::Plain));
            }
            Tree::read(text).unwrap()
        })
        .collect()
}

/// Examples by structure and key.
type ByKey = BTreeMap<(String, String), Tree>;

/// The first example of each key, by the structure that it belongs to.
#[derive(Default)]
pub(super) struct Examples {
    first: ByKey,
    /// The first with keys of its own.
    long: ByKey,
}

impl Examples {
    pub(super) fn gather(schema: &Json) -> Self {
        let mut examples = Self::default();
        for document in sources() {
            examples.take_keys(schema, "File", schema, &document);
        }
        examples
    }

    /// Of a key of a structure.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub(super) fn of(&self, structure: &str, key: &str) -> &Tree {
        let found = self.first.get(&(structure.to_owned(), key.to_owned()));
        found.unwrap_or_else(|| panic!("no example has `{key}` of {structure}; add one to examples/full.yaml"))
    }

    /// The same, with keys of its own where there is such an example.
    pub(super) fn long_of(&self, structure: &str, key: &str) -> &Tree {
        self.long.get(&(structure.to_owned(), key.to_owned())).unwrap_or_else(|| self.of(structure, key))
    }

    fn take_keys(&mut self, schema: &Json, name: &str, structure: &Json, tree: &Tree) {
        for (key, value) in tree.entries().unwrap_or_default() {
            if let Some(property) = structure["properties"].get(key) {
                let place = (name.to_owned(), key.clone());
                if holds_keys(property, value) {
                    self.long.entry(place.clone()).or_insert_with(|| value.clone());
                }
                self.first.entry(place).or_insert_with(|| value.clone());
                self.take(schema, property, value);
            }
        }
    }

    /// What a value holds, by each form that it may have.
    fn take(&mut self, schema: &Json, form: &Json, tree: &Tree) {
        if let Some(name) = super::name_of(form) {
            self.take_keys(schema, name, &schema["$defs"][name], tree);
        }
        for alternative in form["anyOf"].as_array().into_iter().flatten() {
            self.take(schema, alternative, tree);
        }
        let below: Vec<_> = match tree {
            Tree::List(items) => items.iter().map(|item| (&form["items"], item)).collect(),
            Tree::Map(entries) => entries.iter().map(|(_, value)| (&form["additionalProperties"], value)).collect(),
            Tree::Scalar(_) => Vec::new(),
        };
        for (form, tree) in below {
            self.take(schema, form, tree);
        }
    }
}

/// Whether a value is, or has in it, the keys of a structure.
fn holds_keys(form: &Json, tree: &Tree) -> bool {
    match tree {
        Tree::Map(_) if super::name_of(form).is_some() => true,
        _ if form["anyOf"].is_array() => {
            form["anyOf"].as_array().into_iter().flatten().any(|one| holds_keys(one, tree))
        }
        Tree::List(items) => items.iter().any(|item| holds_keys(&form["items"], item)),
        Tree::Map(entries) => entries.iter().any(|(_, value)| holds_keys(&form["additionalProperties"], value)),
        Tree::Scalar(_) => false,
    }
}

#[test]
fn every_key_has_an_example_that_loads() {
    let schema = tollgate::config::schema::schema();
    let examples = Examples::gather(&schema);
    let definitions = schema["$defs"].as_object().unwrap().iter().map(|(name, structure)| (name.as_str(), structure));
    let keys = definitions.chain([("File", &schema)]).flat_map(|(name, structure)| {
        structure["properties"].as_object().unwrap().keys().map(move |key| (name.to_owned(), key.clone()))
    });
    let missing: Vec<_> = keys.filter(|key| !examples.first.contains_key(key)).collect();
    assert!(missing.is_empty(), "no configuration in examples/ shows {missing:?}; add them to examples/full.yaml");
}
