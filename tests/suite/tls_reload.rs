//! Certificates and authorities that change while clients connect.

use std::collections::HashSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;

use crate::support::certificates::{Authority, Files, TlsClient, Wanted};
use crate::support::client::Request;
use crate::support::eventually;
use crate::support::tollgate::{Tollgate, field};

/// A listener `default` with this `tls:`, on two workers.
fn listening(tls: &str) -> Tollgate {
    Tollgate::start(&format!(
        "workers: 2\nupstream: echo\nlisteners: {{ default: {{ address: '127.0.0.1:0', tls: {{ {tls} }} }} }}\n"
    ))
}

/// What a new connection is shown, once it has served a request.
fn shown(client: &TlsClient, proxy: &Tollgate) -> Result<CertificateDer<'static>, String> {
    let mut client = client.connect(proxy.web()).map_err(|error| format!("handshake: {error}"))?;
    let answer = client.ask(&Request::get("/")).map_err(|error| format!("request: {error}"))?;
    if answer.status != 200 {
        return Err(format!("answer: {}", answer.status));
    }
    Ok(client.get_ref().conn.peer_certificates().expect("a chain")[0].clone().into_owned())
}

#[track_caller]
fn eventually_shown(client: &TlsClient, proxy: &Tollgate, expected: &CertificateDer<'_>) {
    eventually("the new certificate", || (shown(client, proxy).expect("a connection") == *expected).then_some(()));
}

fn reloads(proxy: &Tollgate, result: &str) -> u64 {
    proxy.metrics().count("tollgate_tls_reloads_total", &[("listener", "default"), ("result", result)])
}

/// How often the log says that changed files cannot be used.
fn complaints(proxy: &Tollgate) -> Vec<String> {
    proxy.log().into_iter().filter(|line| line.contains("cannot be used")).collect()
}

#[test]
fn a_certificate_that_is_replaced_200_times_fails_no_handshake() {
    const CLIENTS: usize = 5;
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("localhost", &["localhost"]));
    let proxy = listening(&format!("certificates: {}", files.yaml()));
    let client = authority.client();
    let done = AtomicBool::new(false);
    let seen: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        seen.push(shown(&client, &proxy));
                        std::thread::sleep(Duration::from_millis(80));
                    }
                    seen
                })
            })
            .collect();
        for _ in 0..200 {
            // The two files are written in place, one after the other: they do not fit in between.
            let next = authority.sign(&Wanted::server("next", &["localhost"]));
            std::fs::copy(&next.cert, &files.cert).expect("copied");
            std::thread::sleep(Duration::from_millis(20));
            std::fs::copy(&next.key, &files.key).expect("copied");
            std::thread::sleep(Duration::from_millis(40));
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("joined")).collect()
    });
    let failed: Vec<_> = seen.iter().filter_map(|seen| seen.as_ref().err()).collect();
    let distinct: HashSet<_> = seen.iter().filter_map(|seen| seen.as_ref().ok()).collect();
    println!("{} handshakes saw {} certificates, {} failed", seen.len(), distinct.len(), failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(seen.len() > 200 && distinct.len() > 5, "the files changed while clients connected");
    eventually_shown(&client, &proxy, &files.der());
    assert!(reloads(&proxy, "ok") > 5);
    assert_eq!((reloads(&proxy, "failed"), complaints(&proxy)), (0, vec![]), "what passes is nobody's business");
}

