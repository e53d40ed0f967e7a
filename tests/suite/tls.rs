//! TLS on listeners: which certificate, which version, which protocol; what is refused and counted; and
//! what a configuration may not say.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::task::Poll;
use std::time::Instant;

use hyper::rt::Write as _;
use rustls::HandshakeKind;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tollgate::config::frames::Colour;
use tollgate::config::{Origin, expanded, parse};
use tollgate::proxy::inbound::{Clocks, Inbound};
use tollgate::proxy::socket::Socket;
use tollgate::proxy::transport::Transport;

use crate::support::certificates::{Authority, TlsClient, Wanted};
use crate::support::client::{Client, Request};
use crate::support::tollgate::{Tollgate, finish, program};
use crate::support::upstream::{SWITCHING, Upstream};
use crate::support::{PATIENCE, eventually};

static ONLY_12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
static ONLY_13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A listener `default` with these keys beside its address; what follows stands at the top.
fn listening(keys: &str, rest: &str) -> Tollgate {
    let rest = if rest.contains("upstream:") { rest.to_owned() } else { format!("upstream: echo\n{rest}") };
    Tollgate::start(&format!("workers: 1\nlisteners: {{ default: {{ address: '127.0.0.1:0', {keys} }} }}\n{rest}\n"))
}

/// An authority, and a proxy with one certificate of it, for `localhost`.
fn simple(rest: &str) -> (Authority, Tollgate) {
    let authority = Authority::new();
    let localhost = authority.sign(&Wanted::server("localhost", &["localhost"]));
    let proxy = listening(&format!("tls: {{ certificates: {} }}", localhost.yaml()), rest);
    (authority, proxy)
}

/// How many handshakes failed this way, once any did.
fn failures(proxy: &Tollgate, kind: &str) -> u64 {
    proxy.metrics().count("tollgate_tls_handshake_failures_total", &[("listener", "default"), ("kind", kind)])
}

#[track_caller]
fn failed(proxy: &Tollgate, kind: &str) {
    eventually(&format!("a failure of kind {kind}"), || (failures(proxy, kind) == 1).then_some(()));
}

#[test]
fn a_request_over_tls_arrives_as_https_in_either_version() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let (authority, proxy) = simple(&format!("upstream: {}\n", upstream.url()));
    for (index, (versions, spoken)) in
        [(ONLY_12, rustls::ProtocolVersion::TLSv1_2), (ONLY_13, rustls::ProtocolVersion::TLSv1_3)]
            .into_iter()
            .enumerate()
    {
        let mut client = authority.client().speaking(versions).connect(proxy.web()).expect("a handshake");
        assert_eq!(client.get_ref().conn.protocol_version(), Some(spoken));
        for _ in 0..2 {
            assert_eq!(client.ask(&Request::get("/")).expect("an answer").text(), "ok");
        }
        let arrived = upstream.seen().remove(index * 2);
        assert_eq!(arrived.field("x-forwarded-proto").as_deref(), Some("https"));
    }
    let not_after = proxy.metrics().sum("tollgate_certificate_not_after_seconds", &[("name", "localhost")]);
    assert!(not_after > 1_700_000_000.0, "{not_after}");
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate_and_an_unknown_one_gets_the_first() {
    let authority = Authority::new();
    let first = authority.sign(&Wanted::server("first", &["first.example", "unknown.test", "127.0.0.1"]));
    let exact = authority.sign(&Wanted::server("exact", &["www.b.example"]));
    let wildcard = authority.sign(&Wanted::server("wildcard", &["*.b.example"]));
    let listed = [&first, &exact, &wildcard].map(crate::support::certificates::Files::yaml).join(", ");
    let proxy = listening(&format!("tls: {{ certificates: [{listed}] }}"), "");
    for (name, expected) in [
        ("first.example", &first),
        ("www.b.example", &exact),
        ("api.b.example", &wildcard),
        ("API.B.example", &wildcard),
        ("unknown.test", &first),
        // A client that connects to an address names nobody.
        ("127.0.0.1", &first),
    ] {
        let mut client = authority.client().to(name).connect(proxy.web()).expect(name);
        assert_eq!(client.get_ref().conn.peer_certificates().expect("a chain")[0], expected.der(), "{name}");
        assert_eq!(client.ask(&Request::get("/").host(name)).expect("an answer").status, 200, "{name}");
    }
    // Two labels are no match for a wildcard: the first certificate is shown, and the client declines.
    assert!(authority.client().to("x.y.b.example").connect(proxy.web()).is_err());
    failed(&proxy, "alert");
}

