//! The proxy before programs that know nothing of it: nghttp and h2load (nghttp2), testssl.sh.

use std::process::{Command, Output, Stdio};

use crate::support::certificates::{Authority, Wanted};
use crate::support::h2_upstream::{H2Upstream, Service};
use crate::support::tollgate::Tollgate;

/// A proxy with a clear-text listener and one with TLS, both before a server of HTTP/2.
struct Scene {
    proxy: Tollgate,
    _authority: Authority,
    _upstream: H2Upstream,
}

fn scene() -> Scene {
    let authority = Authority::new();
    let files = authority.sign(&Wanted::server("server", &["localhost"]));
    let upstream = H2Upstream::start(Service::clear(), |mut exchange| async move {
        // What pages say of themselves is not the proxy's to say.
        let response = http::Response::builder()
            .header("strict-transport-security", "max-age=31536000; includeSubDomains")
            .header("x-frame-options", "DENY")
            .header("x-content-type-options", "nosniff")
            .header("content-security-policy", "default-src 'self'")
            .header("referrer-policy", "no-referrer");
        let mut stream = exchange.respond.send_response(response.body(()).expect("fields"), false).expect("sent");
        stream.send_data(bytes::Bytes::from_static(b"hello"), true).expect("sent");
    });
    let proxy = Tollgate::start(&format!(
        "listeners:\n  default: 127.0.0.1:0\n  secure: {{ address: 127.0.0.1:0, tls: {{ certificates: {} }} }}\n\
         workers: 2\nupstream: api\nupstreams: {{ api: {{ servers: '{}', protocol: h2 }} }}\n",
        files.yaml(),
        upstream.url("http")
    ));
    Scene { proxy, _authority: authority, _upstream: upstream }
}

/// Runs a program that must be there.
fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program} must be installed: {error}"))
}

impl Scene {
    /// Both listeners: in clear text and over TLS.
    fn urls(&self) -> [String; 2] {
        [format!("http://{}/", self.proxy.web()), format!("https://{}/", self.proxy.address("secure"))]
    }
}

#[test]
fn nghttp_speaks_http2_in_clear_text_and_over_tls() {
    let scene = scene();
    for url in scene.urls() {
        let output = run("nghttp", &["--verbose", "--no-verify-peer", &url]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(":status: 200") && text.contains("hello"), "{url}: {text}");
        assert!(!text.contains("GOAWAY frame <") || text.contains("NO_ERROR"), "{url}: {text}");
    }
}

#[test]
fn every_request_of_h2load_succeeds() {
    let scene = scene();
    for url in scene.urls() {
        let output = run("h2load", &["-n", "4000", "-c", "20", "-m", "20", &url]);
        let text = String::from_utf8_lossy(&output.stdout);
        let requests = "requests: 4000 total, 4000 started, 4000 done, 4000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(
            text.contains(requests) && text.contains("status codes: 4000 2xx, 0 3xx, 0 4xx, 0 5xx"),
            "{url}: {text}"
        );
    }
}

/// What testssl.sh finds because of the authority that the test made up, or because it has no way out.
const OF_THE_TEST: [&str; 8] = [
    "cert_trust",
    "cert_chain_of_trust",
    "cert_revocation",
    "cert_crlDistributionPoints",
    "cert_ocspURL",
    "OCSP_stapling",
    "cert_validityPeriod",
    "DNS_CAArecord",
];

#[test]
fn testssl_finds_nothing_of_medium_severity_or_above() {
    let scene = scene();
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report.json");
    let address = scene.proxy.address("secure");
    let host = format!("localhost:{}", address.port());
    let arguments =
        ["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--severity", "LOW", "--jsonfile"];
    let output = run("testssl", &[&arguments[..], &[report.to_str().expect("text"), &host]].concat());
    let text = std::fs::read_to_string(&report).unwrap_or_else(|error| {
        panic!("testssl wrote no report: {error}\n{}", String::from_utf8_lossy(&output.stdout))
    });
    let findings: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("TLS 1.3") && said.contains("offered (OK): final"), "it looked: {said}");
    let found = |finding: &&serde_json::Value| {
        let (id, severity) = (finding["id"].as_str().unwrap_or(""), finding["severity"].as_str().unwrap_or(""));
        let of_the_test = OF_THE_TEST.iter().any(|known| id.starts_with(known));
        matches!(severity, "MEDIUM" | "HIGH" | "CRITICAL" | "FATAL") && !of_the_test
    };
    let found: Vec<_> = findings.iter().filter(found).collect();
    assert!(found.is_empty(), "{found:#?}");
}
