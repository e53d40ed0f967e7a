//! A process that uses almost as much memory as it may refuses what is new, and serves again once there
//! is room.

use tollgate::config::frames::Colour;
use tollgate::config::{Origin, expanded, parse};

use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::tollgate::{Tollgate, field};
use crate::support::upstream::Upstream;

/// A body that nobody reads: what of it is on its way stays in the proxy's buffers.
const LARGE: usize = 4 << 20;

fn yaml(upstream: &Upstream, rest: &str) -> String {
    format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n{rest}\n", upstream.url())
}

fn sheds(proxy: &Tollgate) -> bool {
    proxy.metrics().count("tollgate_memory_shedding", &[]) == 1
}

#[test]
fn what_is_new_is_refused_while_memory_is_scarce() {
    let upstream = Upstream::answering(|peer, request| {
        let size = if request.line.contains("/large") { LARGE } else { 2 };
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n"))?;
        peer.send(vec![b'x'; size])
    });
    let alone = Tollgate::start(&yaml(&upstream, ""));
    assert_eq!(alone.get("/").status, 200);
    assert!(!alone.metrics().has("tollgate_memory_bytes"), "without a bound nothing is measured");
    // Room for a few dozen MiB beside what an idle process needs.
    let max = (alone.resident() + (24 << 20)) / 9 * 10 / 1024;
    drop(alone);
    let proxy = Tollgate::start(&yaml(&upstream, &format!("memory: {{ max: {max}KiB }}")));
    let mut kept: Vec<_> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(!sheds(&proxy));
    let mut greedy = Vec::new();
    while !sheds(&proxy) {
        assert!(greedy.len() < 2_000, "{} bytes with {} clients", proxy.resident(), greedy.len());
        let Ok(mut client) = Client::open(proxy.web()) else { continue };
        if client.write(&Request::get("/large").bytes()).is_ok() {
            greedy.push(client);
        }
    }
    println!("{} clients that do not read take it to {} KiB of {max}", greedy.len(), proxy.resident() / 1024);
    let answer = kept[0].send(&Request::post("/", b"name=value"));
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert_eq!(answer.retry_after(), 1);
    assert!(answer.text().contains("temporary-reduced-capacity"), "{}", answer.text());
    let mut stranger = proxy.client();
    assert!(stranger.ask(&Request::get("/")).is_err(), "a new connection is closed at once");
    let metrics = proxy.metrics();
    assert!(metrics.count("tollgate_connections_refused_total", &[("reason", "memory")]) > 0);
    let (used, most) = (
        metrics.count("tollgate_memory_bytes", &[("kind", "used")]),
        metrics.count("tollgate_memory_bytes", &[("kind", "max")]),
    );
    assert!(most == max * 1024 && used >= most / 100 * 85, "{used} of {most}");
    drop(greedy);
    eventually("room", || (!sheds(&proxy)).then_some(()));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(kept[1].get("/").status, 200, "who was connected before still is");
    let told = |words: &str| {
        let lines = proxy.log();
        let lines = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line| field(line, "message").contains(words)).count()
    };
    assert_eq!((told("memory is scarce"), told("there is memory again")), (1, 1), "each change once");
}

#[test]
fn what_a_configuration_says_of_memory_is_checked_and_printed() {
    let said = |memory: &str| match parse(
        &format!("listen: :80\nupstream: echo\nmemory: {memory}\n"),
        &Origin::Arguments,
        &|_| None,
    ) {
        Ok(loaded) => expanded(&loaded.config),
        Err(report) => report.render(Colour::Plain),
    };
    assert!(said("{ max: 512MiB }").contains("memory: { max: 512MiB }"));
    assert!(!said("{}").contains("memory:"));
    assert!(said("{ max: 1MiB }").contains("less than the process itself needs"));
    assert!(said("{ max: 512 }").contains("is not a size"));
    assert!(said("512MiB").contains("expected keys and values"));
}
