//! Traces: which spans a request has and where they belong, who decides about them, and that a collector never
//! holds requests up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind::{Client, Internal, Server};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};

use crate::support::client::Request;
use crate::support::collector::{Behaviour, Collector, hex, told};
use crate::support::eventually;
use crate::support::grpc::{GrpcClient, GrpcServer};
use crate::support::h2_upstream::{H2Upstream, Service};
use crate::support::port::Port;
use crate::support::tollgate::{Tollgate, tollgate};
use crate::support::upstream::{SWITCHING, Upstream};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A proxy that traces; more keys stand at the top of its file.
fn tracing(collector: &Collector, upstream: &Upstream, more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\ntracing: {{ otlp: '{}' }}\n{more}\n",
        upstream.url(),
        collector.url()
    ))
}

fn answering() -> Upstream {
    Upstream::answering(|peer, _| peer.answer("ok"))
}

fn sent(sampled: &str) -> Request {
    let request = Request::get("/a").header("traceparent", &format!("00-{TRACE}-{CALLER}-{sampled}"));
    request.header("tracestate", "vendor=1")
}

/// The `traceparent` that a span's own requests carry.
fn field(span: &Span) -> String {
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

#[test]
fn a_request_is_a_span_with_its_limit_check_and_its_attempt_below() {
    let (collector, upstream) = (Collector::start(), answering());
    let proxy = tracing(&collector, &upstream, "limits: [{ name: two, key: client_ip, rate: 2/h }]");
    let request = Request::get("/things/7?token=secret-value").header("user-agent", "probe/1");
    let answer = proxy.client().send(&request.header("authorization", "Bearer secret-token"));
    let trace = collector.trace(3);
    let (server, check, client) = (trace.only(Server), trace.only(Internal), trace.only(Client));
    assert!(server.parent_span_id.is_empty() && server.trace_state.is_empty() && server.links.is_empty());
    assert_eq!((&check.parent_span_id, &client.parent_span_id), (&server.span_id, &server.span_id));
    for (span, name, value) in [
        (server, "http.request.method", "GET"),
        (server, "url.path", "/things/7"),
        (server, "url.scheme", "http"),
        (server, "server.address", "localhost"),
        (server, "client.address", "127.0.0.1"),
        (server, "network.protocol.version", "1.1"),
        (server, "user_agent.original", "probe/1"),
        (server, "http.response.status_code", "200"),
        (server, "tollgate.route", "default"),
        (server, "tollgate.request_id", answer.header("x-request-id").expect("an id")),
        (server, "error.type", ""),
        (check, "tollgate.limit", "two"),
        (check, "tollgate.limit.decision", "allowed"),
        (check, "tollgate.limit.remaining", "1"),
        (client, "http.request.method", "GET"),
        (client, "http.response.status_code", "200"),
        (client, "server.address", "127.0.0.1"),
        (client, "server.port", &upstream.address().port().to_string()),
        (client, "url.full", &format!("{}/things/7?REDACTED", upstream.url())),
        (client, "http.request.resend_count", ""),
    ] {
        assert_eq!(told(span, name), value, "{name} of {}", span.name);
    }
    assert_eq!((client.name.as_str(), check.name.as_str()), ("GET", "limit check"));
    let within = |inner: &Span| {
        inner.start_time_unix_nano >= server.start_time_unix_nano
            && inner.start_time_unix_nano <= inner.end_time_unix_nano
            && inner.end_time_unix_nano <= server.end_time_unix_nano
    };
    assert!(within(check) && within(client) && check.end_time_unix_nano <= client.start_time_unix_nano);
    assert!(![server, check, client].into_iter().any(failed));
    assert_eq!(upstream.only().field("traceparent"), Some(field(client)));
    assert_eq!(upstream.only().field("tracestate"), None);
    assert_eq!(collector.services(), ["tollgate"]);
    let everything = format!("{:?}", collector.spans());
    assert!(!everything.contains("secret-value") && !everything.contains("secret-token"), "{everything}");
}

#[test]
fn a_route_gives_its_name_or_its_path_to_the_span() {
    let collector = Collector::start();
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\ntracing: {{ otlp: '{}', service_name: edge }}\nroutes:\n\
         \x20 - {{ name: things, match: {{ path: '/things/{{id}}' }}, respond: {{ status: 204 }} }}\n\
         \x20 - {{ name: some, match: {{ path: [/a, /b] }}, respond: {{ status: 204 }} }}\n",
        collector.url()
    ));
    for (path, name, template) in
        [("/things/7", "GET /things/{id}", "/things/{id}"), ("/b", "GET some", ""), ("/nothing", "GET", "")]
    {
        let before = collector.count();
        proxy.get(path);
        eventually("a span", || (collector.count() > before).then_some(()));
        let span = collector.spans().pop().expect("a span");
        assert_eq!((span.name.as_str(), told(&span, "http.route").as_str()), (name, template));
    }
    proxy.client().send(&Request::new("BREW", "/b"));
    eventually("the last one", || (collector.count() == 4).then_some(()));
    let span = collector.spans().pop().expect("a span");
    assert_eq!(told(&span, "http.request.method"), "_OTHER");
    assert_eq!((told(&span, "http.request.method_original").as_str(), span.name.as_str()), ("BREW", "HTTP some"));
    assert!(collector.services().iter().all(|service| service == "edge"));
}

