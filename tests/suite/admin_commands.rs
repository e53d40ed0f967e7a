//! `tollgate top`, `tollgate keys` and `tollgate explain --live`: a running proxy, asked from a terminal.

use serde_json::Value;

use crate::support::client::Request;
use crate::support::tollgate::{Finished, Tollgate, finish, program};

fn proxy(more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\n{more}\n\
         limits: [{{ name: per-ip, key: client_ip, rate: 2/d }}]\n"
    ))
}

fn ask(proxy: &Tollgate, arguments: &[&str]) -> Finished {
    let admin = format!("http://{}", proxy.admin());
    finish(program().args(arguments).args(["--admin", &admin, "--color", "never"]), "")
}

#[track_caller]
fn told(proxy: &Tollgate, arguments: &[&str]) -> String {
    let finished = ask(proxy, arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {}{}", finished.output, finished.errors);
    finished.output
}

fn send(proxy: &Tollgate, address: &str) -> u16 {
    proxy.client().send(&Request::get("/").from(address)).status
}

#[test]
fn a_key_is_listed_looked_at_and_reset() {
    let proxy = proxy("");
    assert_eq!([(); 3].map(|()| send(&proxy, "192.0.2.7")), [200, 200, 429]);
    assert_eq!(send(&proxy, "192.0.2.8"), 200);
    let names = told(&proxy, &["keys"]);
    assert!(names.contains("per-ip") && names.contains("at most 2"), "{names}");
    let list = told(&proxy, &["keys", "per-ip"]);
    let (first, second) = (list.find("ip=192.0.2.7"), list.find("ip=192.0.2.8"));
    assert!(first.is_some() && first < second, "{list}");
    assert!(told(&proxy, &["keys", "per-ip", "192.0.2.7"]).contains("2/d: 0 of 2 left, full again in"));
    assert!(told(&proxy, &["keys", "per-ip", "192.0.2.9"]).contains("2 of 2 left, nothing used"));
    assert!(told(&proxy, &["keys", "per-ip", "192.0.2.7", "--reset"]).starts_with("Reset under per-ip"));
    assert_eq!(send(&proxy, "192.0.2.7"), 200);
    let json: Value =
        serde_json::from_str(&told(&proxy, &["keys", "per-ip", "192.0.2.7", "--format", "json"])).unwrap();
    assert_eq!(json["states"][0]["remaining"], 1);
    let unknown = ask(&proxy, &["keys", "nothing"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.errors.contains("There is no limit `nothing`."), "{}", unknown.errors);
    assert_eq!(ask(&proxy, &["keys", "per-ip", "--reset"]).code, Some(2), "of whom?");
}

#[test]
fn top_prints_once_for_people_and_for_programs() {
    let proxy = proxy("");
    assert_eq!([(); 3].map(|()| send(&proxy, "192.0.2.7")), [200, 200, 429]);
    let text = told(&proxy, &["top", "--once"]);
    for part in ["all well", "per-ip", "ip=192.0.2.7 ×1", "echo", "healthy", "store memory"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let json: Value = serde_json::from_str(&told(&proxy, &["top", "--once", "--format", "json"])).unwrap();
    assert_eq!(json["traffic"]["requests"], 3);
    let blind = finish(program().args(["top", "--admin", &proxy.admin().to_string()]), "");
    assert_eq!(blind.code, Some(1), "{}", blind.output);
    assert!(blind.errors.contains("try --once"), "{}", blind.errors);
}

#[test]
fn explain_live_tells_what_is_left() {
    let proxy = proxy("");
    assert_eq!(send(&proxy, "192.0.2.7"), 200);
    let text = told(&proxy, &["explain", "GET", "http://localhost/", "--ip", "192.0.2.7", "--live"]);
    assert!(text.contains("now: 1 of 2 left (2/d), full again in"), "{text}");
    let offline =
        told(&proxy, &["explain", "GET", "http://localhost/", "-c", &proxy.config_path().display().to_string()]);
    assert!(!offline.contains("now:"), "{offline}");
}

#[test]
fn the_token_comes_from_the_environment_or_from_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "correct-horse-battery").unwrap();
    let port = crate::support::port::Port::take();
    let address = format!("127.0.0.1:{}", port.number());
    let proxy = proxy(&format!("admin: {{ address: '{address}', token_file: '{}' }}", token.display()));
    let without = ask(&proxy, &["top", "--once"]);
    assert_eq!(without.code, Some(1));
    assert!(without.errors.contains("401") && without.errors.contains("TOLLGATE_ADMIN_TOKEN"), "{}", without.errors);
    let with = finish(
        program().args(["top", "--once", "--admin", &address]).env("TOLLGATE_ADMIN_TOKEN", "correct-horse-battery"),
        "",
    );
    assert_eq!(with.code, Some(0), "{}", with.errors);
    let path = proxy.config_path().display().to_string();
    let configured = finish(program().args(["top", "--once", "-c", &path]), "");
    assert_eq!(configured.code, Some(0), "{}", configured.errors);
    drop(proxy);
    let nobody = finish(program().args(["top", "--once", "-c", &path]), "");
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.errors.contains("cannot reach the admin listener"), "{}", nobody.errors);
}