#[test]
fn the_protocol_is_what_both_agreed_on_and_nothing_else() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let tls = format!("tls: {{ certificates: [{certificate}] }}");
    let agreed = |proxy: &Tollgate, offer: &[&str]| {
        let client = authority.client().offering(offer).connect(proxy.web());
        client
            .map(|client| client.get_ref().conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()))
    };
    let both = listening(&tls, "");
    assert_eq!(agreed(&both, &["http/1.1", "h2"]).expect("a handshake").as_deref(), Some("h2"));
    assert_eq!(agreed(&both, &["http/1.1"]).expect("a handshake").as_deref(), Some("http/1.1"));
    assert_eq!(agreed(&both, &[]).expect("a handshake"), None);
    assert!(agreed(&both, &["spdy/3"]).is_err());
    failed(&both, "no_application_protocol");
    let h1 = listening(&format!("protocols: h1, {tls}"), "");
    assert_eq!(agreed(&h1, &["h2", "http/1.1"]).expect("a handshake").as_deref(), Some("http/1.1"));
    assert!(agreed(&h1, &["h2"]).is_err());
    let h2 = listening(&format!("protocols: h2, {tls}"), "");
    assert!(agreed(&h2, &["http/1.1"]).is_err());

    // Who agreed on one must not speak the other.
    for (proxy, offer, sent) in [
        (&both, &["h2"][..], &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..]),
        (&both, &["http/1.1"], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (&both, &[], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (&h2, &[], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let mut client = authority.client().offering(offer).connect(proxy.web()).expect("a handshake");
        client.write(sent).expect("sent");
        let refused = client.head().expect("an answer").status;
        assert!(matches!(refused, 400 | 505), "{refused} to {sent:?} after {offer:?}");
    }
}

#[test]
fn http2_over_tls_carries_requests_and_large_bodies() {
    let (authority, proxy) = simple("");
    let config = authority.client().offering(&["h2"]).config();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(proxy.web()).await.expect("connected");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.expect("a handshake");
        let (sender, connection) = h2::client::handshake(stream).await.expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        let mut sender = sender.ready().await.expect("a stream");
        let request = http::Request::post("https://localhost/x").body(()).expect("a request");
        let (response, mut body) = sender.send_request(request, false).expect("sent");
        for _ in 0..64 {
            body.reserve_capacity(16 << 10);
            while body.capacity() < 16 << 10 {
                std::future::poll_fn(|cx| body.poll_capacity(cx)).await.expect("room").expect("room");
            }
            body.send_data(vec![b'x'; 16 << 10].into(), false).expect("sent");
        }
        body.send_data(bytes::Bytes::new(), true).expect("sent");
        let (head, mut body) = response.await.expect("a response").into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend(data.expect("data"));
        }
        (head.status.as_u16(), String::from_utf8(text).expect("text"))
    };
    let (status, text) = runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await.expect("in time") });
    assert_eq!(status, 200);
    assert!(text.contains("\"body_size\": 1048576") && text.contains("\"x-forwarded-proto\": \"https\""), "{text}");
}

#[test]
fn bodies_of_many_records_pass_both_ways() {
    const SIZE: usize = 8 << 20;
    let upstream = Upstream::answering(|peer, request| {
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len()))?;
        peer.send(&request.body)
    });
    let (authority, proxy) = simple(&format!("upstream: {}\n", upstream.url()));
    let mut client = authority.client().connect(proxy.web()).expect("a handshake");
    let body: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
    let answer = client.ask(&Request::post("/", &body)).expect("an answer");
    assert!(answer.body == body, "{} bytes came back of {SIZE}", answer.body.len());
}

