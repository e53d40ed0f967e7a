//! TLS towards upstream servers: whom the proxy believes, what it shows, and which names it asks for.

use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixListener;

use tungstenite::Message;

use crate::support::certificates::{Authority, Files, Wanted};
use crate::support::client::Answer;
use crate::support::tls_front::{Manner, TlsFront};
use crate::support::tollgate::{Tollgate, field, finish, program};
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server behind TLS, and who signed its certificate.
struct Scene {
    authority: Authority,
    upstream: Upstream,
    front: TlsFront,
}

fn scene(wanted: &Wanted, alpn: &[&[u8]]) -> Scene {
    let authority = Authority::new();
    let files = authority.sign(wanted);
    let upstream = Upstream::replying(OK);
    let front = TlsFront::before(upstream.address(), &Manner { files: &files, alpn, clients: None });
    Scene { authority, upstream, front }
}

fn local() -> Wanted {
    Wanted::server("server", &["localhost"])
}

/// A proxy in front of `url` with these keys of its upstream.
fn in_front_of(url: &str, keys: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ api: {{ servers: ['{url}'], {keys} }} }}\nupstream: api\n"
    ))
}

fn believing(authority: &Authority, more: &str) -> String {
    format!("tls: {{ ca: '{}'{more} }}", authority.ca().display())
}

/// The answer is ours, with this error in Proxy-Status, and the log says why.
fn assert_refused(proxy: &Tollgate, answer: &Answer, error: &str, why: &str) {
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(answer.header("proxy-status"), Some(&*format!("tollgate; error={error}")));
    let line = proxy.wait_for_log("the reason", |line| field(line, "message") == "upstream server fails");
    assert!(field(&line, "error").contains(why), "{line}");
}

#[test]
fn a_server_whose_certificate_holds_is_asked_and_its_connection_kept() {
    let scene = scene(&local(), &[b"http/1.1"]);
    let proxy = in_front_of(&scene.front.url(), &believing(&scene.authority, ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/").status, 200);
    let shown = scene.front.seen();
    assert_eq!(shown.len(), 1, "one handshake: {shown:?}");
    assert_eq!(shown[0].name.as_deref(), Some("localhost"));
    assert_eq!(shown[0].alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(scene.upstream.seen()[0].field("x-forwarded-proto").as_deref(), Some("http"));
}

#[test]
fn a_server_without_alpn_speaks_http1() {
    let scene = scene(&local(), &[]);
    let proxy = in_front_of(&scene.front.url(), &believing(&scene.authority, ""));
    assert_eq!(proxy.get("/").status, 200);
    let proxy = in_front_of(&scene.front.url(), &format!("protocol: h2, {}", believing(&scene.authority, "")));
    let answer = proxy.get("/");
    assert_refused(&proxy, &answer, "http_protocol_error", "does not speak the protocol");
}

#[test]
fn a_certificate_that_cannot_be_believed_is_502_and_nothing_is_sent() {
    for (wanted, why) in [
        (local().expired(), "it has expired"),
        (Wanted::server("server", &["other.example"]), "it is for another name"),
    ] {
        let scene = scene(&wanted, &[]);
        let proxy = in_front_of(&scene.front.url(), &believing(&scene.authority, ""));
        let answer = proxy.get("/");
        assert_refused(&proxy, &answer, "tls_certificate_error", why);
        assert!(scene.upstream.seen().is_empty());
    }
    let (scene, other) = (scene(&local(), &[]), Authority::new());
    let proxy = in_front_of(&scene.front.url(), &believing(&other, ""));
    let answer = proxy.get("/");
    assert_refused(&proxy, &answer, "tls_certificate_error", "signed by nobody that is believed here");
}

#[test]
fn a_server_that_speaks_no_tls_is_502() {
    let upstream = Upstream::closing_after(OK);
    let url = upstream.url().replace("http://", "https://");
    let proxy = in_front_of(&url, &believing(&Authority::new(), ""));
    let answer = proxy.get("/");
    assert_refused(&proxy, &answer, "tls_protocol_error", "TLS handshake failed");
}

#[test]
fn another_name_can_be_asked_for() {
    let scene = scene(&Wanted::server("server", &["api.internal"]), &[]);
    let url = format!("https://127.0.0.1:{}", scene.front.port());
    let proxy = in_front_of(&url, &believing(&scene.authority, ", server_name: api.internal"));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(scene.front.seen()[0].name.as_deref(), Some("api.internal"));
}

#[test]
fn a_certificate_is_shown_to_a_server_that_asks_for_one() {
    let authority = Authority::new();
    let files = authority.sign(&local());
    let upstream = Upstream::replying(OK);
    let ca = authority.ca();
    let front = TlsFront::before(upstream.address(), &Manner { files: &files, alpn: &[], clients: Some(&ca) });
    let own: Files = authority.sign(&Wanted::client("proxy", "Acme", "proxy"));
    let shown = format!(", cert: '{}', key: '{}'", own.cert.display(), own.key.display());
    let proxy = in_front_of(&front.url(), &believing(&authority, &shown));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(front.seen()[0].certificate, Some(own.der()));

    let without = in_front_of(&front.url(), &believing(&authority, ""));
    assert_eq!(without.get("/").status, 502);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn what_is_not_verified_is_said_at_every_start() {
    let scene = scene(&local().expired(), &[]);
    let proxy = in_front_of(&scene.front.url(), "tls: { insecure_skip_verify: true }");
    assert_eq!(proxy.get("/").status, 200);
    proxy.wait_for_log("the warning", |line| {
        field(line, "level") == "WARN" && line.to_string().contains("are not verified")
    });
}

#[test]
fn a_websocket_passes_through_tls_to_a_server_that_prefers_http2() {
    let authority = Authority::new();
    let files = authority.sign(&local());
    let upstream = Upstream::answering(|peer, request| {
        let mut socket = peer.websocket(request)?;
        let message = socket.read().map_err(std::io::Error::other)?;
        socket.send(message).map_err(std::io::Error::other)
    });
    let alpn: &[&[u8]] = &[b"h2", b"http/1.1"];
    let front = TlsFront::before(upstream.address(), &Manner { files: &files, alpn, clients: None });
    let proxy = in_front_of(&front.url(), &believing(&authority, ""));
    let stream = std::net::TcpStream::connect(proxy.web()).unwrap();
    let (mut socket, _) = tungstenite::client(format!("ws://{}/", proxy.web()), stream).expect("an upgrade");
    socket.send(Message::text("through")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("through"));
    assert_eq!(front.seen()[0].alpn.as_deref(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_unix_socket_is_an_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        for _ in 0..2 {
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            head.clear();
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: unix:{}\n", path.display()));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(client.get("/").text(), "ok", "the connection is kept");
    let gone = Tollgate::start("listen: 127.0.0.1:0\nworkers: 1\nupstream: unix:/nowhere/app.sock\n");
    assert_eq!(gone.get("/").status, 502);
}

#[test]
fn servers_are_told_whose_connection_it_is_where_they_want_to_know() {
    let (told, headers) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::start(move |peer| {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let _ = told.lock().unwrap().send(String::from_utf8(line).unwrap());
        peer.request()?;
        peer.send(OK)?;
        peer.closed()
    });
    let proxy = in_front_of(&upstream.url(), "proxy_protocol: v1");
    let mut client = proxy.client();
    let own = client.get_ref().local_addr().unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("/").status, 200);
        let line = headers.recv().unwrap();
        assert_eq!(line, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), proxy.web().port()));
    }
    assert_eq!(upstream.connections(), 2, "no connection serves two clients");
}

/// What `check` says of these keys of an upstream at `https://localhost:1`.
fn said(keys: &str) -> String {
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ api: {{ servers: ['https://localhost:1'], {keys} }} }}\nupstream: api\n"
    );
    let finished = finish(program().args(["check", "-c", "-"]), &yaml);
    assert_eq!(finished.code, Some(1), "{}", finished.output);
    finished.output + &finished.errors
}

