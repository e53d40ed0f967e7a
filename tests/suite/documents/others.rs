//! Blocks in other languages, each read by somebody who knows it.

use std::process::{Command, Stdio};

use crate::support::redis_server::RedisServer;
use crate::support::tollgate::finish;

/// What nginx needs beside a fragment, `$` being the fragment: none of a whole configuration, else where it belongs.
const PLACES_IN_NGINX: [&str; 4] = [
    "$",
    "events {} http { $ }",
    "events {} http { server { listen 127.0.0.1:8080; $ } }",
    "events {} http { server { listen 127.0.0.1:8080; location / { $ } } }",
];

/// What nginx says of the machine, or of what another block of the page defines, once it has read the syntax.
const NOT_OF_THE_TEXT: [&str; 6] =
    ["host not found", "cannot load certificate", "mkdir()", "bind()", "zero size shared memory zone", "open()"];

/// nginx knows each directive where it stands.
pub(super) fn is_nginx(text: &str) -> Result<(), String> {
    let tried = PLACES_IN_NGINX.map(|place| nginx_says(&place.replace('$', &format!("\n{text}\n"))));
    if tried.iter().any(Result::is_ok) {
        return Ok(());
    }
    Err(tried.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("\n"))
}

fn nginx_says(text: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-t").arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(&file);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = finish(&mut command, "");
    let is_fine = said.code == Some(0) || NOT_OF_THE_TEXT.iter().any(|excuse| said.errors.contains(excuse));
    if is_fine { Ok(()) } else { Err(said.errors) }
}

/// Redis compiles it, and does not run it.
pub(super) fn is_lua(text: &str, redis: &RedisServer) -> Result<(), String> {
    let said = redis.cli(&["SCRIPT", "LOAD", text]);
    let is_a_hash = said.len() == 40 && said.chars().all(|c| c.is_ascii_hexdigit());
    if is_a_hash { Ok(()) } else { Err(said) }
}

/// Python reads it as TOML.
pub(super) fn is_toml(text: &str) -> Result<(), String> {
    is_taken_by_python("import sys, tomllib; tomllib.loads(sys.stdin.read())", text)
}

/// Python compiles it, and does not run it.
pub(super) fn is_python(text: &str) -> Result<(), String> {
    is_taken_by_python("import ast, sys; ast.parse(sys.stdin.read())", text)
}

fn is_taken_by_python(program: &str, text: &str) -> Result<(), String> {
    let mut command = Command::new("python3");
    command.args(["-c", program]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = finish(&mut command, text);
    if said.code == Some(0) { Ok(()) } else { Err(said.errors) }
}

/// A diagram of a kind that GitHub draws, with as many brackets closed as opened.
pub(super) fn is_mermaid(text: &str) -> Result<(), String> {
    const KINDS: [&str; 5] = ["flowchart", "graph", "sequenceDiagram", "stateDiagram-v2", "classDiagram"];
    let kind = text.split_whitespace().next().unwrap_or_default();
    let count = |bracket| text.matches(bracket).count();
    let is_balanced = [('(', ')'), ('[', ']'), ('{', '}')].iter().all(|&(open, close)| count(open) == count(close));
    if KINDS.contains(&kind) && is_balanced { Ok(()) } else { Err("this is no diagram".to_owned()) }
}

#[test]
fn other_languages_are_read_by_those_who_know_them() {
    let redis = RedisServer::start();
    assert!(is_lua("return redis.call('GET', KEYS[1])", &redis).is_ok() && is_lua("return (", &redis).is_err());
    assert!(is_toml("a = 1\n[b]\nc = ['d']\n").is_ok() && is_toml("a = \n").is_err());
    assert!(is_python("def a(b):\n    return b\n").is_ok() && is_python("def").is_err());
    for fragment in [
        "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/s;\nserver { location / { limit_req zone=one; } }",
        "location / { proxy_pass http://app.invalid:3000; }",
        "proxy_pass http://127.0.0.1:3000;\nproxy_set_header Host $host;",
    ] {
        assert_eq!(is_nginx(fragment), Ok(()), "{fragment}");
    }
    assert!(is_nginx("location / { proxy_passes http://127.0.0.1:3000; }").is_err());
    assert!(is_mermaid("flowchart LR\n a[one] --> b[two]\n").is_ok() && is_mermaid("flow\n").is_err());
}
