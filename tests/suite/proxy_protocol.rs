//! The PROXY protocol: whom it makes the client, who may send it, and what comes of anything else.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use tollgate::config::frames::Colour;
use tollgate::config::{Origin, expanded, parse};

use crate::support::certificates::{Authority, Wanted};
use crate::support::client::{Answer, Client, Request};
use crate::support::eventually;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Trusted in the tests; the other loopback addresses are not.
const TRUSTING: &str = "trusted_proxies: 127.0.0.1/32";

fn listening(mode: &str, keys: &str, rest: &str) -> Tollgate {
    let listener = format!("{{ address: '127.0.0.1:0', proxy_protocol: {mode}{keys} }}");
    Tollgate::start(&format!("workers: 1\nlisteners: {{ default: {listener} }}\n{TRUSTING}\n{rest}\n"))
}

/// A header of version 2 with this command, family and contents.
fn binary(command: u8, family: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, contents].concat()
}

/// The addresses of a header of version 2, with some TLVs behind them.
fn addresses(source: IpAddr) -> (u8, Vec<u8>) {
    let (family, mut bytes) = match source {
        IpAddr::V4(v4) => (0x11, [v4.octets(), Ipv4Addr::LOCALHOST.octets()].concat()),
        IpAddr::V6(v6) => (0x21, [v6.octets(), Ipv6Addr::LOCALHOST.octets()].concat()),
    };
    bytes.extend([0x12, 0x34, 0x01, 0xbb]);
    // A CRC-32C, an authority, a unique id (proxy-protocol.txt, 2.2).
    bytes.extend([0x03, 0, 4, 1, 2, 3, 4]);
    bytes.extend([0x02, 0, 1, b'a', 0x05, 0, 0]);
    (family, bytes)
}

/// Headers of both versions that tell of this client.
fn telling(source: &str) -> [Vec<u8>; 2] {
    let source: IpAddr = source.parse().expect("an address");
    let (word, to) = if source.is_ipv4() { ("TCP4", "127.0.0.1") } else { ("TCP6", "::1") };
    let (family, contents) = addresses(source);
    [format!("PROXY {word} {source} {to} 4660 443\r\n").into_bytes(), binary(0x21, family, &contents)]
}

/// A connection from this address of the loopback network.
fn from(source: [u8; 4], proxy: &Tollgate) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("a loopback address");
    socket.connect(&proxy.web().into()).expect("connected");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    Client::over(proxy.web(), stream)
}

/// The answer to a request behind this header.
fn ask(proxy: &Tollgate, header: &[u8], request: &Request) -> Answer {
    let mut client = proxy.client();
    client.write(&[header, &request.bytes()].concat()).expect("sent");
    client.answer_to("GET").expect("an answer")
}

fn refused(proxy: &Tollgate, reason: &str) -> u64 {
    let labels = [("listener", "default"), ("reason", reason)];
    proxy.metrics().count("tollgate_connections_refused_total", &labels)
}

/// Whether a connection ends without a byte.
fn is_closed(client: &mut Client) -> bool {
    match client.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn the_client_that_a_header_tells_is_the_client_everywhere() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let rest = format!(
        "access_log: {{ format: json }}\nupstream: {}\nlimits: [{{ key: client_ip, rate: 1/h }}]",
        upstream.url()
    );
    for mode in ["optional", "required"] {
        let proxy = listening(mode, "", &rest);
        for (number, source) in ["192.0.2.7", "2001:db8::7", "::ffff:198.51.100.9"].into_iter().enumerate() {
            let before = upstream.seen().len();
            // What the client says of itself is not believed: it is none of the trusted proxies.
            let request = Request::get("/").from("6.6.6.6");
            let [line, binary] = telling(source);
            let statuses = [line, binary].map(|header| ask(&proxy, &header, &request).status);
            assert_eq!(statuses, [200, 429], "{source}: both versions tell of one client");
            let told = upstream.seen()[before].field("x-forwarded-for").expect("told");
            let expected = source.trim_start_matches("::ffff:");
            assert_eq!(told, expected);
            assert_eq!(proxy.access_lines(number * 2 + 2)[number * 2]["client"], expected);
        }
    }
}

