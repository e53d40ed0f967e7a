//! Clients with certificates: who is let in, and what is counted by `tls:subject`.

use crate::support::certificates::{Authority, Files, Wanted};
use crate::support::client::Request;
use crate::support::eventually;
use crate::support::tollgate::{Tollgate, finish, program};
use crate::support::upstream::Upstream;

/// An authority, a proxy that asks clients for certificates of it, and a listener without.
struct Asking {
    authority: Authority,
    proxy: Tollgate,
}

/// The proxy has these limits for all requests.
fn asking(mode: &str, limits: &str) -> Asking {
    asking_with(mode, &format!("upstream: echo\nlimits: [{limits}]\n"))
}

/// The proxy has these routes and limits.
fn asking_with(mode: &str, routes: &str) -> Asking {
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let auth = format!("{{ mode: {mode}, ca: '{}' }}", authority.ca().display());
    let tls = format!("tls: {{ certificates: {certificate}, client_auth: {auth} }}");
    let listeners = format!("listeners: {{ default: {{ address: '127.0.0.1:0', {tls} }}, plain: '127.0.0.1:0' }}");
    let proxy = Tollgate::start(&format!("workers: 1\n{listeners}\n{routes}"));
    Asking { authority, proxy }
}

impl Asking {
    fn client_of(&self, file: &'static str, name: &'static str) -> Files {
        self.authority.sign(&Wanted::client(file, "Example", name))
    }

    /// The status of a request on a connection of its own; `None` when there is no connection.
    fn ask(&self, shown: Option<&Files>) -> Option<u16> {
        let client = self.authority.client();
        let client = shown.map_or(client.clone(), |files| client.showing(files));
        // In TLS 1.3 a client learns that it was declined when it reads.
        let mut client = client.connect(self.proxy.web()).ok()?;
        client.ask(&Request::get("/")).ok().map(|answer| answer.status)
    }

    #[track_caller]
    fn declined(&self, kind: &str) {
        let labels = [("listener", "default"), ("kind", kind)];
        let count = || self.proxy.metrics().count("tollgate_tls_handshake_failures_total", &labels);
        eventually(&format!("a failure of kind {kind}"), || (count() == 1).then_some(()));
    }
}

const LIMIT: &str = "{ name: each, key: 'tls:subject', rate: 2/h, missing: deny }";

#[test]
fn without_a_certificate_that_holds_there_is_no_connection() {
    let asking = asking("require", LIMIT);
    let strangers = Authority::new();
    assert_eq!(asking.ask(None), None);
    asking.declined("no_certificate");
    assert_eq!(asking.ask(Some(&strangers.sign(&Wanted::client("stranger", "Example", "ann")))), None);
    asking.declined("certificate_unknown_issuer");
    assert_eq!(asking.ask(Some(&asking.authority.sign(&Wanted::client("old", "Example", "ann").expired()))), None);
    asking.declined("certificate_expired");
    assert_eq!(asking.ask(Some(&asking.authority.sign(&Wanted::server("server", &["localhost"])))), None);
    asking.declined("certificate_purpose");
    assert_eq!(asking.ask(Some(&asking.client_of("ann", "ann"))), Some(200));
}

#[test]
fn where_certificates_are_only_requested_one_that_is_shown_must_hold() {
    let asking = asking("request", LIMIT);
    assert_eq!(asking.ask(None), Some(429), "let in, but it has no key");
    let strangers = Authority::new();
    assert_eq!(asking.ask(Some(&strangers.sign(&Wanted::client("stranger", "Example", "ann")))), None);
    assert_eq!(asking.ask(Some(&asking.client_of("ann", "ann"))), Some(200));
}

#[test]
fn the_upstream_is_told_the_subject_that_was_verified_and_no_other() {
    let routes = "routes: [{ name: all, upstream: echo, request_headers: \
                  { set: { x-subject: '{tls.subject}', x-how: '{scheme} by {listener}' } } }]\n";
    let asking = asking_with("request", routes);
    let told = |shown: Option<&Files>| {
        let client = asking.authority.client();
        let client = shown.map_or(client.clone(), |files| client.showing(files));
        let mut client = client.connect(asking.proxy.web()).expect("a connection");
        let answer = client.ask(&Request::get("/").header("x-subject", "CN=forged")).expect("an answer");
        let fields = answer.json()["headers"].clone();
        assert_eq!(fields["x-how"], "https by default");
        fields.get("x-subject").map(|subject| subject.as_str().expect("text").to_owned())
    };
    assert_eq!(told(Some(&asking.client_of("ann", "ann"))).as_deref(), Some("CN=ann,O=Example"));
    assert_eq!(told(None), None);
}

#[test]
fn each_subject_is_counted_by_itself_however_many_certificates_it_has() {
    let asking = asking("require", LIMIT);
    let (old, new) = (asking.client_of("old", "ann"), asking.client_of("new", "ann"));
    let other = asking.client_of("other", "bob");
    // A name that would be the first one's, if commas were not escaped.
    let forged = asking.authority.sign(&Wanted::client("forged", "", "ann,O=Example"));
    let statuses = [&old, &new, &old, &new, &other, &forged].map(|files| asking.ask(Some(files)));
    assert_eq!(statuses, [Some(200), Some(200), Some(429), Some(429), Some(200), Some(200)]);
}

#[test]
fn a_request_without_a_subject_is_missing_its_key() {
    let asking = asking("request", "{ name: each, key: 'tls:subject | client_ip', rate: 2/h }");
    let ann = asking.client_of("ann", "ann");
    let nameless = asking.authority.sign(&Wanted::client("nameless", "", ""));
    // Clear text, no certificate, and one without a subject count by the address.
    let plain = || crate::support::client::get(asking.proxy.address("plain"), "/").status;
    assert_eq!((plain(), asking.ask(None), asking.ask(Some(&nameless))), (200, Some(200), Some(429)));
    assert_eq!((plain(), asking.ask(Some(&ann))), (429, Some(200)));
}

