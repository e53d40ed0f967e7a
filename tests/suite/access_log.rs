//! The access log in a file: rotation, and outputs that take nothing.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use crate::support::tollgate::{Tollgate, tollgate};
use crate::support::{PATIENCE, eventually};

fn logging_to(path: &Path, more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nroutes: [{{ name: all, respond: {{ status: 204 }} }}]\n\
         access_log: {{ file: '{}' }}\n{more}",
        path.display()
    ))
}

/// The paths in a log, in order.
fn paths(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON"));
    lines.map(|line| line["path"].as_str().expect("a path").to_owned()).collect()
}

#[test]
fn a_rotated_log_is_left_alone_after_usr1_and_hup_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, old) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let proxy = logging_to(&log, "");
    proxy.get("/before");
    eventually("it is written", || (paths(&log) == ["/before"]).then_some(()));
    std::fs::rename(&log, &old).expect("renamed");
    proxy.signal("HUP");
    proxy.get("/between");
    eventually("the open file is written on", || (paths(&old) == ["/before", "/between"]).then_some(()));
    assert!(!log.exists());
    proxy.signal("USR1");
    eventually("there is a new one", || log.exists().then_some(()));
    proxy.get("/after");
    eventually("it is written", || (paths(&log) == ["/after"]).then_some(()));
    assert_eq!(paths(&old), ["/before", "/between"]);
    assert!(proxy.output().is_empty(), "nothing goes to standard output");
}

#[test]
fn no_line_is_lost_while_logs_are_rotated() {
    let directory = tempfile::tempdir().expect("a directory");
    let name = |number: usize| directory.path().join(format!("access.log.{number}"));
    let log = directory.path().join("access.log");
    let proxy = logging_to(&log, "");
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut client = proxy.client();
            (0..20_000)
                .take_while(|_| !stop.load(Ordering::SeqCst))
                .map(|number| client.get(&format!("/{number}")))
                .count()
        });
        for number in 0..10 {
            eventually("some lines", || (lines_so_far(&log) >= 20).then_some(()));
            std::fs::rename(&log, name(number)).expect("renamed");
            proxy.signal("USR1");
            eventually("a new file", || log.exists().then_some(()));
        }
        stop.store(true, Ordering::SeqCst);
        traffic.join().expect("answered")
    });
    let dropped = proxy.metrics().count("tollgate_log_dropped_total", &[("log", "access")]);
    assert_eq!((proxy.stop(), dropped), (Some(0), 0));
    let logged: Vec<_> = (0..10).map(name).chain([log]).flat_map(|log| paths(&log)).collect();
    let expected: Vec<_> = (0..sent).map(|number| format!("/{number}")).collect();
    assert_eq!(logged, expected, "every line once, whole and in order");
}

/// Lines of a log that is being written.
fn lines_so_far(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().matches('\n').count()
}

#[test]
fn a_full_disk_stops_nothing_is_counted_and_told_once() {
    let proxy = logging_to(Path::new("/dev/full"), "");
    for _ in 0..20 {
        assert_eq!(proxy.get("/").status, 204);
    }
    eventually("every line is counted as lost", || {
        let lost = proxy.metrics().count("tollgate_log_dropped_total", &[("log", "access")]);
        (lost == 20).then_some(())
    });
    let told: Vec<_> = proxy.log().into_iter().filter(|line| line.contains("lines of a log are lost")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("access-log") && told[0].contains("No space left"), "{}", told[0]);
}

/// A pipe whose reader stands still: the thread that writes is stuck, and says nothing itself.
#[test]
fn an_output_that_is_stuck_stops_nothing_is_counted_and_told_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()), "mkfifo");
    // Read and written, it can be opened before there is a writer.
    let reader = OpenOptions::new().read(true).write(true).open(&pipe).expect("opened");
    let proxy = logging_to(&pipe, "");
    let (mut client, requests) = (proxy.client(), 10_000);
    let batch = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50);
    for _ in 0..requests / 50 {
        client.write(&batch).expect("sent");
        for _ in 0..50 {
            assert_eq!(client.answer_to("GET").expect("an answer").status, 204);
        }
    }
    let lost = || proxy.metrics().count("tollgate_log_dropped_total", &[("log", "access")]);
    assert!((1..requests - 8_192).contains(&lost()), "{}", lost());
    let told = || proxy.log().into_iter().filter(|line| line.contains("lines of a log are lost")).count();
    assert_eq!(told(), 1, "{:#?}", proxy.log());
    let written = requests - lost();
    let (tell, all_read) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(reader).lines().take(usize::try_from(written).expect("a number"));
        let whole = |line: String| serde_json::from_str::<serde_json::Value>(&line).is_ok();
        let _ = tell.send(lines.map(|line| line.expect("a line")).all(whole));
    });
    assert_eq!(all_read.recv_timeout(PATIENCE), Ok(true), "every other line comes, and comes whole");
    assert_eq!((lost(), told()), (requests - written, 1));
}

#[test]
fn a_log_that_cannot_be_written_is_said_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let check = |file: &Path| {
        let path = directory.path().join("proxy.yaml");
        let yaml = format!("listen: 127.0.0.1:0\nupstream: echo\naccess_log: {{ file: '{}' }}\n", file.display());
        std::fs::write(&path, yaml).expect("written");
        let finished = tollgate(&["check", "-c", &path.to_string_lossy()]);
        (finished.code, finished.output + &finished.errors)
    };
    let (code, text) = check(&directory.path().join("nowhere/access.log"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("there is no directory") && text.contains("create it first"), "{text}");
    let (code, text) = check(directory.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it is a directory"), "{text}");
    let (code, text) = check(Path::new("access.log"));
    assert_eq!(code, Some(0), "{text}");
    assert!(!directory.path().join("access.log").exists(), "a check writes nothing");
}