#[test]
fn a_trusted_client_names_the_trace_and_decides_about_it() {
    let (collector, upstream) = (Collector::start(), answering());
    let trusting = "trusted_proxies: [127.0.0.1/32]\naccess_log: {}";
    let proxy = tracing(&collector, &upstream, trusting);
    proxy.client().send(&sent("00"));
    let arrived = upstream.only();
    assert_eq!(arrived.field("traceparent"), Some(format!("00-{TRACE}-{CALLER}-00")), "as it was");
    assert_eq!(arrived.field("tracestate").as_deref(), Some("vendor=1"));
    proxy.client().send(&sent("01"));
    let trace = collector.trace(2);
    let (server, client) = (trace.only(Server), trace.only(Client));
    assert_eq!((hex(&server.trace_id).as_str(), hex(&server.parent_span_id).as_str()), (TRACE, CALLER));
    assert_eq!((server.trace_state.as_str(), client.trace_state.as_str()), ("vendor=1", "vendor=1"));
    assert_eq!((server.flags, client.flags), (0x301, 0x101), "only the first one's parent is elsewhere");
    assert_eq!(upstream.seen()[1].field("traceparent"), Some(field(client)));
    assert_eq!(upstream.seen()[1].field("tracestate").as_deref(), Some("vendor=1"));
    let lines = proxy.access_lines(2);
    assert_eq!((&lines[0]["trace_id"], &lines[1]["trace_id"]), (&serde_json::Value::Null, &TRACE.into()));
}

#[test]
fn a_trusted_clients_decision_stands_whatever_share_is_sampled() {
    let (collector, upstream) = (Collector::start(), answering());
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: {}\ntrusted_proxies: [127.0.0.1/32]\n\
         tracing: {{ otlp: '{}', sample: 0% }}\n",
        upstream.url(),
        collector.url()
    ));
    proxy.get("/");
    let own = upstream.only().field("traceparent").expect("upstreams are told that nobody records");
    assert!(own.len() == 55 && own.ends_with("-00"), "{own}");
    proxy.client().send(&sent("01"));
    assert_eq!(hex(&collector.trace(2).only(Server).trace_id), TRACE);
}

#[test]
fn the_trace_of_an_untrusted_client_is_linked_and_not_continued() {
    let (collector, upstream) = (Collector::start(), answering());
    let proxy = tracing(&collector, &upstream, "");
    proxy.client().send(&sent("00"));
    let trace = collector.trace(2);
    let server = trace.only(Server);
    assert_ne!(hex(&server.trace_id), TRACE);
    assert!(server.parent_span_id.is_empty() && server.trace_state.is_empty());
    assert_eq!(server.links.len(), 1);
    assert_eq!((hex(&server.links[0].trace_id).as_str(), hex(&server.links[0].span_id).as_str()), (TRACE, CALLER));
    assert_eq!(upstream.only().field("traceparent"), Some(field(trace.only(Client))));
    assert_eq!(upstream.only().field("tracestate"), None, "it belongs to the other trace");
}

