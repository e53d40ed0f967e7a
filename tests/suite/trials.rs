//! `tollgate test`: the configuration's own tests of its limits.

use serde_json::Value;

use crate::support::certificates::{Authority, Wanted};
use crate::support::tokens::Issuer;
use crate::support::tollgate::{Finished, repository, tollgate};

const LIMITS: &str = r#"
listen: :8080
routes:
  - name: login
    match: { host: api.example.com, path: /v1/login, method: POST }
    upstream: echo
    limits: [{ name: login-per-ip, key: client_ip, rate: 5/10s }]
  - { name: rest, match: { path: /* }, upstream: echo }
limits:
  - { name: per-user, key: "header:x-user", missing: skip, rate: 60/m, burst: 4, cost: { default: 1, POST: 2 } }
  - { name: never, key: global, rate: 0/s, match: { path: /closed/* } }
  - { name: queue, key: global, algorithm: leaky_bucket, rate: 10/s, burst: 3, match: { path: /queue } }
"#;

/// Runs `test` on the limits above with these tests.
fn test(tests: &str, more: &[&str]) -> Finished {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy.yaml");
    std::fs::write(&path, format!("{LIMITS}tests:\n{tests}")).expect("written");
    let path = path.display().to_string();
    tollgate(&[&["test", "-c", &path, "--color", "never"], more].concat())
}

#[test]
fn what_is_expected_and_happens_passes() {
    let tests = r"
  - name: a login burst is cut at five
    send: { count: 20, method: POST, url: https://api.example.com/v1/login, from: 1.2.3.4, at: 0s }
    expect: { allowed: 5, denied: 15, retry_after: 2s, denied_by: login-per-ip, remaining: 0 }
  - name: after the retry there is one more
    send:
      - { count: 5, method: POST, url: https://api.example.com/v1/login }
      - { at: 2s, method: POST, url: https://api.example.com/v1/login }
      - { at: 1999ms, method: POST, url: https://api.example.com/v1/login }
    expect: { allowed: 6, denied: 1, retry_after: 1s }
  - name: at the rate nothing is denied
    send: { count: 1000, every: 2s, method: POST, url: https://api.example.com/v1/login }
    expect: { allowed: 1000, denied: 0, remaining: 4 }
  - name: a post costs two and users are apart
    send:
      - { count: 3, method: POST, url: /x, headers: { x-user: ann } }
      - { count: 5, url: /x, headers: { x-user: bob } }
    expect: { allowed: 6, denied: 2, denied_by: per-user }
  - name: waiting does not help where nothing is allowed
    send: { url: /closed/a }
    expect: { denied: 1, retry_after: never, denied_by: [never] }
  - name: the queue holds two
    send: { count: 4, url: /queue }
    expect: { allowed: 3, longest_wait: 200ms }
";
    let ran = test(tests, &[]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
    assert!(ran.output.contains("ok     a login burst is cut at five  5 allowed, 15 denied"), "{}", ran.output);
    assert!(ran.output.ends_with("\n6 tests: 6 passed, 0 failed\n"), "{}", ran.output);
    let one = test(tests, &["queue"]);
    assert!(one.output.ends_with("\n1 test: 1 passed, 0 failed\n"), "{}", one.output);
}

#[test]
fn what_does_not_happen_fails_with_3_and_says_where() {
    let login = "method: POST, url: 'https://api.example.com/v1/login', from: 192.0.2.7";
    for (send, expect, says) in [
        (
            format!("count: 8, every: 1s, {login}"),
            "allowed: 5, denied: 3",
            "allowed: expected 5, got 8\n           first at +5s: POST https://api.example.com/v1/login from 192.0.2.7",
        ),
        (format!("count: 8, {login}"), "allowed: 8", "allowed: expected 8, got 5\n           first at +0s: POST"),
        (
            format!("count: 8, every: 100ms, {login}"),
            "denied: 2",
            "denied: expected 2, got 3\n           first at +700ms: POST",
        ),
        (format!("count: 8, {login}"), "retry_after: 3s", "retry_after: expected 3s, got 2s\n           first at +0s"),
        (format!("count: 8, {login}"), "retry_after: never", "retry_after: expected never, got 2s"),
        (format!("count: 5, {login}"), "retry_after: 3s", "retry_after: expected 3s, got no denial"),
        (format!("count: 8, {login}"), "denied_by: per-user", "denied_by: expected per-user, got login-per-ip"),
        (format!("count: 5, {login}"), "denied_by: login-per-ip", "denied_by: expected login-per-ip, got no denial"),
        (format!("count: 3, {login}"), "remaining: 1", "remaining: expected 1, got 2"),
        ("url: /queue".to_owned(), "longest_wait: 5ms", "longest_wait: expected 5ms, got 0s"),
        (
            "url: '/%2F'".to_owned(),
            "allowed: 1",
            "requests: expected that all reach the limits, got 400 for 1: the path",
        ),
    ] {
        let ran = test(&format!("  - {{ name: wrong, send: {{ {send} }}, expect: {{ {expect} }} }}\n"), &[]);
        assert_eq!(ran.code, Some(3), "{send} {expect}: {}{}", ran.output, ran.errors);
        assert!(ran.output.starts_with("FAILED wrong"), "{}", ran.output);
        assert!(ran.output.contains(says), "{says}\nin\n{}", ran.output);
    }
}

#[test]
fn the_outcome_is_told_in_json_too() {
    let ran = test(
        "  - { name: right, send: { url: / }, expect: { allowed: 1 } }\n  - { name: wrong, send: { url: / }, expect: { allowed: 0 } }\n",
        &["--format", "json"],
    );
    assert_eq!(ran.code, Some(3));
    let report: Value = serde_json::from_str(&ran.output).expect("JSON");
    assert_eq!((&report["passed"], &report["failed"]), (&1.into(), &1.into()), "{report:#}");
    let wrong = &report["tests"][1];
    assert_eq!((&wrong["passed"], &wrong["deviations"][0]["what"]), (&false.into(), &"allowed".into()), "{wrong:#}");
}

#[test]
fn a_test_that_means_nothing_is_a_mistake_of_the_configuration() {
    for (test_, expected, help) in [
        ("send: { url: / }, expect: { allowed: 1 }", "this test has no name", "name"),
        ("name: a, expect: { allowed: 1 }", "this test has no `send`", "send: {"),
        ("name: a, send: { url: / }", "this test has no `expect`", "expect: {"),
        ("name: a, send: [], expect: { allowed: 0 }", "sends nothing", "send: {"),
        ("name: a, send: { url: / }, expect: {}", "cannot fail", "allowed: 5"),
        ("name: a, send: { url: / }, expect: { alowed: 1 }", "unknown key `alowed`", "did you mean `allowed`?"),
        ("name: a, send: { url: / }, expect: { allowed: 2 }", "the test sends only 1", "write 0 to 1"),
        ("name: a, send: { count: 3 }, expect: { allowed: 1, denied: 1 }", "are not the 3 that are sent", "denied: 2"),
        ("name: a, send: { count: 0 }, expect: { allowed: 0 }", "0 is out of bounds", "write 1 to"),
        (
            "name: a, send: { jwt_claims: ann }, expect: { allowed: 1 }",
            "expected keys and values, found a single value",
            "{ sub: ann, plan: pro }",
        ),
        (
            "name: a, send: { jwt_claims: { sub: 0x1F } }, expect: { allowed: 1 }",
            "`0x1F` is not a number that JSON has",
            "quotes around text",
        ),
        ("name: a, send: { url: ftp://x/ }, expect: { allowed: 1 }", "`ftp://x/`", "https://host/path"),
        (
            "name: a, send: { respond: { status: 99 } }, expect: { allowed: 1 }",
            "`99` is not a status of an",
            "200 to 599",
        ),
        ("name: a, send: { respond: {} }, expect: { allowed: 1 }", "this answer says nothing", "status: 401"),
        (
            "name: a, send: { respond: { headers: { 'a b': c } } }, expect: { allowed: 1 }",
            "not a field name",
            "letters",
        ),
        ("name: a, send: { from: nowhere }, expect: { allowed: 1 }", "`nowhere` is not an address", "192.0.2.7"),
        ("name: a, send: { headers: { 'a b': c } }, expect: { allowed: 1 }", "`a b` is not a field name", "letters"),
        (
            "name: a, send: { url: / }, expect: { retry_after: 1500ms }",
            "is not what Retry-After can say",
            "whole seconds",
        ),
        (
            "name: a, send: { url: / }, expect: { denied_by: login-per-up }",
            "there is no limit",
            "did you mean `login-per-ip`?",
        ),
    ] {
        let ran = test(&format!("  - {{ {test_} }}\n"), &[]);
        assert_eq!(ran.code, Some(1), "{test_}: {}", ran.output);
        assert!(ran.errors.contains(expected) && ran.errors.contains(help), "{test_}: {}", ran.errors);
        assert!(ran.errors.contains("proxy.yaml:14:"), "the place is shown: {}", ran.errors);
    }
    let twice = "  - { name: a, send: { url: / }, expect: { allowed: 1 } }\n".repeat(2);
    assert!(test(&twice, &[]).errors.contains("there is a test `a` already"));
}

#[test]
fn imagined_answers_settle_what_was_charged() {
    let limits = r"
listen: :8080
upstream: echo
limits:
  - { name: failures, key: client_ip, rate: 3/h, count: { status: [401, 403] }, match: { path: /login } }
  - name: tokens
    key: client_ip
    rate: 100/h
    cost: { default: 10, response_header: x-used, max: 80 }
    max_debt: 50
    refund: { status: [5xx] }
    match: { path: /chat }
  - { name: watching, key: global, rate: 2/h, refund: { status: [500] }, mode: shadow, match: { path: /chat } }
tests:
  - name: only failures count
    send:
      - { count: 50, url: /login, respond: { status: 200 } }
      - { count: 5, url: /login, at: 1s, respond: { status: 401 } }
    expect: { allowed: 53, denied: 2, denied_by: failures }
  - name: without an answer a charge stays
    send: { count: 5, url: /login }
    expect: { allowed: 3, denied: 2 }
  - name: the answer tells the cost
    send: { count: 60, url: /chat, respond: { headers: { x-used: 2 } } }
    expect: { allowed: 46, denied: 14 }
  - name: at most what is allowed, then debt
    send: { count: 4, url: /chat, respond: { headers: { x-used: 999 } } }
    expect: { allowed: 2, denied: 2, retry_after: 36m }
  - name: what failed is given back, whatever it says
    send: { count: 60, url: /chat, respond: { status: 503, headers: { x-used: 80 } } }
    expect: { allowed: 60, remaining: 90 }
";
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy.yaml");
    std::fs::write(&path, limits).expect("written");
    let path = path.display().to_string();
    let ran = tollgate(&["test", "-c", &path, "--color", "never"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
    let expanded = tollgate(&["check", "--print", "-c", &path]);
    assert!(expanded.output.contains("respond:"), "{}{}", expanded.output, expanded.errors);
}

/// A configuration with limits by claims and by certificates, and these tests; and the files beside it.
fn verified(tests: &str) -> (Authority, String) {
    let authority = Authority::new();
    let key = authority.write("issuer.pem", &Issuer::new("RS256", None).pem());
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let auth = format!("{{ mode: require, ca: '{}' }}", authority.ca().display());
    let by_subject = "tiers: { by: 'tls:subject', values: { CN=boss: 9/h } }";
    let tiers = "tiers: { by: 'jwt:realm.plan', values: { pro: 5/h } }";
    let text = format!(
        "listeners: {{ web: {{ address: ':8443', tls: {{ certificates: {certificate}, client_auth: {auth} }} }} }}\n\
         upstream: echo\n\
         jwt: {{ public_key_file: '{}' }}\n\
         limits:\n  \
         - {{ name: per-user, key: 'jwt:sub', missing: skip, rate: 2/h, {tiers} }}\n  \
         - {{ name: per-reader, key: 'tls:subject', missing: skip, rate: 3/h, {by_subject} }}\n\
         tests:\n{tests}",
        key.display()
    );
    let path = authority.write("proxy.yaml", &text).display().to_string();
    (authority, path)
}

#[test]
fn what_was_verified_of_a_client_is_imagined_as_for_explain() {
    let tests = r#"
  - name: by claim
    send: { count: 4, jwt_claims: { sub: ann } }
    expect: { allowed: 2, denied: 2, denied_by: per-user }
  - name: text and number are two users
    send: [{ count: 2, jwt_claims: { sub: 7 } }, { count: 2, jwt_claims: { sub: "7" } }]
    expect: { allowed: 4, denied: 0 }
  - name: a tier by a nested claim
    send: { count: 6, jwt_claims: { sub: ann, realm: { plan: pro, since: 2020.0, roles: [a, b], gone: , on: true } } }
    expect: { allowed: 5 }
  - name: without a token
    send: { count: 9 }
    expect: { allowed: 9 }
  - name: by certificate
    send: { count: 4, tls_subject: "CN=reader,O=Example" }
    expect: { allowed: 3, denied_by: per-reader }
"#;
    let (_kept, path) = verified(tests);
    let ran = tollgate(&["test", "-c", &path, "--color", "never"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.output, ran.errors);
    let expanded = tollgate(&["check", "--print", "-c", &path]);
    let claims = r#"{"realm":{"gone":null,"on":true,"plan":"pro","roles":["a","b"],"since":2020.0},"sub":"ann"}"#;
    for expected in
        [claims, r#"jwt_claims: {"sub":7}"#, r#"jwt_claims: {"sub":"7"}"#, r#"tls_subject: "CN=reader,O=Example""#]
    {
        assert!(expanded.output.contains(expected), "{expected} in {}{}", expanded.output, expanded.errors);
    }
}

#[test]
fn a_token_in_a_field_of_a_test_is_not_verified_and_the_check_says_so() {
    let send = |more: &str| {
        format!(
            "  - {{ name: a, send: {{ headers: {{ authorization: Bearer x }}{more} }}, expect: {{ allowed: 1 }} }}\n"
        )
    };
    let (_kept, path) = verified(&send(""));
    let checked = tollgate(&["check", "-c", &path, "--color", "never"]);
    let said = ["warning: a token in a field is not verified in a test", "jwt_claims: { sub: ann }", "proxy.yaml:8:35"];
    assert!(said.iter().all(|said| checked.output.contains(said)), "{}", checked.output);
    let (_kept, path) = verified(&send(", jwt_claims: { sub: ann }"));
    let checked = tollgate(&["check", "-c", &path, "--color", "never"]);
    assert!(!checked.output.contains("warning"), "{}", checked.output);
}

#[test]
fn every_example_with_tests_passes_them() {
    let mut with_tests = 0;
    for entry in std::fs::read_dir(repository().join("examples")).expect("the examples") {
        let path = entry.expect("an entry").path();
        let is_yaml = path.extension().is_some_and(|end| end == "yaml");
        if !is_yaml || !std::fs::read_to_string(&path).expect("text").contains("\ntests:") {
            continue;
        }
        with_tests += 1;
        let ran = tollgate(&["test", "-c", &path.display().to_string(), "--format", "json"]);
        assert_eq!(ran.code, Some(0), "{}: {}{}", path.display(), ran.output, ran.errors);
        let report: Value = serde_json::from_str(&ran.output).expect("JSON");
        assert!(report["passed"].as_u64() > Some(0), "{}: {report}", path.display());
    }
    assert!(with_tests >= 15, "every recipe and the full example have tests: {with_tests}");
}

#[test]
fn a_name_that_no_test_has_is_wrong_usage() {
    for format in ["text", "json"] {
        let tests = "  - { name: right, send: { url: / }, expect: { allowed: 1 } }\n";
        let ran = test(tests, &["zzz", "--format", format]);
        assert_eq!(ran.code, Some(2), "{}", ran.output);
        assert!(ran.errors.contains("no test whose name holds `zzz`"), "{}", ran.errors);
    }
}

#[test]
fn a_configuration_without_tests_does_not_pass_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy.yaml");
    std::fs::write(&path, "listen: :8080\nupstream: echo\n").expect("written");
    let ran = tollgate(&["test", "-c", &path.display().to_string()]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.errors.contains("has no tests; write some below `tests:`"), "{}", ran.errors);
}
