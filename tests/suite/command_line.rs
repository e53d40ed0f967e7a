//! The command line: subcommands, exit codes, outputs.

use crate::support::tollgate::{Tollgate, field, finish, program, repository, tollgate};

const VALID: &str =
    "listen: 127.0.0.1:0\nupstream: echo\nlimits: [{ name: two, key: client_ip, rate: 100/s, burst: 200 }]\n";

/// A file with this text, and its path.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy.yaml");
    std::fs::write(&path, text).expect("written");
    let path = path.display().to_string();
    (directory, path)
}

#[test]
fn check_says_each_limit_in_words() {
    let (_kept, path) = file(VALID);
    let checked = tollgate(&["check", "-c", &path]);
    assert_eq!(checked.code, Some(0), "{}", checked.errors);
    assert!(checked.output.contains("at most 200 at once, then one each 10 ms"), "{}", checked.output);
}

#[test]
fn check_finds_every_error_in_one_run() {
    let (_kept, path) = file(
        "listen: nonsense\nupstream: echo\nlimits: [{ key: client_ip, rate: fast }, { key: clientip, rate: 1/s }]\n",
    );
    let checked = tollgate(&["check", "-c", &path, "--color", "never"]);
    assert_eq!(checked.code, Some(1));
    let all = format!("{}{}", checked.output, checked.errors);
    for expected in [format!("{path}:1:9"), format!("{path}:3:"), "fast".to_owned(), "client_ip".to_owned()] {
        assert!(all.contains(&expected), "{expected} in {all}");
    }
}

#[test]
fn check_speaks_json_and_github() {
    let (_kept, path) = file("listen: 127.0.0.1:0\nupstraem: echo\n");
    let json = tollgate(&["check", "-c", &path, "--format", "json"]);
    assert_eq!(json.code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&json.output).expect("JSON on standard output");
    assert!(report.to_string().contains("upstraem"), "{report}");
    let github = tollgate(&["check", "-c", &path, "--format", "github"]);
    assert!(github.output.starts_with("::error file="), "{}", github.output);
    assert!(github.output.contains("line=2,col=1"), "{}", github.output);
}

#[test]
fn strict_makes_a_warning_an_error() {
    let (_kept, path) =
        file("listen: 127.0.0.1:0\nupstream: echo\nlimits: [{ key: 'header:x-anything', rate: 1/s }]\n");
    let lenient = tollgate(&["check", "-c", &path]);
    assert_eq!(lenient.code, Some(0));
    assert!(format!("{}{}", lenient.output, lenient.errors).contains("warning"));
    assert_eq!(tollgate(&["check", "-c", &path, "--strict"]).code, Some(1));
}

#[test]
fn a_file_that_is_no_text_is_shown_where_it_is_none() {
    let (_kept, path) = file("");
    std::fs::write(&path, b"listen: :8080\nupstream: ech\xf6 # \xff\npassword: hunter2\n").expect("written");
    let checked = tollgate(&["check", "-c", &path, "--color", "never"]);
    assert_eq!(checked.code, Some(1));
    let place = format!("{path}:2:14");
    for expected in ["this is not UTF-8 text", &place, "save the file as UTF-8"] {
        assert!(checked.output.contains(expected), "{expected} in {}", checked.output);
    }
    let piped = finish(program().args(["check", "-c", "-"]).env("NO_COLOR", "1"), "listen: :8080\nupstream: echo\n");
    assert_eq!(piped.code, Some(0), "{}", piped.output);
}

#[test]
fn the_schema_is_json() {
    let schema = tollgate(&["schema"]);
    assert_eq!(schema.code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&schema.output).expect("JSON");
    assert!(schema["properties"]["limits"].is_object(), "{schema}");
}

#[test]
fn what_init_writes_passes_check() {
    for form in [&["init"][..], &["init", "--minimal"], &["init", "--full"]] {
        let directory = tempfile::tempdir().expect("a directory");
        let written = finish(program().args(form).current_dir(directory.path()), "");
        assert_eq!(written.code, Some(0), "{form:?}: {}", written.errors);
        let path = directory.path().join("proxy.yaml");
        assert!(path.exists(), "{form:?} writes ./proxy.yaml");
        let checked = tollgate(&["check", "-c", &path.display().to_string()]);
        assert_eq!(checked.code, Some(0), "{form:?}: {}{}", checked.output, checked.errors);
        let again = finish(program().args(form).current_dir(directory.path()), "");
        assert_ne!(again.code, Some(0), "a file that is there is not overwritten");
    }
}