#[test]
fn a_malformed_traceparent_is_replaced_and_its_state_with_it() {
    for bad in ["00-0-0-01", "", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"] {
        let (collector, upstream) = (Collector::start(), answering());
        let proxy = tracing(&collector, &upstream, "trusted_proxies: [127.0.0.1/32]");
        proxy.client().send(&Request::get("/").header("traceparent", bad).header("tracestate", "vendor=1"));
        let trace = collector.trace(2);
        assert!(trace.only(Server).parent_span_id.is_empty() && trace.only(Server).links.is_empty());
        assert_eq!(upstream.only().field("traceparent"), Some(field(trace.only(Client))));
        assert_eq!(upstream.only().field("tracestate"), None);
    }
}

#[test]
fn without_tracing_the_fields_pass_as_they_are() {
    let upstream = answering();
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    proxy.client().send(&sent("01"));
    assert_eq!(upstream.only().field("traceparent"), Some(format!("00-{TRACE}-{CALLER}-01")));
    assert_eq!(upstream.only().field("tracestate").as_deref(), Some("vendor=1"));
    assert!(!proxy.metrics().has("tollgate_trace_spans_total"));
}

#[test]
fn a_route_may_keep_the_trace_from_a_server() {
    let (collector, upstream) = (Collector::start(), answering());
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\ntracing: {{ otlp: '{}' }}\n\
         routes: [{{ name: partner, upstream: '{}', request_headers: {{ remove: traceparent }} }}]\n",
        collector.url(),
        upstream.url()
    ));
    proxy.get("/");
    collector.trace(2);
    assert_eq!(upstream.only().field("traceparent"), None);
}

#[test]
fn each_attempt_is_a_span_and_the_server_is_told_which() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |peer, _| match count.fetch_add(1, Ordering::SeqCst) {
        0 => peer.send("HTTP/1.1 503 x\r\ncontent-length: 4\r\n\r\nbusy"),
        1 => Err(std::io::ErrorKind::BrokenPipe.into()),
        _ => peer.answer("ok"),
    });
    let collector = Collector::start();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\ntracing: {{ otlp: '{}' }}\n\
         upstreams: {{ api: {{ servers: ['{}'], idle_timeout: 1us, health: {{ passive: none }} }} }}\n\
         routes: [{{ name: all, upstream: api, retries: {{ attempts: 2, retry_on: [503, reset] }} }}]\n",
        collector.url(),
        upstream.url()
    ));
    assert_eq!(proxy.get("/").status, 200);
    let trace = collector.trace(4);
    let server = trace.only(Server);
    let attempts = trace.of(Client);
    assert_eq!(attempts.len(), 3);
    let all = |name: &str| attempts.iter().map(|span| told(span, name)).collect::<Vec<_>>();
    assert_eq!(all("http.request.resend_count"), ["", "1", "2"]);
    assert_eq!(all("http.response.status_code"), ["503", "", "200"]);
    assert_eq!(all("error.type"), ["503", "reset", ""]);
    assert_eq!(attempts.iter().map(|span| failed(span)).collect::<Vec<_>>(), [true, true, false]);
    assert!(attempts.iter().all(|span| span.parent_span_id == server.span_id));
    assert!(attempts.windows(2).all(|pair| pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano));
    let fields: Vec<_> = upstream.seen().iter().map(|arrived| arrived.field("traceparent")).collect();
    assert_eq!(fields, attempts.iter().map(|span| Some(field(span))).collect::<Vec<_>>());
    assert!(!failed(server));
    assert_eq!(told(server, "http.response.status_code"), "200");
}

