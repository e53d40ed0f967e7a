//! Listeners on Unix sockets: the file, and clients that have no address.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate::config::frames::Colour;
use tollgate::config::{Origin, expanded, parse};

use crate::support::certificates::{Authority, Wanted};
use crate::support::client::{Answer, Client, Request};
use crate::support::eventually;
use crate::support::tollgate::{Tollgate, finish, program};
use crate::support::upstream::{SWITCHING, Upstream};

/// A directory for a socket, and the configuration of a listener there.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("tollgate.sock")
    }

    fn yaml(&self, rest: &str) -> String {
        let rest = if rest.contains("upstream:") { rest.to_owned() } else { format!("upstream: echo\n{rest}") };
        format!(
            "workers: 2\nlisteners: {{ default: {{ address: 'unix:{}', mode: '0600' }} }}\n{rest}\n",
            self.socket().display()
        )
    }

    fn start(&self, rest: &str) -> Tollgate {
        Tollgate::start(&self.yaml(rest))
    }

    fn client(&self) -> Client<UnixStream> {
        connect(&self.socket())
    }

    fn ask(&self, request: &Request) -> Answer {
        self.client().ask(request).expect("an answer")
    }
}

fn connect(path: &Path) -> Client<UnixStream> {
    let stream = UnixStream::connect(path).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    Client::over(SocketAddr::from(([0, 0, 0, 0], 0)), stream)
}

#[test]
fn requests_are_served_from_all_workers_and_the_file_goes_with_the_process() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let place = Place::new();
    let proxy = place.start(&format!("access_log: {{ format: json }}\nupstream: {}", upstream.url()));
    assert_eq!(std::fs::metadata(place.socket()).expect("a file").permissions().mode() & 0o777, 0o600);
    let mut kept: Vec<_> = (0..40).map(|_| place.client()).collect();
    for client in &mut kept {
        for _ in 0..2 {
            assert_eq!(client.ask(&Request::get("/")).expect("an answer").text(), "ok");
        }
    }
    let arrived = upstream.seen().remove(0);
    // There is no address to tell of.
    let told = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(|name| arrived.field(name));
    assert_eq!(told, [None, Some("http".to_owned()), Some("localhost".to_owned())]);
    assert_eq!(proxy.access_lines(80)[0]["client"], "unix");
    drop(kept);
    assert_eq!(proxy.stop(), Some(0));
    assert!(!place.socket().exists(), "the file is gone");
}

#[test]
fn what_a_killed_process_left_is_replaced_and_a_living_one_is_not() {
    let place = Place::new();
    let mut killed = place.start("");
    killed.signal("KILL");
    killed.wait();
    assert!(place.socket().exists(), "nobody has tidied up");
    let _second = place.start("");
    assert_eq!(place.ask(&Request::get("/")).status, 200);
    let third = finish(program().args(["run", "-c", "-"]), &place.yaml("admin: none"));
    assert_eq!(third.code, Some(1), "{}", third.errors);
    assert!(third.errors.contains("another process listens there"), "{}", third.errors);
    assert_eq!(place.ask(&Request::get("/")).status, 200, "the one before is not disturbed");
    let other = Place::new();
    std::fs::write(other.socket(), "mine").expect("written");
    let refused = finish(program().args(["run", "-c", "-"]), &other.yaml("admin: none"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("no socket"), "{}", refused.errors);
    assert_eq!(std::fs::read(other.socket()).expect("still there"), b"mine");
}

#[test]
fn a_request_in_flight_is_answered_after_the_file_is_gone() {
    let (go, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::answering(move |peer, _| {
        let _ = told.lock().expect("one").recv_timeout(Duration::from_secs(15));
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
    });
    let place = Place::new();
    let proxy = place.start(&format!("upstream: {}", upstream.url()));
    let mut client = place.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("the upstream", || (upstream.connections() == 1).then_some(()));
    proxy.signal("TERM");
    eventually("no file", || (!place.socket().exists()).then_some(()));
    go.send(()).expect("told");
    assert_eq!(client.answer_to("GET").expect("an answer").text(), "late");
    assert_eq!(proxy.stop(), Some(0));
}

#[test]
fn clients_without_an_address_are_one_client_unless_a_limit_says_otherwise() {
    let limits = ["", ", missing: deny", ", missing: skip"]
        .iter()
        .zip(["shared", "denied", "skipped"])
        .map(|(missing, name)| {
            format!("{{ name: {name}, key: client_ip, rate: 2/h, match: {{ path: /{name} }}{missing} }}")
        })
        .collect::<Vec<_>>();
    let place = Place::new();
    let _proxy = place.start(&format!("limits: [{}]", limits.join(", ")));
    // Nobody is trusted: what a client says of itself is nothing.
    let ask = |path: &str| {
        let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        addresses.map(|address| place.ask(&Request::get(path).from(address)).status)
    };
    assert_eq!(ask("/shared"), [200, 200, 429]);
    assert_eq!(ask("/denied"), [429, 429, 429]);
    assert_eq!(ask("/skipped"), [200, 200, 200]);
}

#[test]
fn a_trusted_process_tells_who_its_clients_are() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let place = Place::new();
    let proxy = place.start(&format!(
        "access_log: {{ format: json }}\ntrusted_proxies: [unix]\nupstream: {}\n\
         limits: [{{ key: client_ip, rate: 1/h }}]",
        upstream.url()
    ));
    let statuses = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "6.6.6.6, 192.0.2.2"]
        .map(|address| place.ask(&Request::get("/").from(address)).status);
    assert_eq!(statuses, [200, 429, 200, 429]);
    let told = upstream.seen().iter().map(|arrived| arrived.field("x-forwarded-for")).collect::<Vec<_>>();
    assert_eq!(told, ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.to_owned())), "as they came");
    assert_eq!(proxy.access_lines(4)[2]["client"], "192.0.2.2");
}

