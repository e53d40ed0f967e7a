//! Who may depend on whom. Every path through `crate::` (and every `super::` that leaves a module)
//! in `src/`, imported or written inline, is held against one table. Tests inside `src/` are exempt.

use std::fs;
use std::path::{Path, PathBuf};

/// A module, and what it may use: a module with all below it, or one part of a module. Its own parts
/// and the leaves need no mention.
const MAY_USE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    // The command starts the log before there is a server, and translates signals into its calls.
    ("handover", &[]),
    (
        "cli",
        &["server", "handover", "config", "explain", "jwt", "limit", "route", "units", "signal", "telemetry::logging"],
    ),
    // The server makes what its workers share: the memory store, statistics, sockets, the echo upstream.
    (
        "server",
        &[
            "worker",
            "handover",
            "reload",
            "admin",
            "config",
            "telemetry",
            "signal",
            "jwt",
            "limit",
            "upstream",
            "proxy",
        ],
    ),
    ("reload", &["config"]),
    // What is shown of certificates is watched.
    ("worker", &["proxy", "reload", "jwt", "limit", "upstream", "config", "telemetry", "tls"]),
    // Readiness ends when draining begins; memory is told. Routes are shown, and requests explained.
    (
        "admin",
        &[
            "config",
            "explain",
            "jwt",
            "limit",
            "route",
            "upstream",
            "telemetry",
            "reload",
            "proxy::connection",
            "proxy::pressure",
        ],
    ),
    // The way of a request that nobody sends.
    ("explain", &["config", "jwt", "limit", "route"]),
    ("proxy", &["config", "route", "jwt", "limit", "upstream", "telemetry", "tls"]),
    (
        "config",
        &[
            "route",
            "limit::policy",
            "limit::key",
            "limit::algorithm",
            "limit::schedule",
            "limit::dynamic",
            "limit::headers",
            "limit::store::settings",
            // Certificates are read and checked with the file that names them.
            "tls",
            // Files that hold no usable key are mistakes of the configuration.
            "jwt::settings",
            "jwt::key_set",
            "upstream",
        ],
    ),
    // Values in templates and conditions are read as keys are.
    ("route", &["limit::policy", "limit::key", "upstream"]),
    // Limits ask for claims, and do not know where they come from.
    ("jwt", &["limit::key", "limit::stats"]),
    ("limit", &[]),
    // Servers may speak TLS, and requests may be spread by a key.
    ("upstream", &["tls", "limit::key"]),
    // How logs look is configured.
    ("telemetry", &["config"]),
    ("signal", &[]),
    ("tls", &[]),
    ("units", &[]),
    ("slots", &[]),
];

/// What everybody may use.
const LEAVES: [&str; 2] = ["units", "slots"];

#[test]
fn every_module_uses_only_what_the_table_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    let mut uses = 0;
    for file in rust_files(&src) {
        let module = module_of(file.strip_prefix(&src).unwrap());
        let Some(layer) = module.first() else { continue };
        let allowed = MAY_USE.iter().find(|(name, _)| name == layer);
        let Some((_, allowed)) = allowed else {
            violations.push(format!("{}: `{layer}` is not in the table", file.display()));
            continue;
        };
        for path in used_paths(&without_tests(&fs::read_to_string(&file).unwrap()), &module) {
            uses += 1;
            let own = path.split("::").next() == Some(layer);
            let permitted = own
                || LEAVES.iter().any(|leaf| begins_with(&path, leaf))
                || allowed.iter().any(|part| begins_with(&path, part));
            if !permitted {
                violations.push(format!("{}: `{layer}` uses `{path}`", file.display()));
            }
        }
    }
    assert!(uses > 10, "only {uses} uses were found: the reading of the sources is broken");
    assert!(
        violations.is_empty(),
        "these uses are against the table at the top of {}:\n  {}\n\
         Move the code to where it may stand, or change the table and say why.",
        file!(),
        violations.join("\n  ")
    );
}

#[test]
fn the_table_has_no_circles() {
    let mut remaining: Vec<_> = MAY_USE.to_vec();
    while !remaining.is_empty() {
        let names: Vec<&str> = remaining.iter().map(|(name, _)| *name).collect();
        let depends = |used: &str| used.split("::").next().is_some_and(|layer| names.contains(&layer));
        let before = remaining.len();
        remaining.retain(|(_, allowed)| allowed.iter().any(|used| depends(used)));
        assert!(remaining.len() < before, "a circle among {names:?}");
    }
}

#[test]
fn uses_are_read_from_groups_inline_paths_and_supers() {
    let module = ["proxy".to_owned(), "handler".to_owned()];
    let source = "use crate::{config::Config, limit::{self, key::{Facts, Key}}};\n\
                  // crate::comment::not::read\n\
                  fn f() { crate::units::parse(super::super::route::find(super::body())) }";
    let expected =
        ["config::Config", "limit::self", "limit::key::Facts", "limit::key::Key", "units::parse", "route::find"];
    assert_eq!(used_paths(source, &module), expected);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// `proxy/handler.rs` → `proxy`, `handler`; the crate's root has no name and no layer.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// The source up to its tests.
fn without_tests(source: &str) -> String {
    source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

fn begins_with(path: &str, part: &str) -> bool {
    path.strip_prefix(part).is_some_and(|after| after.is_empty() || after.starts_with("::"))
}

/// Paths from the crate's root that a source uses.
fn used_paths(source: &str, module: &[String]) -> Vec<String> {
    let code: String =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let to_root = "super::".repeat(module.len());
    let mut paths = Vec::new();
    for root in ["crate::", "tollgate::", &to_root] {
        for (at, _) in code.match_indices(root) {
            let inside_a_word =
                code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':');
            if !inside_a_word {
                read_tree(&code[at + root.len()..], "", &mut paths);
            }
        }
    }
    paths
}

/// Reads `a::b` or `{a, b::{c, d}}` at the start of `text`, adds each whole path, returns what follows.
fn read_tree<'a>(text: &'a str, prefix: &str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut group) = text.strip_prefix('{') {
        loop {
            group = read_tree(group, prefix, paths).trim_start();
            group = group.strip_prefix(',').unwrap_or(group).trim_start();
            if let Some(after) = group.strip_prefix('}') {
                return after;
            }
            assert!(!group.is_empty(), "a group of imports does not end");
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    assert!(end > 0, "not a path: {}", text.lines().next().unwrap_or_default());
    let (name, after) = text.split_at(end);
    let path = format!("{prefix}{name}");
    match after.strip_prefix("::") {
        Some(below) if below.starts_with(|c: char| c.is_alphabetic() || matches!(c, '{' | '*' | '_')) => {
            read_tree(below, &format!("{path}::"), paths)
        }
        _ => {
            paths.push(path);
            skip_alias(after)
        }
    }
}

/// Skips ` as name`.
fn skip_alias(text: &str) -> &str {
    let Some(alias) = text.trim_start().strip_prefix("as ") else { return text };
    alias.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
}