/// The second stream is refused unseen, so that its request is sent again on another connection.
#[test]
fn a_request_that_is_sent_again_on_another_connection_has_two_attempts() {
    let refused = AtomicBool::new(false);
    let upstream = H2Upstream::start(Service::clear(), move |mut exchange| {
        let refuse = exchange.request.uri().path() == "/refuse" && !refused.swap(true, Ordering::SeqCst);
        async move {
            if refuse {
                return exchange.respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            exchange.respond.send_response(http::Response::new(()), true).expect("sent");
        }
    });
    let collector = Collector::start();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ api: {{ servers: ['{}'], protocol: h2 }} }}\nupstream: api\n\
         tracing: {{ otlp: '{}' }}\n",
        upstream.url("http"),
        collector.url()
    ));
    assert_eq!((proxy.get("/first").status, proxy.get("/refuse").status), (200, 200));
    let spans = eventually("both requests", || Some(collector.spans()).filter(|spans| spans.len() == 5));
    let server = spans.iter().find(|span| told(span, "url.path") == "/refuse").expect("a span");
    let mut attempts: Vec<_> = spans.iter().filter(|span| span.parent_span_id == server.span_id).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    let all = |name: &str| attempts.iter().map(|span| told(span, name)).collect::<Vec<_>>();
    assert_eq!(all("error.type"), ["connection_ended", ""]);
    assert_eq!(all("http.request.resend_count"), ["", "1"]);
    assert_eq!(all("http.response.status_code"), ["", "200"]);
    let seen = upstream.seen();
    let refused = seen.iter().filter(|request| request.uri().path() == "/refuse");
    let fields: Vec<_> =
        refused.map(|request| request.headers()["traceparent"].to_str().expect("text").to_owned()).collect();
    assert_eq!(fields, attempts.iter().map(|span| field(span)).collect::<Vec<_>>());
}

#[test]
fn a_client_that_leaves_is_no_failure_of_ours() {
    let (go_on, told_to) = std::sync::mpsc::channel::<()>();
    let told_to = std::sync::Mutex::new(told_to);
    let upstream = Upstream::answering(move |_, _| {
        let _ = told_to.lock().expect("one request").recv();
        Ok(())
    });
    let collector = Collector::start();
    let proxy = tracing(&collector, &upstream, "");
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("it arrived", || (!upstream.seen().is_empty()).then_some(()));
    drop(client);
    let trace = collector.trace(2);
    for span in &trace.0 {
        assert_eq!(
            (told(span, "error.type").as_str(), told(span, "http.response.status_code").as_str()),
            ("client_left", "")
        );
        assert!(!failed(span));
    }
    drop(go_on);
}

#[test]
fn a_denied_request_has_no_attempt_and_is_no_failure() {
    let (collector, upstream) = (Collector::start(), answering());
    let proxy = tracing(&collector, &upstream, "limits: [{ name: none, key: client_ip, rate: 0/s }]");
    assert_eq!(proxy.get("/").status, 429);
    let trace = collector.trace(2);
    let (server, check) = (trace.only(Server), trace.only(Internal));
    assert_eq!(told(check, "tollgate.limit.decision"), "denied");
    assert_eq!(
        (told(server, "http.response.status_code"), told(server, "tollgate.error")),
        ("429".into(), "limited".into())
    );
    assert_eq!(told(server, "error.type"), "");
    assert!(!failed(server) && !failed(check));
}

#[test]
fn what_went_wrong_is_told_where_it_did() {
    let (collector, nobody) = (Collector::start(), Port::take());
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: {}\ntracing: {{ otlp: '{}' }}\n",
        nobody.url(),
        collector.url()
    ));
    assert_eq!(proxy.get("/").status, 502);
    let trace = collector.trace(2);
    let (server, client) = (trace.only(Server), trace.only(Client));
    assert_eq!(
        (told(client, "error.type"), told(client, "http.response.status_code")),
        ("connect".into(), String::new())
    );
    assert_eq!((told(server, "error.type"), told(server, "tollgate.error")), ("502".into(), "connect".into()));
    assert!(failed(server) && failed(client));
}

#[test]
fn an_attempt_lasts_as_long_as_its_body_and_one_cut_short_says_so() {
    let upstream = Upstream::start(|peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\npart")
    });
    let collector = Collector::start();
    let proxy = tracing(&collector, &upstream, "");
    assert!(proxy.client().exchange(&Request::get("/")).is_err(), "it is cut");
    let trace = collector.trace(2);
    let (server, client) = (trace.only(Server), trace.only(Client));
    for span in [server, client] {
        assert_eq!(told(span, "error.type"), "response_broke_off");
        assert_eq!(told(span, "http.response.status_code"), "200");
        assert!(failed(span));
    }
    assert_eq!(client.end_time_unix_nano, server.end_time_unix_nano);
}