#[test]
fn a_check_of_the_proxy_itself_tells_of_nobody() {
    let proxy = listening("required", "", "upstream: echo");
    let (family, contents) = addresses("192.0.2.7".parse().expect("an address"));
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n".to_vec(),
        binary(0x20, 0, &[]),
        binary(0x20, family, &contents),
        binary(0x21, 0, &[]),
        binary(0x21, 0, &[0xff; 40]),
        // A Unix socket, a datagram.
        binary(0x21, 0x31, &[0; 216]),
        binary(0x21, 0x12, &contents),
    ];
    for header in headers {
        let answer = ask(&proxy, &header, &Request::get("/"));
        assert_eq!(answer.status, 200, "{header:?}");
        assert!(answer.text().contains("\"x-forwarded-for\": \"127.0.0.1\""), "{header:?}\n{}", answer.text());
    }
}

#[test]
fn a_header_may_come_byte_by_byte_and_with_anything_behind_it() {
    let proxy = listening("optional", "", "upstream: echo");
    for header in telling("192.0.2.7") {
        let mut client = proxy.client();
        for byte in header.iter().chain(&Request::get("/").bytes()) {
            client.write(&[*byte]).expect("sent");
        }
        assert!(client.answer_to("GET").expect("an answer").text().contains("192.0.2.7"));
        // HTTP/2 by prior knowledge: the server's preface is a SETTINGS frame (RFC 9113 §3.4).
        let mut client = proxy.client();
        client.write(&[&header, &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]].concat()).expect("sent");
        let mut frame = [0; 9];
        let mut read = 0;
        while read < frame.len() {
            read += client.read(&mut frame[read..]).expect("a frame");
        }
        assert_eq!(frame[3], 4, "{frame:?}");
    }
    // What only begins like a header is a request.
    for request in ["POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"]
    {
        let mut client = proxy.client();
        for byte in request.as_bytes() {
            client.write(&[*byte]).expect("sent");
        }
        assert_eq!(client.answer_to("GET").expect("an answer").status, 200, "{request:?}");
    }
}

#[test]
fn tls_begins_behind_the_header() {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let proxy = listening("required", &format!(", tls: {{ certificates: {certificate} }}"), "upstream: echo");
    for header in telling("192.0.2.7") {
        use std::io::Write;
        let mut stream = TcpStream::connect(proxy.web()).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
        stream.write_all(&header).expect("sent");
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(authority.client().config(), name).expect("a client");
        let mut client = Client::over(proxy.web(), StreamOwned::new(connection, stream));
        let answer = client.ask(&Request::get("/")).expect("an answer");
        assert!(answer.text().contains("\"x-forwarded-for\": \"192.0.2.7\""), "{}", answer.text());
    }
    let mut bare = Client::connect(proxy.web());
    bare.write(b"\x16\x03\x01").expect("sent");
    assert!(is_closed(&mut bare));
    eventually("counted", || (refused(&proxy, "proxy_protocol_missing") == 1).then_some(()));
}

#[test]
fn where_a_header_must_come_there_is_no_request_without_one() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = listening("required", "", &format!("upstream: {}", upstream.url()));
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    assert!(is_closed(&mut client));
    assert_eq!(refused(&proxy, "proxy_protocol_missing"), 1);
    // Nobody but a trusted proxy can send one.
    let mut stranger = from([127, 0, 0, 2], &proxy);
    let _ = stranger.write(&telling("192.0.2.7")[0]);
    assert!(is_closed(&mut stranger));
    assert_eq!(refused(&proxy, "proxy_protocol_untrusted"), 1);
    // A load balancer that only looks whether somebody listens is none of either.
    drop(proxy.client());
    eventually("counted", || (refused(&proxy, "proxy_protocol_closed") == 1).then_some(()));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn where_a_header_may_come_a_strangers_one_is_a_bad_request() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let optional = listening("optional", "", &format!("upstream: {}", upstream.url()));
    let never = listening("never", "", &format!("upstream: {}", upstream.url()));
    for header in telling("192.0.2.7") {
        for mut client in [from([127, 0, 0, 2], &optional), never.client()] {
            client.write(&[&header[..], &Request::get("/").bytes()].concat()).expect("sent");
            let answer = client.answer_to("GET").expect("an answer");
            assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{header:?}");
        }
    }
    assert_eq!(upstream.connections(), 0);
    for mut client in [from([127, 0, 0, 2], &optional), optional.client(), never.client()] {
        assert_eq!(client.ask(&Request::get("/")).expect("an answer").status, 200, "without one all are served");
    }
}

