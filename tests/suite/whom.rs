//! Commands that talk to a running proxy reach the one they mean, or say that they do not.

use std::path::Path;

use crate::support::port::Port;
use crate::support::tollgate::{Finished, Tollgate, field, finish, program};

/// Runs a command in a directory, without an address in the environment.
fn within(directory: &Path, arguments: &[&str]) -> Finished {
    finish(program().current_dir(directory).env_remove("TOLLGATE_ADMIN").args(arguments), "")
}

fn directory(proxy: &Tollgate) -> std::path::PathBuf {
    proxy.config_path().parent().expect("a directory").to_owned()
}

fn at(port: &Port, more: &str) -> String {
    format!("listen: 127.0.0.1:0\nupstream: echo\n{more}\nadmin: {{ address: 127.0.0.1:{} }}\n", port.number())
}

#[test]
fn what_is_meant_for_one_proxy_is_not_done_by_another() {
    let (port, other) = (Port::take(), Port::take());
    let proxy = Tollgate::start(&at(&port, ""));
    // Another file names the same address: as after a copy, or where the default one was taken.
    let elsewhere = tempfile::tempdir().expect("a directory");
    std::fs::write(elsewhere.path().join("proxy.yaml"), at(&port, "limits: []")).expect("written");
    for command in ["reload", "upgrade", "status", "keys", "top"] {
        let more: &[&str] = if command == "top" { &["top", "--once"] } else { &[command] };
        let told = within(elsewhere.path(), more);
        assert_eq!(told.code, Some(1), "{command}: {}", told.output);
        let text = format!("{}{}", told.errors, told.output);
        assert!(
            text.contains("is not the proxy of") || text.contains("another configuration file"),
            "{command}: {text}"
        );
        let own = within(&directory(&proxy), if command == "upgrade" { &["reload"] } else { more });
        assert_eq!(own.code, Some(0), "{command}: {}{}", own.errors, own.output);
    }
    let changed = |line: &serde_json::Value| field(line, "message").contains("another process");
    assert!(!proxy.log().iter().filter_map(|line| serde_json::from_str(line).ok()).any(|line| changed(&line)));
    // By another name, it is the same file; and who names an address means it.
    std::os::unix::fs::symlink(proxy.config_path(), elsewhere.path().join("link.yaml")).expect("a link");
    assert_eq!(within(elsewhere.path(), &["reload", "-c", "link.yaml"]).code, Some(0));
    let address = format!("127.0.0.1:{}", port.number());
    assert_eq!(within(elsewhere.path(), &["reload", "--admin", &address]).code, Some(0));
    // The command line comes before the environment, for each of them.
    let nobody = format!("127.0.0.1:{}", other.number());
    for command in ["status", "reload", "keys"] {
        let ask = |arguments: &[&str]| {
            let mut program = program();
            finish(program.current_dir(elsewhere.path()).env("TOLLGATE_ADMIN", &nobody).args(arguments), "").code
        };
        assert_eq!(ask(&[command]), Some(1), "{command}");
        assert_eq!(ask(&[command, "-c", "link.yaml"]), Some(0), "{command}");
        assert_eq!(ask(&[command, "--admin", &address]), Some(0), "{command}");
    }
}

#[test]
fn a_file_that_is_wrong_still_tells_where_its_proxy_is_asked() {
    let port = Port::take();
    let proxy = Tollgate::start(&at(&port, ""));
    let directory = directory(&proxy);
    std::fs::write(proxy.config_path(), at(&port, "limits: [{ kee: client_ip, rate: 1/s }]")).expect("written");
    let told = within(&directory, &["reload"]);
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("what ran before goes on") && told.errors.contains("`key`"), "{}", told.errors);
    let told = within(&directory, &["status"]);
    assert_eq!((told.code, told.errors.as_str()), (Some(0), ""), "{}", told.output);
    // Where not even that can be read, nobody else is taken for it.
    std::fs::write(proxy.config_path(), "admin: {{").expect("written");
    let told = within(&directory, &["reload"]);
    assert_eq!(told.code, Some(1));
    assert!(told.errors.contains("its admin listener is not known"), "{}", told.errors);
    assert!(told.errors.contains("--> proxy.yaml:1"), "{}", told.errors);
}

#[test]
fn a_file_may_be_named_without_its_letter() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("mine.yaml"), "listen: 127.0.0.1:0\nupstream: echo\n").expect("written");
    assert_eq!(within(directory.path(), &["check", "mine.yaml"]).code, Some(0));
    assert_eq!(within(directory.path(), &["run", "mine.yaml", "--print-config"]).code, Some(0));
    assert_eq!(within(directory.path(), &["check", "none.yaml"]).code, Some(1));
    assert_eq!(within(directory.path(), &["check", "mine.yaml", "-c", "mine.yaml"]).code, Some(2));
    assert_eq!(within(directory.path(), &["run", "mine.yaml", "--to", "echo"]).code, Some(2));
}