#[test]
fn a_websocket_is_a_span_until_it_is_closed() {
    let upstream = Upstream::start(|peer| {
        let request = peer.request()?;
        assert!(request.field("traceparent").is_some());
        peer.send(format!("{SWITCHING}\r\n"))?;
        peer.rest().map(drop)
    });
    let collector = Collector::start();
    let proxy = tracing(&collector, &upstream, "");
    let mut client = proxy.client();
    client.write(b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").expect("sent");
    assert_eq!(client.head().expect("an answer").status, 101);
    proxy.get("/other");
    assert_eq!(collector.count(), 0, "the tunnel is open");
    drop(client);
    let spans = eventually("the spans", || {
        let spans = collector.spans();
        spans.iter().any(|span| told(span, "url.path") == "/ws").then_some(spans)
    });
    let tunnel = spans.iter().find(|span| told(span, "url.path") == "/ws").expect("it is there");
    assert_eq!(told(tunnel, "http.response.status_code"), "101");
    let attempt = spans.iter().find(|span| span.parent_span_id == tunnel.span_id).expect("an attempt");
    assert_eq!(told(attempt, "http.response.status_code"), "101");
    assert!(!failed(tunnel) && !failed(attempt));
}

#[test]
fn a_grpc_call_is_traced_over_http2() {
    let (server, collector) = (GrpcServer::start(), Collector::start());
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ api: {{ servers: '{}', protocol: h2 }} }}\nupstream: api\n\
         tracing: {{ otlp: '{}' }}\nlimits: [{{ name: one, key: client_ip, rate: 1/h }}]\n",
        server.url(),
        collector.url()
    ));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = GrpcClient::connect(proxy.web()).await;
        assert_eq!(client.unary("hello", None).await.expect("an answer").into_inner(), "hello");
        assert_eq!(client.unary("hello", None).await.expect_err("denied").code(), tonic::Code::ResourceExhausted);
    });
    let spans = eventually("both calls", || Some(collector.spans()).filter(|spans| spans.len() == 5));
    let versions: Vec<_> = spans.iter().filter(|span| span.kind() == Server || span.kind() == Client).collect();
    assert_eq!(versions.len(), 3);
    assert!(
        versions.iter().all(|span| told(span, "network.protocol.version") == "2" && !failed(span)),
        "{versions:#?}"
    );
    assert!(spans.iter().any(|span| told(span, "tollgate.error") == "limited"));
}

#[test]
fn a_collector_that_is_away_is_told_of_twice_and_holds_nothing_up() {
    let port = Port::take();
    let (upstream, number) = (answering(), port.number());
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: {}\ntracing: {{ otlp: 'http://127.0.0.1:{number}' }}\n",
        upstream.url()
    ));
    for _ in 0..20 {
        assert_eq!(proxy.get("/").status, 200);
    }
    let up = |wanted| {
        eventually("the metric", || (proxy.metrics().count("tollgate_trace_exporter_up", &[]) == wanted).then_some(()));
    };
    up(0);
    let collector = Collector::start_on(number);
    eventually("every span", || (collector.count() == 40).then_some(()));
    up(1);
    proxy.wait_for_log("it is back", |line| line["message"] == "spans are exported again" && line["lost"] == 0);
    let log = proxy.log();
    let told: Vec<_> = log.iter().filter(|line| line.contains("spans cannot be exported")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("refused") && told[0].contains(&number.to_string()), "{}", told[0]);
}

#[test]
fn a_full_queue_drops_spans_and_every_one_is_accounted_for() {
    let collector = Collector::behaving(Behaviour::Hang);
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 1\ntracing: {{ otlp: {{ endpoint: '{}', timeout: 1h }} }}\n\
         routes: [{{ name: all, respond: {{ status: 204 }} }}]\n",
        collector.url()
    ));
    let mut client = proxy.client();
    let requests = 6_000;
    let batch = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50);
    for _ in 0..requests / 50 {
        client.write(&batch).expect("sent");
        for _ in 0..50 {
            assert_eq!(client.answer_to("GET").expect("an answer").status, 204);
        }
    }
    let spans = |result| proxy.metrics().count("tollgate_trace_spans_total", &[("result", result)]);
    let dropped = spans("dropped");
    assert!((1..=requests - 4_096).contains(&dropped), "{dropped}");
    assert_eq!((spans("exported"), collector.count()), (0, 0));
    collector.become_(Behaviour::Take);
    eventually("the others", || (spans("exported") + dropped == requests).then_some(()));
    assert_eq!(collector.count() as u64 + dropped, requests);
    eventually("it is told", || proxy.log().iter().any(|line| line.contains("spans are dropped")).then_some(()));
}

