//! The first words of a TLS connection: names that nobody has, and how much of a client is put up with.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::certificates::{Authority, Files, TlsClient, Wanted};
use crate::support::client::Request;
use crate::support::tollgate::Tollgate;
use crate::support::{PATIENCE, eventually};

/// An authority, and a proxy with a certificate for `a.example` and these keys beside it.
fn listening(keys: &str) -> (Authority, Tollgate, Files) {
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("a", &["a.example"]));
    let tls = format!("tls: {{ certificates: {}, {keys} }}", files.yaml());
    let proxy = Tollgate::start(&format!(
        "workers: 1\nupstream: echo\nlisteners: {{ default: {{ address: '127.0.0.1:0', {tls} }} }}\n"
    ));
    (authority, proxy, files)
}

fn failures(proxy: &Tollgate, kind: &str) -> u64 {
    proxy.metrics().count("tollgate_tls_handshake_failures_total", &[("listener", "default"), ("kind", kind)])
}

fn handshakes(proxy: &Tollgate, state: &str) -> u64 {
    proxy.metrics().count("tollgate_tls_handshakes", &[("listener", "default"), ("state", state)])
}

/// The first bytes that a client sends.
fn client_hello(client: &TlsClient) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("a.example").expect("a name");
    let mut connection = rustls::ClientConnection::new(client.config(), name).expect("a client");
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("written");
    }
    hello
}

#[test]
fn a_name_that_no_certificate_is_for_is_refused_where_that_is_said() {
    let (authority, proxy, _) = listening("unknown_name: reject");
    let mut known = authority.client().to("a.example").connect(proxy.web()).expect("a handshake");
    assert_eq!(known.ask(&Request::get("/")).expect("an answer").status, 200);
    // One that names nobody asks for nothing that is known.
    for name in ["b.example", "x.a.example", "127.0.0.1"] {
        let Err(error) = authority.client().to(name).connect(proxy.web()) else { panic!("{name} is served") };
        assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}");
    }
    eventually("each of them counted", || (failures(&proxy, "unrecognized_name") == 3).then_some(()));
}

#[test]
fn host_and_the_name_that_was_asked_for_may_differ_since_all_of_a_listener_is_under_one_policy() {
    let authority = Authority::new();
    let names = ["a", "b"].map(|file| authority.sign(&Wanted::server(file, &["a.example", "b.example"])).yaml());
    let auth = format!("client_auth: {{ mode: require, ca: '{}' }}", authority.ca().display());
    let proxy = Tollgate::start(&format!(
        "workers: 1\nlisteners: {{ default: {{ address: '127.0.0.1:0', tls: {{ certificates: [{}], {auth} }} }} }}\n\
         routes: [{{ name: b, match: {{ host: b.example }}, upstream: echo }}]\n",
        names.join(", ")
    ));
    let (ann, client) = (authority.sign(&Wanted::client("ann", "Example", "ann")), authority.client().to("a.example"));
    let mut shown = client.clone().showing(&ann).connect(proxy.web()).expect("a handshake");
    // Whoever got here has shown a certificate, whatever name it asked for: there is nothing to be walked around.
    assert_eq!(shown.ask(&Request::get("/").host("b.example")).expect("an answer").status, 200);
    assert_eq!(shown.ask(&Request::get("/").host("a.example")).expect("an answer").status, 404);
    let bare = client.connect(proxy.web()).ok();
    assert!(bare.and_then(|mut client| client.ask(&Request::get("/").host("b.example")).ok()).is_none());
}

#[test]
fn only_so_many_handshakes_are_under_way_and_the_next_one_waits() {
    let (authority, proxy, _) = listening("max_handshakes: 1");
    let client = authority.client().to("a.example");
    let hello = client_hello(&client);
    // Who has not asked yet takes no turn, however many of them there are.
    let silent: Vec<_> = (0..20)
        .map(|number| {
            let mut stream = TcpStream::connect(proxy.web()).expect("connected");
            stream.write_all(&hello[..number * hello.len() / 20]).expect("sent");
            stream
        })
        .collect();
    let mut served = client.connect(proxy.web()).expect("a handshake beside silent ones");
    assert_eq!(served.ask(&Request::get("/").host("a.example")).expect("an answer").status, 200);
    // One that has asked and goes no further has the only turn.
    let mut stalled = TcpStream::connect(proxy.web()).expect("connected");
    stalled.write_all(&hello).expect("sent");
    eventually("its turn", || (handshakes(&proxy, "running") == 1).then_some(()));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.connect(proxy.web()).expect("a handshake in the end"));
        eventually("another one that waits", || (handshakes(&proxy, "waiting") == 1).then_some(()));
        assert!(!waiting.is_finished());
        drop(stalled);
        let mut served = waiting.join().expect("joined");
        assert_eq!(served.ask(&Request::get("/").host("a.example")).expect("an answer").status, 200);
    });
    let counts = || (handshakes(&proxy, "running"), handshakes(&proxy, "waiting"));
    eventually("no handshake", || (counts() == (0, 0)).then_some(()));
    drop(silent);
}

#[test]
fn who_asks_and_then_stalls_makes_room_when_there_is_none_left() {
    let (authority, proxy, _) = listening("max_handshakes: 3");
    let client = authority.client().to("a.example");
    let hello = client_hello(&client);
    let stalled: Vec<_> = (1..=3)
        .map(|number| {
            let mut stream = TcpStream::connect(proxy.web()).expect("connected");
            stream.write_all(&hello).expect("sent");
            eventually("its turn", || (handshakes(&proxy, "running") == number).then_some(()));
            stream
        })
        .collect();
    let mut served = client.connect(proxy.web()).expect("a handshake");
    assert_eq!(served.ask(&Request::get("/").host("a.example")).expect("an answer").status, 200);
    assert_eq!((failures(&proxy, "crowded_out"), failures(&proxy, "timeout")), (1, 0), "the last one's time was short");
    drop(stalled);
}

#[test]
fn a_first_message_without_end_is_cut_short() {
    let (_authority, proxy, _) = listening("");
    let mut stream = TcpStream::connect(proxy.web()).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    // A ClientHello of 16 MiB, in records as large as they may be (RFC 8446 §4, §5.1).
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    record.extend([1, 0xff, 0xff, 0xff]);
    record.resize(5 + (1 << 14), 0);
    let mut sent = 0;
    let refused = loop {
        match stream.write(&record) {
            Ok(written) => sent += written,
            Err(error) => break error.kind(),
        }
        record[5..9].fill(0);
        assert!(sent < 32 << 20, "{sent} bytes were taken");
    };
    assert!(matches!(refused, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused:?} after {sent} bytes");
    let _ = stream.read(&mut [0; 16]);
    eventually("a failure", || (failures(&proxy, "malformed") == 1).then_some(()));
}