#[test]
fn what_tls_still_holds_is_not_flushed() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let text =
        format!("upstream: echo\nlisteners: {{ a: {{ address: :8443, tls: {{ certificates: {certificate} }} }} }}\n");
    let Ok(loaded) = parse(&text, &Origin::Arguments, &|_| None) else { panic!("refused") };
    let tls = loaded.config.listeners[0].tls.as_ref().expect("TLS").live.now().server.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (go, told) = channel::<()>();
    let client = std::thread::spawn(move || {
        let mut client = authority.client().connect(address).expect("a handshake");
        told.recv_timeout(PATIENCE).expect("full");
        client.rest().len()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let written = runtime.block_on(async {
        let stream = listener.accept().expect("a client").0;
        socket2::SockRef::from(&stream).set_send_buffer_size(1 << 14).expect("a small buffer");
        stream.set_nonblocking(true).expect("a socket");
        let stream = Socket::from(tokio::net::TcpStream::from_std(stream).expect("a socket"));
        let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.expect("a handshake");
        let clocks = Clocks::new(PATIENCE, PATIENCE);
        let mut inbound = Inbound::new(Transport::Tls(Box::new(stream)), 1 << 15, clocks);
        inbound.open_up();
        let mut written = 0;
        let full = std::future::poll_fn(|cx| {
            while written < 64 << 20 {
                match Pin::new(&mut inbound).poll_write(cx, &[7; 1 << 13]) {
                    Poll::Ready(more) => written += more.expect("written"),
                    Poll::Pending => return Poll::Ready(false),
                }
                if Pin::new(&mut inbound).poll_flush(cx).is_pending() {
                    return Poll::Ready(true);
                }
            }
            Poll::Ready(false)
        });
        assert!(full.await, "{written} bytes were taken and said to be sent, though nobody reads");
        go.send(()).expect("told");
        std::future::poll_fn(|cx| Pin::new(&mut inbound).poll_flush(cx)).await.expect("flushed");
        written
    });
    assert_eq!(client.join().expect("joined"), written);
}

#[test]
fn a_version_below_the_oldest_is_refused() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let proxy = listening(&format!("tls: {{ certificates: [{certificate}], min_version: '1.3' }}"), "");
    assert!(authority.client().speaking(ONLY_12).connect(proxy.web()).is_err());
    failed(&proxy, "protocol_version");
    assert!(authority.client().speaking(ONLY_13).connect(proxy.web()).is_ok());
}

#[test]
fn clear_text_on_a_tls_port_is_told_so() {
    let (_authority, proxy) = simple("");
    let mut client = Client::connect(proxy.web());
    let answer = client.ask(&Request::get("/")).expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert!(answer.list("proxy-status").contains("details=\"plaintext\""), "{answer:?}");
    assert_eq!(client.rest(), b"");
    failed(&proxy, "plaintext");
    // And the other way round: a handshake where clear text is spoken.
    let plain = Tollgate::start("listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n");
    assert!(Authority::new().client().connect(plain.web()).is_err());
    assert_eq!(plain.get("/").status, 200);
}

#[test]
fn slow_handshakes_are_nobody_elses_concern_and_end_by_their_clock() {
    let (authority, proxy) = simple("");
    let hello = client_hello(&authority.client());
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut stream = TcpStream::connect(proxy.web()).expect("connected");
            // Some say nothing, some stop in the middle of their first message.
            stream.write_all(&hello[..number % 3 * hello.len() / 4]).expect("sent");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream
        })
        .collect();
    for _ in 0..20 {
        let mut client = authority.client().connect(proxy.web()).expect("a handshake beside slow ones");
        assert_eq!(client.ask(&Request::get("/")).expect("an answer").status, 200);
    }
    let served = begun.elapsed();
    assert_eq!(failures(&proxy, "timeout"), 0, "all of them are still at it");
    for stream in &mut slow {
        // What the proxy has not read of a message makes its close a reset.
        let ended = stream.read(&mut [0; 16]).map_err(|error| error.kind());
        assert!(matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
    }
    eventually("each of them counted", || (failures(&proxy, "timeout") == 100).then_some(()));
    println!(
        "20 connections beside 100 slow handshakes in {served:?}; the slow ones ended after {:?}",
        begun.elapsed()
    );
}

/// The first bytes that a client sends.
fn client_hello(client: &TlsClient) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut connection = rustls::ClientConnection::new(client.config(), name).expect("a client");
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("written");
    }
    hello
}