#[test]
fn a_collector_that_refuses_is_not_asked_again_and_one_that_is_busy_is() {
    let (collector, upstream) = (Collector::behaving(Behaviour::Status(401)), answering());
    let proxy = tracing(&collector, &upstream, "");
    let spans = |result| proxy.metrics().count("tollgate_trace_spans_total", &[("result", result)]);
    proxy.get("/");
    eventually("they are refused", || (spans("refused") == 2).then_some(()));
    let line = proxy.wait_for_log("it is told", |line| line["message"] == "the collector refuses spans, they are lost");
    assert!(
        line["cause"].as_str().is_some_and(|cause| cause.contains("401") && cause.contains("token_file")),
        "{line}"
    );
    collector.become_(Behaviour::Status(503));
    proxy.get("/");
    eventually("it was asked again and again", || (collector.heads().len() >= 3).then_some(()));
    let told = proxy.log().into_iter().filter(|line| line.contains("spans cannot be exported")).count();
    assert_eq!(told, 1, "{:#?}", proxy.log());
    collector.become_(Behaviour::Take);
    eventually("they are there after all", || (spans("exported") == 2).then_some(()));
    collector.become_(Behaviour::TakeBut(1));
    proxy.get("/");
    eventually("a part is refused", || (spans("refused") == 3 && spans("exported") == 3).then_some(()));
    assert_eq!(spans("dropped"), 0);
    assert_eq!(collector.connections(), 1, "the connection is kept");
}

#[test]
fn spans_come_together_in_batches() {
    let (collector, upstream) = (Collector::start(), answering());
    let proxy = tracing(&collector, &upstream, "");
    let mut client = proxy.client();
    for _ in 0..200 {
        assert_eq!(client.get("/").status, 200);
    }
    eventually("every span", || (collector.count() == 400).then_some(()));
    let batches = collector.heads().len();
    assert!(batches <= 100, "{batches} batches of 200 requests");
}

#[test]
fn the_last_spans_are_exported_before_the_process_ends() {
    let (collector, upstream) = (Collector::start(), answering());
    let proxy = tracing(&collector, &upstream, "");
    for _ in 0..5 {
        proxy.get("/");
    }
    assert_eq!(proxy.stop(), Some(0));
    assert_eq!(collector.count(), 10);
}

#[test]
fn the_spans_of_a_request_that_the_end_cuts_are_exported_too() {
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let upstream = Upstream::answering(move |_, _| {
        let _ = waits.lock().expect("one request").recv();
        Ok(())
    });
    let collector = Collector::start();
    let proxy = tracing(&collector, &upstream, "shutdown: { grace: 100ms }");
    let mut client = proxy.client();
    client.write(&Request::get("/").bytes()).expect("sent");
    eventually("it arrived", || (!upstream.seen().is_empty()).then_some(()));
    assert_eq!(proxy.stop(), Some(0));
    assert_eq!(collector.count(), 2);
    drop(go_on);
}

#[test]
fn a_collector_that_hangs_does_not_keep_the_process_from_ending() {
    let (collector, upstream) = (Collector::behaving(Behaviour::Hang), answering());
    let proxy = tracing(&collector, &upstream, "");
    proxy.get("/");
    eventually("it was asked", || (!collector.heads().is_empty()).then_some(()));
    assert_eq!(proxy.stop(), Some(0));
    assert_eq!(collector.count(), 0);
}