#[test]
fn explain_names_route_and_limits_without_counting() {
    let (_kept, path) = file(VALID);
    let explained = tollgate(&["explain", "-c", &path, "GET", "http://example.test/x", "--ip", "192.0.2.1"]);
    assert_eq!(explained.code, Some(0), "{}", explained.errors);
    for expected in ["two", "192.0.2.1", "echo"] {
        assert!(explained.output.contains(expected), "{expected} in {}", explained.output);
    }
    let json = tollgate(&["explain", "-c", &path, "--format", "json", "GET", "http://example.test/x"]);
    assert!(serde_json::from_str::<serde_json::Value>(&json.output).is_ok(), "{}", json.output);
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let completions = tollgate(&["completions", shell]);
        assert_eq!(completions.code, Some(0));
        assert!(completions.output.contains("tollgate") && completions.output.contains("explain"), "{shell}");
    }
}

#[test]
fn the_quick_form_runs() {
    let mut command = program();
    command.args([
        "run",
        "--from",
        "127.0.0.1:0",
        "--to",
        "echo",
        "--limit",
        "client_ip 2/h burst 2",
        "--log-format",
        "json",
    ]);
    let proxy = Tollgate::spawn(command, tempfile::tempdir().expect("a directory"));
    let line = proxy
        .wait_for_log("listening", |line| field(line, "message") == "listening" && field(line, "listener") != "admin");
    let address = field(&line, "address").parse().expect("an address");
    let statuses: Vec<_> = (0..3).map(|_| crate::support::client::get(address, "/").status).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn the_quick_form_prints_the_configuration_it_means() {
    let form = [
        "run",
        "--from",
        "127.0.0.1:0",
        "--to",
        "http://127.0.0.1:3000",
        "--limit",
        "client_ip 100/s burst 200",
        "--print-config",
    ];
    let printed = tollgate(&form);
    assert_eq!(printed.code, Some(0), "{}", printed.errors);
    let (_kept, path) = file(&printed.output);
    let checked = tollgate(&["check", "-c", &path]);
    assert_eq!(checked.code, Some(0), "{}\n{}", printed.output, checked.errors);
    assert!(checked.output.contains("at most 200 at once"), "{}", checked.output);
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for wrong in [&["nonsense"][..], &["check", "--nonsense"], &["explain"], &["run", "--limit"]] {
        assert_eq!(tollgate(wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn commands_that_read_no_configuration_take_none() {
    for command in [&["init", "-o", "-"][..], &["schema"], &["completions", "bash"], &["advise", "x.log"]] {
        let help = tollgate(&[command[0], "--help"]);
        assert!(!help.output.contains("--config"), "{}", help.output);
        for given in [[&["-c", "zz.yaml"], command].concat(), [command, &["-c", "zz.yaml"]].concat()] {
            let refused = tollgate(&given);
            assert_eq!(refused.code, Some(2), "{given:?}");
            assert!(refused.errors.contains("reads no configuration"), "{given:?}: {}", refused.errors);
        }
    }
    assert!(tollgate(&["check", "--help"]).output.contains("--config"));
}

#[test]
fn without_a_file_to_run_the_help_says_so() {
    let nowhere = tempfile::tempdir().expect("a directory");
    let finished = finish(program().current_dir(nowhere.path()).env_remove("TOLLGATE_CONFIG"), "");
    assert_eq!(finished.code, Some(2));
    assert!(finished.errors.contains("Usage:") && finished.errors.contains("no ./proxy.yaml"), "{}", finished.errors);
}

#[test]
fn every_subcommand_has_a_help_text() {
    for command in ["run", "check", "explain", "schema", "init", "completions", "status"] {
        let help = tollgate(&[command, "--help"]);
        assert_eq!(help.code, Some(0), "{command}");
        assert!(help.output.lines().count() > 4 && help.output.contains("Usage"), "{command}: {}", help.output);
        let undescribed: Vec<_> = help
            .output
            .lines()
            .filter(|line| {
                let line = line.trim();
                line.starts_with("--") && !line.contains("  ") && !help.output.contains(&format!("{line}\n          "))
            })
            .collect();
        assert!(undescribed.is_empty(), "{command}: options without a description: {undescribed:?}");
    }
    assert!(tollgate(&["--version"]).output.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn output_survives_a_closed_pipe() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = program().arg("schema").stdout(writer).spawn().expect("started");
    let errors = std::io::read_to_string(child.stderr.take().expect("piped")).expect("read");
    let status = child.wait().expect("ended");
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(status.code() != Some(101), "{status}");
}

#[test]
fn the_configuration_is_found_beside_the_program_and_by_the_environment() {
    let (kept, path) = file(VALID);
    assert_eq!(finish(program().arg("check").current_dir(kept.path()), "").code, Some(0));
    let empty = finish(program().arg("check").current_dir(kept.path()).env("TOLLGATE_CONFIG", ""), "");
    assert_eq!(empty.code, Some(0), "an empty name is none");
    for quick in [["--to", "echo"], ["--limit", "client_ip 9/s"], ["--from", ":9999"]] {
        let both = tollgate(&[&["run", "-c", &path, "--print-config"], &quick[..]].concat());
        assert_eq!(both.code, Some(2), "a file and the quick form exclude each other: {quick:?}");
        assert!(both.errors.contains("cannot be used with"), "{quick:?}: {}", both.errors);
    }
    assert_eq!(finish(program().arg("check").env("TOLLGATE_CONFIG", &path), "").code, Some(0));
    assert_eq!(finish(program().args(["check", "-c", "-"]), VALID).code, Some(0));
    let first = repository().join("proxy.yaml").display().to_string();
    assert_eq!(tollgate(&["check", "-c", &first]).code, Some(0));
}

#[test]
fn the_environment_fills_in_and_its_absence_is_an_error_with_its_place() {
    let (_kept, path) = file("listen: 127.0.0.1:0\nupstream: ${TEST_UPSTREAM:?where to}\n");
    let missing = tollgate(&["check", "-c", &path]);
    assert_eq!(missing.code, Some(1));
    let all = format!("{}{}", missing.output, missing.errors);
    assert!(all.contains(&format!("{path}:2:11")) && all.contains("where to"), "{all}");
    let set = finish(program().args(["check", "-c", &path]).env("TEST_UPSTREAM", "http://127.0.0.1:3000"), "");
    assert_eq!(set.code, Some(0), "{}", set.errors);
}

#[test]
fn explain_says_what_it_does_not_know() {
    let (_kept, path) = file(
        "listen: 127.0.0.1:0\nupstream: echo\nlimits:\n\
         \x20 - { name: set, key: client_ip, rate: 9/s, dynamic_overrides: { max_rate: 99/s } }\n\
         \x20 - { name: fixed, key: client_ip, rate: 5/s }\n",
    );
    let text = tollgate(&["explain", "-c", &path, "GET", "http://a/"]).output;
    let note = "note: an override that was set for the key through the admin API would come first";
    assert_eq!(text.matches(note).count(), 1, "{text}");
    let json = tollgate(&["explain", "-c", &path, "--format", "json", "GET", "http://a/"]).output;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (json["limits"][0]["notes"].as_array().map(Vec::len), &json["limits"][1]["notes"]),
        (Some(1), &serde_json::Value::Null)
    );
    let never = tollgate(&["explain", "-c", &path, "GET", "http://a/", "--at", "tomorrow"]);
    assert_eq!(never.code, Some(2));
    assert!(never.errors.contains("write date, time and zone, such as 2026-11-27T22:30:00Z"), "{}", never.errors);
}

#[test]
fn explain_says_why_and_never_shows_a_secret() {
    let (_kept, path) = file(
        "listeners: { default: { address: '127.0.0.1:0' } }\nupstreams: { web: echo }\nroutes:\n\
         \x20 - name: orders\n    match: { path: '/orders/{id}', method: POST }\n    upstream: web\n    limits:\n\
         \x20     - { name: keyed, key: 'header:x-api-key', rate: 1/s, cost: { default: 1, POST: 3 }, burst: 5,\n\
         \x20         overrides: [{ key: [partner-secret], rate: unlimited }] }\n\
         \x20 - { name: rest, match: { path: /* }, upstream: web }\n",
    );
    let explain = |more: &[&str]| tollgate(&[&["explain", "-c", &path], more].concat()).output;
    let counted = explain(&["POST", "http://a/x/../orders/7", "-H", "x-api-key: client-secret"]);
    for expected in ["/orders/7", "orders", "{id} = 7", "at cost 3", "rest (path /*): matches too"] {
        assert!(counted.contains(expected), "{expected} in {counted}");
    }
    let overridden = explain(&["POST", "http://a/orders/7", "-H", "x-api-key: partner-secret"]);
    assert!(overridden.contains("override 1: unlimited"), "{overridden}");
    let missing = explain(&["POST", "http://a/orders/7"]);
    assert!(missing.contains("the request does not carry its key"), "{missing}");
    let other = explain(&["GET", "http://a/orders/7"]);
    assert!(other.contains("is for another method") && other.contains("rest"), "{other}");
    let refused = explain(&["GET", "http://a/../x"]);
    assert!(refused.contains("400"), "{refused}");
    for output in [counted, overridden] {
        assert!(!output.contains("secret"), "{output}");
    }
}