#[test]
fn what_cannot_be_read_ends_the_connection() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = listening("optional", "", &format!("upstream: {}", upstream.url()));
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes();
    let lines = [
        "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n",
        "PROXY  TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n",
        "PROXY TCP4 192.0.2.07 192.0.2.1 1 2\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
        "PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
        "PROXY \r\n",
    ];
    let (family, contents) = addresses("192.0.2.7".parse().expect("an address"));
    let mut headers: Vec<_> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    headers.extend([
        long,
        binary(0x11, family, &contents),
        binary(0x22, family, &contents),
        binary(0x21, 0x13, &contents),
        binary(0x21, 0x41, &contents),
        // Shorter than its addresses, and longer than anybody's.
        binary(0x21, 0x11, &contents[..11]),
        binary(0x21, 0x21, &contents),
        binary(0x21, 0x11, &[0; 5_000]),
    ]);
    let count = u64::try_from(headers.len()).expect("a few");
    for header in headers {
        let mut client = proxy.client();
        let _ = client.write(&[&header[..], &Request::get("/").bytes()].concat());
        assert!(is_closed(&mut client), "{header:?}");
    }
    assert_eq!(refused(&proxy, "proxy_protocol_malformed"), count);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_header_that_does_not_come_in_time_is_not_waited_for() {
    let proxy = listening("optional", ", header_timeout: 300ms", "upstream: echo");
    let mut count = 0;
    for header in telling("192.0.2.7") {
        for part in [0, 5, header.len() - 1] {
            let mut client = proxy.client();
            client.write(&header[..part]).expect("sent");
            assert!(is_closed(&mut client), "{part} bytes of {header:?}");
            count += 1;
            assert_eq!(refused(&proxy, "proxy_protocol_timeout"), count);
        }
    }
}

#[test]
fn who_has_not_said_a_word_does_not_hold_up_the_end() {
    let proxy = listening("required", ", header_timeout: 5m", "upstream: echo\nshutdown: { grace: 5m }");
    let mut silent: Vec<_> = [&b""[..], b"PROXY TCP4"]
        .into_iter()
        .map(|begun| {
            let mut client = proxy.client();
            client.write(begun).expect("sent");
            client
        })
        .collect();
    let idle = || proxy.metrics().count("tollgate_connections", &[("listener", "default"), ("state", "idle")]);
    eventually("both", || (idle() == 2).then_some(()));
    assert_eq!(proxy.stop(), Some(0));
    assert!(silent.iter_mut().all(is_closed));
}

#[test]
fn connections_are_counted_by_the_address_that_is_told() {
    let proxy = listening("required", ", max_connections_per_ip: 1", "upstream: echo");
    let open = |source: &str| {
        let mut client = proxy.client();
        client.write(&[&telling(source)[1][..], &Request::get("/").bytes()].concat()).expect("sent");
        client
    };
    let mut first = open("192.0.2.7");
    assert_eq!(first.answer_to("GET").expect("an answer").status, 200);
    assert!(is_closed(&mut open("192.0.2.7")));
    assert_eq!(refused(&proxy, "max_connections_per_ip"), 1);
    assert_eq!(open("192.0.2.8").answer_to("GET").expect("an answer").status, 200);
    drop(first);
    eventually("room", || open("192.0.2.7").answer_to("GET").ok());
}

#[test]
fn what_a_configuration_says_of_the_protocol_is_checked_and_printed() {
    let said = |mode: &str, trusting: &str| {
        let text =
            format!("upstream: echo\nlisteners: {{ web: {{ address: ':80', proxy_protocol: {mode} }} }}\n{trusting}\n");
        match parse(&text, &Origin::Arguments, &|_| None) {
            Ok(loaded) => format!("accepted\n{}{}", loaded.warnings.render(Colour::Plain), expanded(&loaded.config)),
            Err(report) => report.render(Colour::Plain),
        }
    };
    for (mode, trusting, expected) in [
        ("required", TRUSTING, "proxy_protocol: required"),
        ("optional", TRUSTING, "proxy_protocol: optional"),
        ("never", "", "proxy_protocol: never"),
        ("required", "", "nobody can connect"),
        ("optional", "", "no header is ever believed"),
        ("always", TRUSTING, "never, optional, required"),
    ] {
        let said = said(mode, trusting);
        assert!(said.contains(expected), "`{expected}` is missing for {mode}\n{said}");
    }
}
