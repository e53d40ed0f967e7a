//! Every configuration in the repository passes schema and parser, without a warning; and the schema
//! refuses what the parser refuses.

use std::path::{Path, PathBuf};

use tollgate::cli::init::{MINIMAL, USUAL};
use tollgate::config::frames::Colour;
use tollgate::config::schema::schema;
use tollgate::config::{Origin, expanded, parse};

/// Every YAML file of the repository that is a configuration, and what `init` writes.
fn configurations() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = std::fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = examples.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    assert!(paths.len() >= 7, "the examples are there: {paths:?}");
    paths.push(root.join("proxy.yaml"));
    let mut texts: Vec<_> =
        paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    texts.extend([("init --minimal".into(), MINIMAL.to_owned()), ("init".into(), USUAL.to_owned())]);
    texts
}

/// A YAML text as the value that a schema is applied to.
fn as_json(text: &str) -> serde_json::Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn every_configuration_in_the_repository_is_valid_without_a_warning() {
    for (path, text) in configurations() {
        match parse(&text, &Origin::File(path.clone()), &|_| None) {
            Ok(loaded) => {
                // The full example names no secret file, because it must work without one.
                let known = |message: &str| path.ends_with("full.yaml") && message.contains("unkeyed hash");
                let unknown = loaded.warnings.diagnostics.iter().filter(|warning| !known(&warning.message)).count();
                assert_eq!(unknown, 0, "{}", loaded.warnings.render(Colour::Plain));
            }
            Err(report) => panic!("{}", report.render(Colour::Plain)),
        }
    }
}

#[test]
fn every_configuration_in_the_repository_matches_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for (path, text) in configurations() {
        let instance = as_json(&text);
        let errors: Vec<_> =
            validator.iter_errors(&instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
    }
}

#[test]
fn the_schema_refuses_what_does_not_exist() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for text in [
        "listen: :8080\nupstraem: echo",
        "listen: :8080\nupstream: echo\nlimits: [{ key: client_ip, rate: 1/s, brust: 5 }]",
        "listen: :8080\nupstream: echo\nlimits: [{ key: client_ip, rate: fast }]",
        "listen: :8080\nupstream: echo\nlimits: [{ key: nonsense, rate: 1/s }]",
        "listen: :8080\nupstream: echo\nlimits: { key: client_ip }",
        "listen: :8080\nupstream: echo\nstore: disk",
        "listeners: { web: { adress: ':80' } }",
        "listen: :8080\nroutes: [{ name: a, upstream: echo, match: { paths: /a } }]",
        "listen: :8080\nupstream: echo\nlog: { level: loud }",
    ] {
        assert!(!validator.is_valid(&as_json(text)), "{text}");
    }
}

#[test]
fn every_key_of_the_schema_is_documented() {
    fn walk(schema: &serde_json::Value, place: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, property) in properties {
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 3), "{place}.{name}");
        }
    }
    let schema = schema();
    walk(&schema, "the file");
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        walk(definition, name);
    }
}

#[test]
fn the_full_example_shows_every_key() {
    let schema = schema();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/full.yaml")).unwrap();
    let shapes = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for name in shapes.filter_map(|shape| shape["properties"].as_object()).flat_map(|properties| properties.keys()) {
        let shown = [format!(" {name}: "), format!("\n{name}:"), format!(" {name}:\n"), format!(" {name}_file: ")];
        assert!(shown.iter().any(|shown| text.contains(shown)), "`{name}` is not in examples/full.yaml");
    }
}

#[test]
fn the_expanded_form_means_the_same() {
    for (path, text) in configurations() {
        let origin = Origin::File(path.clone());
        let first = expanded(&parse(&text, &origin, &|_| None).unwrap().config);
        match parse(&first, &origin, &|_| None) {
            Ok(again) => assert_eq!(expanded(&again.config), first, "{}", path.display()),
            Err(report) => panic!("{}:\n{first}\n{}", path.display(), report.render(Colour::Plain)),
        }
    }
}

#[test]
fn the_expanded_form_keeps_what_was_written() {
    let text = "listen: :8080\nupstream: echo\nlimits:\n  \
        - { name: a, key: global, algorithm: leaky_bucket, rate: 200/s, burst: 400, delay_after: 20, max_wait: 2s }\n  \
        - { name: b, key: host, algorithm: leaky_bucket, rate: 10/s }\n  \
        - { name: c, key: client_ip, rate: 9/s, cost: { default: 1, header: x-units }, refund: { status: [401, 5xx] } }\n  \
        - { name: d, key: client_ip, rate: 9/s, cost: { body: 1KiB, max: 7 }, count: { status: 500-503 } }\n";
    let printed = expanded(&parse(text, &Origin::Arguments, &|_| None).unwrap().config);
    for expected in ["max_wait: 2s\n", "max_wait: 10s\n", r#"["401", "5xx"]"#, "max: 7\n", r#"["500-503"]"#] {
        assert!(printed.contains(expected), "{expected} in\n{printed}");
    }
    assert_eq!(printed.matches("      max: ").count(), 1, "{printed}");
}

#[test]
fn the_stores_of_the_page_about_redis_are_valid() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/redis.md")).unwrap();
    // Secrets and certificates of the page are nobody's.
    let files = tempfile::tempdir().unwrap();
    for name in ["redis-password", "redis-ca.pem", "client.pem", "client.key"] {
        std::fs::write(files.path().join(name), "secret").unwrap();
    }
    let page = page.replace("/run/secrets", files.path().to_str().unwrap());
    let page = page.replace("/etc/tollgate", files.path().to_str().unwrap());
    let blocks: Vec<_> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 4);
    for block in blocks {
        let text = format!("listen: :8080\nupstream: echo\nlimits: [{{ key: client_ip, rate: 1/s }}]\n{block}");
        match parse(&text, &Origin::Arguments, &|_| None) {
            Ok(loaded) => assert!(loaded.warnings.diagnostics.is_empty(), "{}", loaded.warnings.render(Colour::Plain)),
            Err(report) => panic!("{}", report.render(Colour::Plain)),
        }
    }
}