#[test]
fn what_cannot_be_used_is_refused_where_it_stands() {
    let authority = Authority::new();
    let own = authority.sign(&Wanted::client("proxy", "Acme", "proxy"));
    let other = authority.sign(&Wanted::client("other", "Acme", "other"));
    let (cert, key) = (own.cert.display(), other.key.display());
    for (keys, says) in [
        ("tls: { ca: /nowhere.pem }".to_owned(), "cannot read `/nowhere.pem`"),
        (format!("tls: {{ ca: '{}' }}", own.key.display()), "holds no certificate"),
        (format!("tls: {{ cert: '{cert}' }}"), "a certificate needs its key"),
        (format!("tls: {{ cert: '{cert}', key: '{key}' }}"), "does not belong to the certificate"),
        ("tls: { server_name: 'a b' }".to_owned(), "no name that a certificate could have"),
        ("protocol: h2c".to_owned(), "write `h2`"),
    ] {
        let text = said(&keys);
        assert!(text.contains(says), "{keys}: {text}");
    }
    let yaml = "listen: 127.0.0.1:0\nupstreams: { api: { servers: ['http://a:1'], tls: {} } }\nupstream: api\n";
    let finished = finish(program().args(["check", "-c", "-"]), yaml);
    assert!((finished.output + &finished.errors).contains("no server's address begins with https://"));
}

#[test]
fn the_expanded_form_means_the_same() {
    let authority = Authority::new();
    let own = authority.sign(&Wanted::client("proxy", "Acme", "proxy"));
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstream: api\nupstreams:\n  api:\n    servers: ['https://a:1', 'https://b', 'http://c', \
         'unix:/run/x.sock']\n    protocol: h2\n    tls: {{ ca: '{}', cert: '{}', key: '{}', server_name: x.example, \
         min_version: \"1.3\" }}\n    idle_timeout: 3s\n    max_connection_age: 10m\n",
        authority.ca().display(),
        own.cert.display(),
        own.key.display(),
    );
    let print = |yaml: &str| {
        let finished = finish(program().args(["check", "-c", "-", "--print"]), yaml);
        assert_eq!(finished.code, Some(0), "{}", finished.errors);
        finished.output
    };
    let printed = print(&yaml);
    for line in ["https://a:1", "https://b:443", "http://c:80", "unix:/run/x.sock", "server_name: \"x.example\"", "10m"]
    {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    assert_eq!(print(&printed), printed);
}