#[test]
fn a_load_balancer_behind_a_socket_tells_clients_in_its_header() {
    let place = Place::new();
    let _proxy = Tollgate::start(&format!(
        "workers: 1\nupstream: echo\ntrusted_proxies: unix\nlimits: [{{ key: client_ip, rate: 1/h }}]\n\
         listeners: {{ default: {{ address: 'unix:{}', proxy_protocol: required }} }}\n",
        place.socket().display()
    ));
    let ask = |header: &str| {
        let mut client = place.client();
        client.write(&[header.as_bytes(), &Request::get("/").from("6.6.6.6").bytes()].concat()).expect("sent");
        client.answer_to("GET").ok()
    };
    let telling = |source: &str| format!("PROXY TCP4 {source} 192.0.2.100 4711 80\r\n");
    let told = ask(&telling("192.0.2.1")).expect("an answer");
    assert!(told.text().contains("\"x-forwarded-for\": \"192.0.2.1\""), "{}", told.text());
    let statuses = ["192.0.2.1", "192.0.2.2"].map(|source| ask(&telling(source)).map(|answer| answer.status));
    assert_eq!(statuses, [Some(429), Some(200)]);
    assert!(ask("").is_none(), "without a header there is no answer");
}

#[test]
fn tls_and_tunnels_pass_through_a_socket() {
    let upstream = Upstream::start(|peer| {
        peer.request()?;
        peer.send(format!("{SWITCHING}\r\n"))?;
        peer.expect(b"ping")?;
        peer.send("pong")?;
        peer.rest().map(drop)
    });
    let (authority, place) = (Authority::new(), Place::new());
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let _proxy = Tollgate::start(&format!(
        "workers: 1\nupstream: {}\n\
         listeners: {{ default: {{ address: 'unix:{}', tls: {{ certificates: {certificate} }} }} }}\n",
        upstream.url(),
        place.socket().display()
    ));
    let name = "localhost".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(authority.client().config(), name).expect("a client");
    let stream = UnixStream::connect(place.socket()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    let mut client = Client::over(SocketAddr::from(([0, 0, 0, 0], 0)), rustls::StreamOwned::new(connection, stream));
    let upgrade = Request::get("/ws").header("connection", "upgrade").header("upgrade", "websocket");
    client.write(&upgrade.bytes()).expect("sent");
    assert_eq!(client.head().expect("an answer").status, 101);
    client.write(b"ping").expect("sent");
    client.expect(b"pong");
    assert_eq!(upstream.only().field("x-forwarded-proto").as_deref(), Some("https"));
}

#[test]
fn what_a_configuration_says_of_sockets_is_checked_and_printed() {
    let said = |text: &str| match parse(text, &Origin::Arguments, &|_| None) {
        Ok(loaded) => {
            let printed = expanded(&loaded.config);
            let Ok(again) = parse(&printed, &Origin::Arguments, &|_| None) else { panic!("not read again: {printed}") };
            assert_eq!(expanded(&again.config), printed);
            format!("accepted\n{}{printed}", loaded.warnings.render(Colour::Plain))
        }
        Err(report) => report.render(Colour::Plain),
    };
    for (listeners, expected) in [
        ("a: { address: 'unix:/run/a.sock' }", &["accepted", "address: \"unix:/run/a.sock\"", "mode: \"0660\""][..]),
        ("a: { address: 'unix:/run/a.sock', mode: '0666' }", &["accepted", "mode: \"0666\""]),
        ("a: 'unix:/run/a.sock', b: 'unix:/run/a.sock'", &["has this address already"]),
        ("a: 'unix:run/a.sock'", &["names no socket", "the whole path"]),
        ("a: 'unix:'", &["names no socket"]),
        ("a: { address: 'unix:/a', mode: '0999' }", &["no file mode", "\"0660\""]),
        ("a: { address: ':80', mode: '0600' }", &["belongs to a Unix socket"]),
    ] {
        let said = said(&format!("upstream: echo\nlisteners: {{ {listeners} }}\n"));
        for expected in expected {
            assert!(said.contains(expected), "`{expected}` is missing for {listeners}\n{said}");
        }
    }
    let long = format!("listen: 'unix:/{}'\nupstream: echo\n", "x".repeat(120));
    assert!(said(&long).contains("longer than 100 bytes"));
    assert!(said("listen: :80\nupstream: echo\ntrusted_proxies: [unix]\n").contains("no listener is a Unix socket"));
    let by_address = "listen: 'unix:/a'\nupstream: echo\nlimits: [{ key: client_ip, rate: 1/s }]\n";
    assert!(said(by_address).contains("count all of them as one"));
    assert!(!said(&format!("{by_address}trusted_proxies: unix\n")).contains("count all of them as one"));
    let trusting = said("listen: 'unix:/a'\nupstream: echo\ntrusted_proxies: [unix, 10.0.0.0/8]\n");
    assert!(trusting.contains("trusted_proxies: [\"10.0.0.0/8\", \"unix\"]"), "{trusting}");
}