#[test]
fn an_override_names_a_subject_as_it_is_written() {
    let limit = "{ name: each, key: 'tls:subject', rate: 1/h, \
                 overrides: [{ key: ['CN=bob,O=Example'], rate: unlimited }, { key: ['CN=eve,O=Example'], rate: 0/s }] }";
    let asking = asking("require", limit);
    let [ann, bob, eve] = [("a", "ann"), ("b", "bob"), ("e", "eve")].map(|(file, name)| asking.client_of(file, name));
    let twice = |files| [asking.ask(Some(files)), asking.ask(Some(files))];
    assert_eq!(twice(&ann), [Some(200), Some(429)]);
    assert_eq!(twice(&bob), [Some(200), Some(200)]);
    assert_eq!(twice(&eve), [Some(429), Some(429)]);
}

#[test]
fn a_certificate_is_verified_on_every_connection() {
    let asking = asking("require", "{ name: each, key: 'tls:subject', rate: 100/s }");
    let ann = asking.client_of("ann", "ann");
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let versions: &'static [_] = versions.to_vec().leak();
        let client = asking.authority.client().showing(&ann).speaking(versions);
        let config = client.config();
        for _ in 0..3 {
            let mut client = client.connect_with(asking.proxy.web(), &config).expect("a handshake");
            assert_eq!(client.ask(&Request::get("/")).expect("an answer").status, 200);
            assert_ne!(client.get_ref().conn.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
        }
    }
}

#[test]
fn a_key_that_no_listener_provides_is_a_mistake() {
    let text = "listen: :8080\nupstream: echo\nlimits:\n  - { key: 'tls:subject | client_ip', rate: 1/s }\n";
    let done = finish(program().args(["check", "-c", "-"]), text);
    assert_eq!(done.code, Some(1));
    for part in ["<stdin>:4:12", "no listener asks for client certificates", "client_auth: { mode: require"] {
        assert!(done.output.contains(part), "{part} in\n{}", done.output);
    }
    let tiers = "listen: :8080\nupstream: echo\nlimits:\n  - key: client_ip\n    rate: 1/s\n    tiers:\n      \
                 by: 'tls:subject'\n      values: { CN=gateway: 9/s }\n";
    let done = finish(program().args(["check", "-c", "-"]), tiers);
    assert_eq!(done.code, Some(1));
    for part in ["<stdin>:7:11", "no listener asks for client certificates"] {
        assert!(done.output.contains(part), "{part} in\n{}", done.output);
    }
}

#[test]
fn a_limit_by_subject_is_explained() {
    let asking = asking("require", LIMIT);
    let path = asking.proxy.config_path();
    let explained = |more: &[&str]| {
        let arguments = ["explain", "GET", "https://localhost/", "-c"];
        finish(program().args(arguments).arg(&path).args(more), "").output
    };
    let text = explained(&["--tls-subject", "CN=ann,O=Example"]);
    assert!(text.contains("per subject of the client's certificate (without one: denied)"), "{text}");
    assert!(text.contains("counted under tls:subject=#") && !text.contains("CN=ann"), "{text}");
    assert!(explained(&[]).contains("does not carry its key"));
}

#[test]
fn upstreams_are_told_of_the_certificate_where_that_is_said_and_clients_tell_of_none() {
    use base64::Engine as _;
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let authority = Authority::new();
    let certificate = authority.sign(&Wanted::server("localhost", &["localhost"])).yaml();
    let listener = |forward: bool| {
        let auth = format!("{{ mode: request, ca: '{}', forward: {forward} }}", authority.ca().display());
        format!("{{ address: '127.0.0.1:0', tls: {{ certificates: {certificate}, client_auth: {auth} }} }}")
    };
    let proxy = Tollgate::start(&format!(
        "workers: 1\ntrusted_proxies: private\nupstream: {}\n\
         listeners: {{ telling: {}, silent: {}, plain: '127.0.0.1:0' }}\n",
        upstream.url(),
        listener(true),
        listener(false)
    ));
    let zoe = authority.sign(&Wanted::client("zoe", "Example, Inc.", "Zoë"));
    // Trusted proxies say where a request comes from, and still nothing of certificates.
    let forged = Request::get("/")
        .header("client-cert", ":AAAA:")
        .header("client-cert-chain", ":AAAA:")
        .header("x-client-cert-subject", "CN=admin")
        .header("X-Client_Cert_Subject", "CN=admin")
        .header("connection", "client-cert, x-client-cert-subject");
    let ask = |listener: &str, shown: Option<&Files>| {
        let client = shown.map_or(authority.client(), |files| authority.client().showing(files));
        let mut client = client.connect(proxy.address(listener)).expect("a handshake");
        assert_eq!(client.ask(&forged).expect("an answer").status, 200);
    };
    ask("telling", Some(&zoe));
    ask("telling", None);
    ask("silent", Some(&zoe));
    crate::support::client::Client::connect(proxy.address("plain")).send(&forged);
    let told = |name: &str| upstream.seen().iter().map(|arrived| arrived.field(name)).collect::<Vec<_>>();
    let der = base64::engine::general_purpose::STANDARD.encode(zoe.der());
    assert_eq!(told("client-cert"), [Some(format!(":{der}:")), None, None, None]);
    let subject = "CN=Zo\\c3\\ab,O=Example\\, Inc.".to_owned();
    assert_eq!(told("x-client-cert-subject"), [Some(subject), None, None, None]);
    for name in ["client-cert-chain", "x-client_cert_subject"] {
        assert_eq!(told(name), vec![None; 4], "{name}");
    }
}