#[test]
fn a_session_is_resumed_on_its_own_listener_and_has_no_early_data() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let tls = format!("tls: {{ certificates: [{certificate}] }}");
    let listener = format!("{{ address: '127.0.0.1:0', {tls} }}");
    let proxy =
        Tollgate::start(&format!("workers: 2\nupstream: echo\nlisteners: {{ one: {listener}, two: {listener} }}\n"));
    for versions in [ONLY_12, ONLY_13] {
        let client = authority.client().speaking(versions);
        let config = client.config();
        let kind = |address: SocketAddr| {
            let mut client = client.connect_with(address, &config).expect("a handshake");
            assert_eq!(client.ask(&Request::get("/")).expect("an answer").status, 200);
            assert!(!client.get_ref().conn.is_early_data_accepted());
            client.get_ref().conn.handshake_kind().expect("it is over")
        };
        assert!(matches!(kind(proxy.address("one")), HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest));
        for _ in 0..4 {
            assert_eq!(kind(proxy.address("one")), HandshakeKind::Resumed, "on whichever worker");
        }
        assert_ne!(kind(proxy.address("two")), HandshakeKind::Resumed);
    }
}

#[test]
fn an_idle_connection_ends_with_a_word_and_not_with_a_cut() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let proxy = listening(&format!("idle_timeout: 300ms, tls: {{ certificates: [{certificate}] }}"), "");
    let mut client = authority.client().connect(proxy.web()).expect("a handshake");
    assert_eq!(client.ask(&Request::get("/")).expect("an answer").status, 200);
    // An end without close_notify would be an error.
    assert_eq!(client.read(&mut [0; 16]).expect("an orderly end"), 0);
}