#[test]
fn a_collector_is_reached_over_tls_with_a_token_that_nobody_sees() {
    let (collector, upstream) = (Collector::start_with_tls(), answering());
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, "hunter2-token\n").expect("written");
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstream: {}\nadmin: {{ address: 127.0.0.1:0 }}\nlog: {{ level: trace }}\ntracing:\n  otlp:\n\
         \x20   endpoint: {}/otlp/traces\n    ca: {}\n    token_file: {}\n\
         \x20   headers: {{ x-api-key: hunter2-key, x-scope-orgid: edge }}\n",
        upstream.url(),
        collector.url(),
        collector.ca().display(),
        token.display(),
    );
    let proxy = Tollgate::start(&yaml);
    proxy.get("/");
    collector.trace(2);
    let head = collector.heads().remove(0).to_ascii_lowercase();
    for line in [
        "post /otlp/traces http/1.1",
        "content-type: application/x-protobuf",
        "authorization: bearer hunter2-token",
        "x-api-key: hunter2-key",
        "x-scope-orgid: edge",
    ] {
        assert!(head.lines().any(|found| found == line), "{line} in\n{head}");
    }
    let path = proxy.config_path();
    let printed = tollgate(&["check", "--print", "-c", &path.to_string_lossy()]);
    assert_eq!(printed.code, Some(0), "{}", printed.errors);
    assert!(printed.output.contains("x-api-key: \"***\"") && printed.output.contains("authorization: \"***\""));
    assert!(printed.errors.contains("a secret written in the file") || printed.output.contains("a secret written"));
    let everything = [printed.output, printed.errors, proxy.log().join("\n")].join("\n");
    assert!(!everything.contains("hunter2"), "{everything}");
}

#[test]
fn a_certificate_of_nobody_known_is_told() {
    let (collector, upstream) = (Collector::start_with_tls(), answering());
    let other = Collector::start_with_tls();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: {}\ntracing: {{ otlp: {{ endpoint: '{}', ca: {} }} }}\n",
        upstream.url(),
        collector.url(),
        other.ca().display()
    ));
    assert_eq!(proxy.get("/").status, 200);
    let line = proxy.wait_for_log("it is told", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("spans cannot be exported"))
    });
    assert!(line["cause"].as_str().is_some_and(|cause| cause.contains("certificate")), "{line}");
    assert_eq!(collector.count(), 0);
}

#[test]
fn mistakes_about_tracing_have_their_place_and_their_cure() {
    let directory = tempfile::tempdir().expect("a directory");
    for (keys, place, cure) in [
        ("{ sample: 5% }", "`tracing` does not say where spans go", "otel-collector:4318"),
        ("{ otlp: {} }", "`otlp` has no `endpoint`", "write `endpoint:"),
        ("{ otlp: 'otel:4318' }", "does not begin with https://", "such as http://otel-collector:4318"),
        ("{ otlp: 'http://otel:4317' }", "the port of OTLP over gRPC", "4318"),
        ("{ otlp: ['http://a', 'http://b'] }", "found a list", "pass spans on to several"),
        ("{ otlp: 'http://a', sample: 2 }", "`2` is not a share", "did you mean `2%`?"),
        ("{ otlp: 'http://a', service_name: '' }", "this is no name", "such as edge"),
        ("{ endpoint: 'http://a' }", "unknown key `endpoint`", "it belongs in `otlp`"),
        ("{ otlp: { endpoint: 'http://a', sample: 5% } }", "unknown key `sample`", "it belongs in `tracing`"),
        ("{ otlp: { endpoint: 'http://a', headers: { host: b } } }", "set by the proxy itself", "leave it out"),
        ("{ otlp: { endpoint: 'http://a', headers: { 'a b': c } } }", "is not a field name", "such as x-api-key"),
        ("{ otlp: { endpoint: 'http://a', headers: { X-A: b, x-a: c } } }", "`x-a` is given twice", "keep one"),
        (
            "{ otlp: { endpoint: 'http://a', headers: { x-a: \"hunter2\\n\" } } }",
            "cannot be sent in a field",
            "on one line",
        ),
        ("{ otlp: { endpoint: 'http://a', ca: ca.pem } }", "`ca` has no meaning without TLS", "https://"),
        ("{ otlp: { endpoint: 'https://a', ca: nowhere.pem } }", "there is no such file", "may read"),
        ("{ otlp: { endpoint: 'http://a', token_file: nowhere } }", "there is no such file", "may read"),
        ("{ otlp: { endpoint: 'http://a', timeout: 0s } }", "longer than zero", "1s"),
    ] {
        let path = directory.path().join("proxy.yaml");
        std::fs::write(&path, format!("listen: 127.0.0.1:0\nupstream: echo\ntracing: {keys}\n")).expect("written");
        let finished = tollgate(&["check", "-c", &path.to_string_lossy()]);
        let text = finished.output + &finished.errors;
        assert_eq!(finished.code, Some(1), "{keys}: {text}");
        assert!(text.contains(place) && text.contains(cure) && text.contains("proxy.yaml:3:"), "{keys}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