#[test]
fn a_file_that_cannot_be_used_keeps_the_certificate_before_and_is_told_once() {
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("localhost", &["localhost"]));
    let first = files.der();
    let proxy = listening(&format!("certificates: {}", files.yaml()));
    let client = authority.client();
    // Half of a file, as a writer leaves it that was interrupted.
    let whole = std::fs::read(&files.cert).expect("a certificate");
    std::fs::write(&files.cert, &whole[..whole.len() / 2]).expect("written");
    eventually("a failed reload", || (reloads(&proxy, "failed") == 1).then_some(()));
    let line = proxy.wait_for_log("a complaint", |line| field(line, "message").contains("cannot be used"));
    assert!(field(&line, "error").contains(&files.cert.display().to_string()), "{line}");
    assert_eq!(field(&line, "listener"), "default");
    assert_eq!(shown(&client, &proxy).as_ref(), Ok(&first));
    // Another reason is told too, and an expired certificate is one.
    let expired = authority.sign(&Wanted::server("expired", &["localhost"]).expired());
    std::fs::copy(&expired.key, &files.key).expect("copied");
    std::fs::copy(&expired.cert, &files.cert).expect("copied");
    eventually("another failed reload", || {
        complaints(&proxy).iter().find(|line| line.contains("has expired")).cloned()
    });
    assert_eq!(shown(&client, &proxy).as_ref(), Ok(&first));
    // And a good one is taken.
    authority.sign(&Wanted::server("localhost", &["localhost"]));
    eventually_shown(&client, &proxy, &files.der());
    assert_eq!(reloads(&proxy, "ok"), 1);
    proxy.wait_for_log("the new ones", |line| field(line, "message").contains("shown from now on"));
}

#[test]
fn files_that_are_still_being_written_are_not_told_of_even_after_a_failure_was() {
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("localhost", &["localhost"]));
    let first = [&files.cert, &files.key].map(|file| std::fs::read(file).expect("a file"));
    let proxy = listening(&format!("certificates: {}", files.yaml()));
    let client = authority.client();
    let restored = || proxy.log().into_iter().filter(|line| line.contains("can be used again")).count();
    std::fs::write(&files.cert, &first[0][..first[0].len() / 2]).expect("written");
    eventually("a complaint", || (complaints(&proxy).len() == 1).then_some(()));
    // What was shown all the time is put back: nothing is new, and yet it is over.
    std::fs::write(&files.cert, &first[0]).expect("written");
    eventually("the end of it", || (restored() == 1).then_some(()));
    assert_eq!((reloads(&proxy, "ok"), reloads(&proxy, "failed")), (0, 1));
    std::fs::write(&files.cert, "").expect("written");
    eventually("another complaint", || (complaints(&proxy).len() == 2).then_some(()));
    // A slow copy: each look finds other bytes, and other mistakes in them.
    let next = authority.sign(&Wanted::server("next", &["localhost"]));
    let [cert, key] = [&next.cert, &next.key].map(|file| std::fs::read(file).expect("a file"));
    for share in 1..=6 {
        std::fs::write(&files.cert, &cert[..cert.len() * share / 6]).expect("written");
        std::thread::sleep(Duration::from_millis(600));
    }
    std::fs::write(&files.key, &key).expect("written");
    eventually_shown(&client, &proxy, &next.der());
    assert_eq!((complaints(&proxy).len(), restored()), (2, 1), "{:?}", complaints(&proxy));
    assert_eq!((reloads(&proxy, "ok"), reloads(&proxy, "failed")), (1, 2));
}

#[test]
fn a_certificate_that_ends_while_it_is_shown_is_told_of_twice() {
    let authority = Authority::new();
    let soon = SystemTime::now() + Duration::from_secs(8);
    let files = authority.sign(&Wanted::server("localhost", &["localhost"]).until(soon));
    let other = authority.sign(&Wanted::server("other", &["other.example"]));
    let proxy = listening(&format!("certificates: [{}, {}]", files.yaml(), other.yaml()));
    let told = || -> Vec<_> {
        let log = proxy.log();
        let about = log.iter().filter(|line| line.contains("a certificate "));
        let lines = about.map(|line| serde_json::from_str(line).expect("JSON"));
        lines.map(|line: serde_json::Value| (field(&line, "message"), field(&line, "certificate"))).collect()
    };
    let path = files.cert.display().to_string();
    eventually("the end", || told().iter().find(|(message, _)| message.contains("has expired")).cloned());
    // A look more.
    std::thread::sleep(Duration::from_secs(1));
    let told = told();
    assert!(told[0].0.contains("expires soon") && told[1].0.contains("has expired"), "{told:?}");
    assert!(told.len() == 2 && told.iter().all(|(_, certificate)| *certificate == path), "{told:?}");
    let renewed = authority.sign(&Wanted::server("localhost", &["localhost"]));
    eventually("a reload", || (reloads(&proxy, "ok") == 1).then_some(()));
    assert_eq!(shown(&authority.client(), &proxy).as_ref(), Ok(&renewed.der()));
}

