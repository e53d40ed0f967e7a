//! `tollgate status`: what it says of every kind of peer, and the exit code that containers go by.

use std::net::TcpListener;

use crate::support::eventually;
use crate::support::port::Port;
use crate::support::tollgate::{Finished, Tollgate, tollgate};

fn status_at(address: &str) -> Finished {
    tollgate(&["status", "--admin", &format!("http://{address}")])
}

/// A file that says where the admin listener is.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.yaml");
    std::fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

#[track_caller]
fn says(found: &Finished, code: i32, words: &[&str]) {
    assert_eq!(found.code, Some(code), "{}{}", found.output, found.errors);
    assert_eq!(found.output.lines().count(), 1, "one line: {}", found.output);
    for words in words {
        assert!(found.output.contains(words), "{words} in {}", found.output);
    }
}

#[test]
fn a_running_proxy_is_ready_and_found_by_its_configuration() {
    let port = Port::take();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\nadmin: {{ address: 127.0.0.1:{} }}\n",
        port.number()
    ));
    let path = proxy.config_path().display().to_string();
    says(&tollgate(&["status", "-c", &path]), 0, &[&format!("ready at http://127.0.0.1:{}", port.number())]);
    says(&status_at(&proxy.admin().to_string()), 0, &["ready"]);
}

#[test]
fn a_proxy_that_drains_is_not_ready() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\nshutdown: { delay: 1m }\n");
    let admin = proxy.admin().to_string();
    says(&status_at(&admin), 0, &["ready"]);
    proxy.signal("TERM");
    let drains = || Some(status_at(&admin)).filter(|found| found.code != Some(0));
    says(&eventually("it drains", drains), 1, &["draining", "shutting down"]);
}

#[test]
fn nobody_there_and_nobody_who_answers_are_told_apart() {
    let nobody = Port::take();
    says(&status_at(&format!("127.0.0.1:{}", nobody.number())), 1, &["unreachable", "nothing listens", "--admin"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    says(&status_at(&silent.local_addr().unwrap().to_string()), 1, &["unreachable", "no answer within 2 s"]);
}

#[test]
fn another_server_is_no_admin_listener() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\n");
    says(&status_at(&proxy.web().to_string()), 1, &["unreachable", "something else answers", "status 200"]);
}

#[test]
fn a_configuration_that_names_no_address_to_ask_says_so() {
    for (admin, words) in [("none", "admin: none"), ("{ address: 127.0.0.1:0 }", "port 0")] {
        let (_kept, path) = file(&format!("listen: 127.0.0.1:0\nupstream: echo\nadmin: {admin}\n"));
        let found = tollgate(&["status", "-c", &path]);
        assert_eq!(found.code, Some(1), "{}", found.output);
        assert!(found.errors.contains(words), "{}", found.errors);
    }
}

#[test]
fn a_file_that_does_not_tell_whom_to_ask_is_shown_and_the_usual_address_asked() {
    let (_kept, path) = file("listen: 127.0.0.1:0\nupstream: echo\nadmin: { address: nowhere }\n");
    let found = tollgate(&["status", "-c", &path]);
    assert!(found.errors.contains("nowhere"), "{}", found.errors);
    // Who is there depends on the machine; it is not this one's proxy.
    assert_eq!(found.code, Some(1));
    assert!(found.output.contains(" at http://127.0.0.1:9901"), "{}", found.output);
}

#[test]
fn an_address_that_cannot_be_one_is_wrong_usage() {
    for (given, words) in [("https://127.0.0.1:9901", "no TLS"), ("127.0.0.1", "port"), ("http://a:1/x", "HOST:PORT")] {
        let found = tollgate(&["status", "--admin", given]);
        assert_eq!(found.code, Some(2), "{given}");
        assert!(found.errors.contains(words), "{given}: {}", found.errors);
    }
}
