//! Places for held requests: no limit takes those of the others.

use std::io::Write;
use std::net::TcpStream;

use crate::support::client::Request;
use crate::support::eventually;
use crate::support::tollgate::Tollgate;

/// Half of a worker's places.
const HALF: usize = 5_000;
/// Keys that a client invents.
const KEYS: usize = 50;

#[test]
fn invented_keys_of_one_limit_leave_half_of_the_places_to_the_others() {
    // The first request of a key goes through, and each further one has its turn a minute after the one before.
    let proxy = Tollgate::start(
        "listeners: { default: { address: '127.0.0.1:0' } }\nworkers: 1\nroutes:\n\
         \x20 - name: invented\n    match: { path: /invented }\n    upstream: echo\n    timeout: 3h\n    limits:\n\
         \x20     - { name: invented, key: 'header:x-id', algorithm: leaky_bucket, rate: 1/m, burst: 151, max_wait: 150m }\n\
         \x20 - name: other\n    match: { path: /other }\n    upstream: echo\n    limits:\n\
         \x20     - { name: other, key: global, algorithm: leaky_bucket, rate: 1000/s, burst: 100, delay_after: 100 }\n",
    );
    let invented = |number: usize| Request::get("/invented").header("x-id", &(number % KEYS).to_string());
    let address = proxy.web();
    let held: Vec<TcpStream> = (0..HALF + KEYS)
        .map(|number| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.write_all(&invented(number).bytes()).expect("sent");
            stream
        })
        .collect();
    eventually("half of the places are taken", || {
        (proxy.metrics().count("tollgate_held_requests", &[]) == HALF as u64).then_some(())
    });
    assert_eq!(proxy.client().send(&invented(0)).status, 503);
    assert_eq!(proxy.get("/other").status, 200);
    drop(held);
    eventually("who leaves makes room", || (proxy.metrics().count("tollgate_held_requests", &[]) == 0).then_some(()));
}