#[test]
fn a_directory_that_is_swapped_behind_a_link_is_seen() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().expect("a directory"));
    let place = |version: &str, files: &Files| {
        let version = directory.path().join(version);
        std::fs::create_dir(&version).expect("a directory");
        std::fs::copy(&files.cert, version.join("tls.crt")).expect("copied");
        std::fs::copy(&files.key, version.join("tls.key")).expect("copied");
        // As mounted secrets do: the link is replaced as a whole.
        symlink(&version, directory.path().join("data.new")).expect("a link");
        std::fs::rename(directory.path().join("data.new"), directory.path().join("data")).expect("renamed");
    };
    let [one, two] = ["one", "two"].map(|file| authority.sign(&Wanted::server(file, &["localhost"])));
    place("1", &one);
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("data").join(file), directory.path().join(file)).expect("a link");
    }
    let linked = Files { cert: directory.path().join("tls.crt"), key: directory.path().join("tls.key") };
    let proxy = listening(&format!("certificates: {}", linked.yaml()));
    let client = authority.client();
    assert_eq!(shown(&client, &proxy).as_ref(), Ok(&one.der()));
    place("2", &two);
    eventually_shown(&client, &proxy, &two.der());
}

#[test]
fn no_session_outlives_the_certificates_it_began_with() {
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("localhost", &["localhost"]));
    let proxy = listening(&format!("certificates: {}", files.yaml()));
    let (client, config) = (authority.client(), authority.client().config());
    let kind = || {
        let mut client = client.connect_with(proxy.web(), &config).expect("a handshake");
        assert_eq!(client.ask(&Request::get("/")).expect("an answer").status, 200);
        client.get_ref().conn.handshake_kind().expect("it is over")
    };
    kind();
    assert_eq!(kind(), HandshakeKind::Resumed);
    authority.sign(&Wanted::server("localhost", &["localhost"]));
    eventually("a reload", || (reloads(&proxy, "ok") == 1).then_some(()));
    assert_ne!(kind(), HandshakeKind::Resumed);
    assert_eq!(kind(), HandshakeKind::Resumed);
}

#[test]
fn whose_authority_is_taken_off_the_list_is_let_in_no_longer() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let certificate = ours.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let [ann, bob] = [&ours, &theirs].map(|authority| authority.sign(&Wanted::client("client", "Example", "client")));
    let list = ours.write("clients.pem", &std::fs::read_to_string(ours.ca()).expect("an authority"));
    let auth = format!("client_auth: {{ mode: require, ca: '{}' }}", list.display());
    let proxy = listening(&format!("certificates: {certificate}, {auth}"));
    // The same sessions are offered again and again.
    let [ann, bob] = [ann, bob].map(|files| {
        let client = ours.client().showing(&files);
        let config = client.config();
        let address = proxy.web();
        move || -> Option<u16> {
            let mut client = client.connect_with(address, &config).ok()?;
            client.ask(&Request::get("/")).ok().map(|answer| answer.status)
        }
    });
    assert_eq!((ann(), bob()), (Some(200), None));
    std::fs::copy(theirs.ca(), &list).expect("copied");
    eventually("the other authority", || (bob() == Some(200)).then_some(()));
    assert_eq!(ann(), None);
    // A list that lets nobody be told apart keeps the one before.
    std::fs::write(&list, "").expect("written");
    eventually("a failed reload", || (reloads(&proxy, "failed") == 1).then_some(()));
    assert_eq!((ann(), bob()), (None, Some(200)));
    assert!(complaints(&proxy)[0].contains(&list.display().to_string()));
}
