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

/// What `tollgate top` draws on a terminal until q is pressed, and how it ends.
fn on_a_terminal(proxy: &Tollgate) -> String {
    const TERMINAL: &str = r#"
import os, pty, select, struct, sys, fcntl, termios, time
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm-256color"
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 130, 0, 0))
drawn, until, pressed = b"", time.time() + 20, False
while time.time() < until:
    if not select.select([terminal], [], [], 0.2)[0]:
        continue
    try:
        drawn += os.read(terminal, 65536)
    except OSError:
        break
    if b"ip=192.0.2.7" in drawn and not pressed:
        pressed = os.write(terminal, b"q") > 0
else:
    os.kill(child, 9)
print(drawn.decode(errors="replace"), "exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    let mut python = std::process::Command::new("python3");
    python.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_tollgate"), "top", "--admin", &proxy.admin().to_string()]);
    python.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let finished = finish(&mut python, "");
    finished.output + &finished.errors
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
    let seen = on_a_terminal(&proxy);
    for part in ["requests", "per-ip", "ip=192.0.2.7", "exit 0"] {
        assert!(seen.contains(part), "{part} in\n{seen}");
    }
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
    let kept = directory.path().join("proxy.yaml");
    std::fs::copy(proxy.config_path(), &kept).unwrap();
    let path = kept.display().to_string();
    drop(proxy);
    let nobody = finish(program().args(["top", "--once", "-c", &path]), "");
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.errors.contains("nobody answers at http://"), "{}", nobody.errors);
}