#[test]
fn a_websocket_passes_through_tls() {
    let upstream = Upstream::start(|peer| {
        peer.request()?;
        peer.send(format!("{SWITCHING}\r\n"))?;
        let mut total = 0;
        while total < 1 << 20 {
            let mut buffer = [0; 4096];
            let read = peer.read(&mut buffer)?;
            total += read;
            peer.send(&buffer[..read])?;
        }
        peer.finish()?;
        peer.rest().map(drop)
    });
    let (authority, proxy) = simple(&format!("upstream: {}\n", upstream.url()));
    let mut client = authority.client().connect(proxy.web()).expect("a handshake");
    client
        .write(b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .expect("sent");
    assert_eq!(client.head().expect("an answer").status, 101);
    for number in 0..64_u8 {
        let frame = [number; 16 << 10];
        client.write(&frame).expect("sent");
        client.expect(&frame);
    }
    assert_eq!(client.read(&mut [0; 16]).expect("the upstream's end is passed on as an orderly one"), 0);
    assert_eq!(upstream.only().field("x-forwarded-proto").as_deref(), Some("https"));
}

/// What is said about a listener with this `tls:`.
fn said(tls: &str) -> String {
    let text = format!("upstream: echo\nlisteners:\n  web:\n    address: :8443\n    tls: {tls}\n");
    match parse(&text, &Origin::Arguments, &|_| None) {
        Ok(loaded) => format!("accepted\n{}", loaded.warnings.render(Colour::Plain)),
        Err(report) => report.render(Colour::Plain),
    }
}

#[test]
fn what_cannot_be_used_is_refused_where_it_stands() {
    let authority = Authority::new();
    let good = authority.sign(&Wanted::server("good", &["a.example"]));
    let other = authority.sign(&Wanted::server("other", &["b.example"]));
    let nameless = authority.sign(&Wanted::server("nameless", &[]));
    let expired = authority.sign(&Wanted::server("expired", &["a.example"]).expired());
    let (empty, ca) = (authority.write("empty.pem", ""), authority.ca());
    let (good_yaml, empty, ca, key) = (good.yaml(), empty.display(), ca.display(), good.key.display());
    let mismatch = format!("{{ cert: '{}', key: '{}' }}", good.cert.display(), other.key.display());
    for (tls, expected) in [
        ("{}".to_owned(), &["`tls` has no certificate", "`certificates: ["][..]),
        ("{ certificates: [] }".to_owned(), &["`tls` has no certificate"]),
        ("{ certificates: { cert: /nowhere/a.pem } }".to_owned(), &["needs its key", "cannot read `/nowhere/a.pem`"]),
        (format!("{{ certificates: {mismatch} }}"), &["does not belong to the certificate"]),
        (format!("{{ certificates: {{ cert: '{empty}', key: '{key}' }} }}"), &["holds no certificate", "PEM"]),
        (format!("{{ certificates: {good_yaml}, min_version: '1.1' }}"), &["`1.1`", "1.2, 1.3"]),
        (format!("{{ certificates: {good_yaml}, client_auth: {{ mode: maybe }} }}"), &["`maybe`", "request"]),
        (format!("{{ certificates: {good_yaml}, client_auth: {{ ca: '{ca}' }} }}"), &["does not say what is asked"]),
        // Nobody would be kept out.
        (format!("{{ certificates: {good_yaml}, client_auth: {{ mode: require }} }}"), &["whose client", "`ca: FILE`"]),
        (
            format!("{{ certificates: {good_yaml}, client_auth: {{ mode: require, ca: '{empty}' }} }}"),
            &["holds no certificate"],
        ),
        (
            format!("{{ certificates: {good_yaml}, client_auth: {{ mode: request, ca: /nowhere/ca.pem }} }}"),
            &["cannot read `/nowhere/ca.pem`"],
        ),
        (
            format!("{{ certificates: {good_yaml}, client_auth: {{ mode: none, ca: '{ca}' }} }}"),
            &["accepted", "no effect"],
        ),
        (
            format!("{{ certificates: {} }}", expired.yaml()),
            &["error: this certificate has expired, on 2021-01-01", "renew"],
        ),
        (format!("{{ certificates: [{good_yaml}, {}] }}", nameless.yaml()), &["accepted", "no client gets this"]),
        (format!("{{ certificates: [{}, {good_yaml}] }}", nameless.yaml()), &["accepted"]),
    ] {
        let said = said(&tls);
        for expected in expected {
            assert!(said.contains(expected), "`{expected}` is missing for\n{tls}\n{said}");
        }
    }
}

#[test]
fn a_proxy_whose_authorities_are_gone_does_not_start() {
    let authority = Authority::new();
    let good = authority.sign(&Wanted::server("good", &["localhost"])).yaml();
    let empty = authority.write("empty.pem", "");
    let text = format!(
        "upstream: echo\nlisteners: {{ web: {{ address: '127.0.0.1:0', tls: {{ certificates: {good}, \
         client_auth: {{ mode: require, ca: '{}' }} }} }} }}\n",
        empty.display()
    );
    let done = finish(program().args(["run", "-c", "-"]), &text);
    assert_eq!(done.code, Some(1), "{}", done.errors);
    assert!(done.errors.contains("holds no certificate") && !done.errors.contains("listening"), "{}", done.errors);
}

#[test]
fn the_expanded_form_holds_the_files_and_means_the_same() {
    let authority = Authority::new();
    let certificates = [Wanted::server("a", &["a.example"]), Wanted::server("b", &["b.example"])];
    let listed = certificates.map(|wanted| authority.sign(&wanted).yaml()).join(", ");
    let auth = format!("{{ mode: request, ca: '{}' }}", authority.ca().display());
    let tls = format!("tls: {{ certificates: [{listed}], min_version: '1.3', client_auth: {auth} }}");
    let text = format!("upstream: echo\nlisteners: {{ web: {{ address: :8443, stream_idle_timeout: 5m, {tls} }} }}\n");
    let read = |text: &str| match parse(text, &Origin::Arguments, &|_| None) {
        Ok(loaded) => expanded(&loaded.config),
        Err(report) => panic!("{}", report.render(Colour::Plain)),
    };
    let first = read(&text);
    assert_eq!(read(&first), first);
    for part in ["/a.pem", "/b.key", "min_version: \"1.3\"", "mode: request", "stream_idle_timeout: 5m"] {
        assert!(first.contains(part), "{part} in\n{first}");
    }
    assert!(!first.contains("PRIVATE KEY"));
}

#[test]
fn a_configuration_that_is_printed_for_debugging_shows_no_key() {
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("a", &["a.example"]));
    let text = format!(
        "upstream: echo\nlisteners: {{ web: {{ address: :8443, tls: {{ certificates: {} }} }} }}\n",
        files.yaml()
    );
    let Ok(loaded) = parse(&text, &Origin::Arguments, &|_| None) else { panic!("refused") };
    let shown = format!("{:?}", loaded.config);
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    let key = key.secret_der();
    // An octet string of 32 bytes: the private number of an elliptic curve (RFC 5915 §3).
    let at = key.windows(2).position(|pair| pair == [0x04, 0x20]).expect("a private number") + 2;
    let number = &key[at..at + 32];
    let digits: Vec<_> = number.iter().map(|byte| format!("{byte:02x}")).collect();
    for written in [digits.concat(), format!("{number:?}").trim_matches(['[', ']']).to_owned()] {
        assert!(!shown.contains(&written), "{written} in\n{shown}");
    }
}
