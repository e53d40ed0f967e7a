//! Clients that leave while they are answered: their place at the server is given back.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::eventually;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// A server whose event streams begin and then stay silent for ever, with room for one request.
fn scene() -> (Upstream, Tollgate) {
    let upstream = Upstream::start(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        peer.send("8\r\ndata: 1\n\r\n")?;
        // As long as it takes, not as long as tests wait for each other.
        let mut stream = peer.raw()?;
        stream.set_read_timeout(None)?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: api\n\
         upstreams: {{ api: {{ servers: '{}', max_requests: 1, queue: {{ size: 5, timeout: 60s }} }} }}\n",
        upstream.url()
    ));
    (upstream, proxy)
}

const REQUEST: &str = "GET /events HTTP/1.1\r\nhost: a\r\n\r\n";

fn ask(proxy: &Tollgate, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut client = TcpStream::connect(proxy.web()).expect("it listens");
    client.write_all(bytes.as_ref()).expect("it reads");
    client
}

fn await_value(proxy: &Tollgate, metric: &str, value: u64) {
    eventually(&format!("{metric} is {value}"), || (proxy.metrics().count(metric, &[]) == value).then_some(()));
}

fn await_requests(proxy: &Tollgate, value: u64) {
    await_value(proxy, "tollgate_upstream_requests_in_flight", value);
}

#[test]
fn who_has_sent_more_behind_the_request_leaves_no_place_taken() {
    let (_upstream, proxy) = scene();
    for more in [REQUEST.to_owned(), REQUEST.repeat(1_000)] {
        let mut client = ask(&proxy, REQUEST);
        await_requests(&proxy, 1);
        // More than is read ahead: the rest waits in the kernel, and the end of it behind that.
        client.write_all(more.as_bytes()).expect("the kernel takes it");
        // Whoever closes with something unread resets; this one says good-bye.
        let mut heard = Vec::new();
        while !heard.ends_with(b"data: 1\n\r\n") {
            let mut some = [0; 4096];
            let read = client.read(&mut some).expect("the event");
            heard.extend_from_slice(&some[..read]);
        }
        drop(client);
        await_requests(&proxy, 0);
    }
}

#[test]
fn who_left_before_the_turn_came_leaves_no_place_taken() {
    let (upstream, proxy) = scene();
    let holder = ask(&proxy, REQUEST);
    await_requests(&proxy, 1);
    let queued = ask(&proxy, REQUEST);
    await_value(&proxy, "tollgate_upstream_waiting", 1);
    // The turn comes while it is not yet known that nobody waits for the answer.
    drop(queued);
    drop(holder);
    eventually("its turn came, or it was seen to be gone", || {
        let gone = proxy.metrics().count("tollgate_upstream_waiting", &[]) == 0;
        (upstream.seen().len() == 2 || gone).then_some(())
    });
    await_requests(&proxy, 0);
}

/// What `nc -N` and others do: a FIN says only that there will be no further request.
#[test]
fn who_only_says_that_there_is_no_more_to_come_is_answered_to_the_end() {
    let upstream = Upstream::start(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")?;
        std::thread::sleep(std::time::Duration::from_secs(4));
        peer.send("cd")
    });
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nupstream: {}\n", upstream.url()));
    let client = ask(&proxy, REQUEST);
    client.shutdown(std::net::Shutdown::Write).expect("it is open");
    let answer = std::io::read_to_string(client).expect("an answer");
    assert!(answer.ends_with("\r\n\r\nabcd"), "{answer}");
}
