//! Every request carries a number of its own while one in a hundred upstream connections is cut, reset or
//! stalled: no answer goes to another request, and no POST is sent twice.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use crate::support::client::{Client, Request};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::{Peer, Upstream};

/// Clients at the same time.
const CLIENTS: usize = 4;
/// Requests in all, unless `TOLLGATE_NONCES` says otherwise.
const REQUESTS: usize = 10_000;

/// How often each POST arrived.
type Arrivals = Arc<Mutex<HashMap<String, usize>>>;

/// What the upstream does to a request in a hundred, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    CutBefore,
    ResetBefore,
    CutWithin,
    ResetWithin,
    Stall,
}

impl Fault {
    fn of(number: usize) -> Self {
        // A multiplier spreads the faults over clients and methods.
        let drawn = number.wrapping_mul(0x9e37_79b9) >> 7;
        match drawn % 500 {
            0 => Self::CutBefore,
            1 => Self::ResetBefore,
            2 => Self::CutWithin,
            3 => Self::ResetWithin,
            4 => Self::Stall,
            _ => Self::None,
        }
    }
}

fn serve(peer: &mut Peer, arrivals: &Arrivals) -> std::io::Result<()> {
    loop {
        let head = peer.head()?;
        let nonce = head.line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        if let Some(length) = head.field("content-length") {
            let mut body = vec![0; length.parse().map_err(std::io::Error::other)?];
            peer.read_exact(&mut body)?;
            assert_eq!(body, nonce.as_bytes(), "a body of another request");
            *arrivals.lock().expect("no script panics").entry(nonce.clone()).or_default() += 1;
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{nonce}", nonce.len());
        match Fault::of(nonce.parse().map_err(std::io::Error::other)?) {
            Fault::None => peer.send(answer)?,
            Fault::CutBefore => return Ok(()),
            Fault::ResetBefore => return peer.reset(),
            Fault::CutWithin => return peer.send(&answer[..answer.len() - 1]),
            Fault::ResetWithin => {
                peer.send(&answer[..answer.len() - 1])?;
                return peer.reset();
            }
            Fault::Stall => return peer.closed(),
        }
    }
}

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    failed: usize,
    /// POSTs that were answered.
    posted: Vec<String>,
}

fn ask_all(proxy: &Tollgate, numbers: impl Iterator<Item = usize>) -> Seen {
    let mut seen = Seen::default();
    let mut client = proxy.client();
    for number in numbers {
        let nonce = number.to_string();
        let post = (number / CLIENTS).is_multiple_of(2);
        let target = format!("/{nonce}");
        let request = if post { Request::post(&target, nonce.as_bytes()) } else { Request::get(&target) };
        match client.exchange(&request) {
            Ok(answer) if answer.status == 200 => {
                assert_eq!(answer.text(), nonce, "an answer of another request");
                seen.answered += 1;
                seen.posted.extend(post.then_some(nonce));
            }
            other => {
                let expected =
                    Fault::of(number) != Fault::None && other.as_ref().map_or(true, |answer| answer.status >= 500);
                assert!(expected, "{number} failed without a fault: {other:?}");
                seen.failed += 1;
                client = Client::connect(proxy.web());
            }
        }
    }
    seen
}

#[test]
fn no_answer_is_swapped_and_no_post_repeated_while_upstream_connections_fail() {
    let requests = std::env::var("TOLLGATE_NONCES").ok().and_then(|count| count.parse().ok()).unwrap_or(REQUESTS);
    let arrivals = Arrivals::default();
    let shared = Arc::clone(&arrivals);
    let upstream = Upstream::start(move |peer| serve(peer, &shared));
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 2\nupstreams: {{ web: '{}' }}\n\
         routes: [{{ name: all, match: {{ path: /* }}, upstream: web, timeout: 500ms }}]\n",
        upstream.url()
    ));
    let seen: Vec<_> = std::thread::scope(|scope| {
        let numbers = |client| (client..requests).step_by(CLIENTS);
        let proxy = &proxy;
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask_all(proxy, numbers(client)))).collect();
        clients.into_iter().map(|client| client.join().expect("no client fails")).collect()
    });
    let sum = |of: fn(&Seen) -> usize| seen.iter().map(of).sum::<usize>();
    let (answered, failed) = (sum(|seen| seen.answered), sum(|seen| seen.failed));
    println!("{answered} answered, {failed} failed");
    assert_eq!(answered + failed, requests);
    assert!(failed >= requests / 200, "faults were in force");
    let arrivals = arrivals.lock().expect("no script panics");
    let repeated: Vec<_> = arrivals.iter().filter(|(_, count)| **count != 1).collect();
    assert!(repeated.is_empty(), "repeated POSTs: {repeated:?}");
    let lost = seen.iter().flat_map(|seen| &seen.posted).find(|nonce| !arrivals.contains_key(*nonce));
    assert_eq!(lost, None, "answered, but never arrived");
}
