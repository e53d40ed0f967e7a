//! Costs that are known only after the answer: what is charged at admission is given back or topped up,
//! once per request, in either store.

use crate::support::client::Request;
use crate::support::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// An upstream that answers with the status in the path (`/401`), and the cost in `?cost=`.
fn obedient() -> Upstream {
    Upstream::answering(|peer, request| {
        let target = request.line.split(' ').nth(1).unwrap_or("/200").to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let cost = query.strip_prefix("cost=").map(|cost| format!("x-cost: {cost}\r\n")).unwrap_or_default();
        let status = path.trim_start_matches('/');
        peer.send(format!("HTTP/1.1 {status} Said\r\n{cost}content-length: 0\r\n\r\n"))
    })
}

fn configuration(upstream: &str, limit: &str, store: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {upstream}\nlimits:\n  - {{ name: l, key: global, {limit} }}\n{store}"
    )
}

/// Runs a test with the memory store and with Redis.
fn in_both_stores(upstream: &str, limit: &str, test: impl Fn(&Tollgate)) {
    let redis = RedisServer::start();
    let with_redis = format!("store:\n  redis: {{ url: '{}', timeout: 2s }}\n", redis.url());
    for store in ["", &with_redis] {
        let proxy = Tollgate::start(&configuration(upstream, limit, store));
        test(&proxy);
        let unkept = redis.keys().into_iter().filter(|key| redis.cli(&["PTTL", key]).starts_with('-'));
        // -2 is a key that has gone meanwhile.
        assert!(unkept.clone().all(|key| redis.cli(&["PTTL", &key]) == "-2"), "no key without expiry");
        assert_eq!(proxy.metrics().count("tollgate_store_errors_total", &[]), 0);
    }
}

/// What is left once everything is settled, looked at by a request that is given back itself.
fn left(proxy: &Tollgate, target: &str) -> u64 {
    proxy.get(target).remaining("l")
}

#[track_caller]
fn eventually_left(proxy: &Tollgate, target: &str, wanted: u64) {
    // The request that looks has cost one when it is told.
    eventually(&format!("{wanted} left"), || (left(proxy, target) + 1 == wanted).then_some(()));
}

#[test]
fn only_failed_logins_count_and_parallel_guesses_gain_nothing() {
    let upstream = obedient();
    for algorithm in ["token_bucket", "fixed_window", "sliding_window", "sliding_log"] {
        let limit = format!("rate: 5/h, algorithm: {algorithm}, count: {{ status: [401, 403] }}");
        in_both_stores(&upstream.url(), &limit, |proxy| {
            for _ in 0..12 {
                // On one connection, so that the next follows the refund as a person's next try would.
                assert_eq!(proxy.get("/200").status, 200, "{algorithm}: a login that succeeds is given back");
                eventually_left(proxy, "/200", 5);
            }
            let guesses: Vec<_> = (0..20)
                .map(|_| {
                    let web = proxy.web();
                    std::thread::spawn(move || crate::support::client::get(web, "/401").status)
                })
                .collect();
            let statuses: Vec<_> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
            let tried = statuses.iter().filter(|&&status| status == 401).count();
            assert_eq!(tried, 5, "{algorithm}: {statuses:?}");
            assert_eq!(proxy.get("/200").status, 429, "{algorithm}: failures stay charged");
        });
    }
}

#[test]
fn the_answers_own_cost_is_settled_and_its_field_goes_no_further() {
    let upstream = obedient();
    let limit = "rate: 100/h, burst: 100, cost: { default: 10, response_header: x-cost }";
    in_both_stores(&upstream.url(), limit, |proxy| {
        let answer = proxy.get("/200?cost=3");
        assert_eq!((answer.status, answer.remaining("l"), answer.header("x-cost")), (200, 90, None));
        eventually("7 of 10 are given back", || (left(proxy, "/200?cost=0") == 87).then_some(()));
        assert_eq!(proxy.get("/200?cost=60").status, 200);
        eventually("50 more are charged", || (left(proxy, "/200?cost=0") == 27).then_some(()));
        assert_eq!(proxy.get("/200?cost=-5").header("x-cost"), None);
        eventually("the estimate stays where the field is no number", || {
            (left(proxy, "/200?cost=0") == 17).then_some(())
        });
    });
}

#[test]
fn debt_is_bounded_and_paid_back_before_anything_is_admitted() {
    let upstream = obedient();
    let limit = "rate: 10/s, burst: 10, max_debt: 5, cost: { default: 1, response_header: x-cost }";
    in_both_stores(&upstream.url(), limit, |proxy| {
        assert_eq!(proxy.get("/200?cost=1000000").status, 200);
        let denied = eventually("the debt is charged", || {
            let answer = proxy.get("/200?cost=0");
            (answer.status == 429).then_some(answer)
        });
        assert_eq!(denied.retry_after(), 1, "at most 5 and the next one are to be earned: {:?}", denied.headers);
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(proxy.get("/200?cost=0").status, 200, "who waits as told is admitted");
    });
}

#[test]
fn chosen_statuses_and_failures_of_the_upstream_are_given_back() {
    let upstream = obedient();
    let limit = "rate: 5/h, refund: { status: [5xx], upstream_failure: true }";
    in_both_stores(&upstream.url(), limit, |proxy| {
        for _ in 0..8 {
            assert_eq!(proxy.get("/503").status, 503);
            eventually_left(proxy, "/503", 5);
        }
        assert_eq!(proxy.get("/404").status, 404);
        eventually_left(proxy, "/503", 4);
    });
    let nobody = Upstream::start(|_| Ok(()));
    in_both_stores(&nobody.url(), limit, |proxy| {
        for _ in 0..8 {
            assert_eq!(proxy.get("/").status, 502);
            eventually_left(proxy, "/", 5);
        }
    });
}

#[test]
fn a_field_and_the_size_of_the_body_make_the_cost() {
    let upstream = obedient();
    let limit = "rate: 100/h, burst: 100, cost: { default: 1, header: x-units, body: 1KiB, max: 50 }";
    in_both_stores(&upstream.url(), limit, |proxy| {
        let mut client = proxy.client();
        let cost = |client: &mut crate::support::client::Client, request: Request, before: u64| {
            before - client.send(&request).remaining("l")
        };
        assert_eq!(cost(&mut client, Request::get("/200"), 100), 1);
        assert_eq!(cost(&mut client, Request::get("/200").header("x-units", "7"), 99), 7);
        assert_eq!(cost(&mut client, Request::get("/200").header("x-units", "nonsense"), 92), 1);
        assert_eq!(cost(&mut client, Request::post("/200", &[b'x'; 2049]), 91), 4, "one, and three begun parts");
        assert_eq!(cost(&mut client, Request::get("/200").header("x-units", "99999"), 87), 50, "no more than max");
    });
}

#[test]
fn a_body_of_unknown_length_is_charged_when_it_has_come() {
    let upstream = obedient();
    let limit = "rate: 100/h, burst: 100, cost: { default: 1, body: 1KiB }";
    in_both_stores(&upstream.url(), limit, |proxy| {
        let mut client = proxy.client();
        let chunk = format!("{:x}\r\n{}\r\n", 1500, "x".repeat(1500));
        let head = "POST /200 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        client.write(format!("{head}{chunk}{chunk}{chunk}0\r\n\r\n").as_bytes()).unwrap();
        let answer = client.answer_to("POST").unwrap();
        assert_eq!((answer.status, answer.remaining("l")), (200, 99));
        let look = Request::get("/200");
        let first = client.send(&look).remaining("l");
        assert!(first <= 98);
        eventually("five begun parts are charged on top", || {
            let spent = 100 - client.send(&look).remaining("l");
            let settled = proxy.metrics().count("tollgate_limit_settled_total", &[("direction", "charge")]);
            (settled == 5 && spent >= 8).then_some(())
        });
    });
}

#[test]
fn a_client_that_hangs_up_stays_charged() {
    let upstream = Upstream::answering(|peer, _| peer.closed());
    let limit = "rate: 3/h, count: { status: [401] }";
    in_both_stores(&upstream.url(), limit, |proxy| {
        let before = upstream.seen().len();
        for n in 1..=3 {
            let mut client = proxy.client();
            client.write(&Request::get("/").bytes()).unwrap();
            eventually("it has arrived", || (upstream.seen().len() == before + n).then_some(()));
        }
        assert_eq!(proxy.get("/").status, 429);
    });
}

#[test]
fn what_is_given_back_leaves_a_penalty_and_places_under_way_alone() {
    let upstream = obedient();
    let limit = "rate: 5/h, count: { status: [401] }, penalty: { after: 1, block: 10m } }\n  \
                 - { name: places, key: global, in_flight: 2";
    in_both_stores(&upstream.url(), limit, |proxy| {
        for _ in 0..12 {
            eventually("a place is free", || (proxy.get("/200").status == 200).then_some(()));
        }
        eventually_left(proxy, "/200", 5);
        for _ in 0..5 {
            eventually("a place is free", || (proxy.get("/401").status == 401).then_some(()));
        }
        eventually("the penalty is there", || (proxy.get("/200").retry_after() >= 590).then_some(()));
    });
}

/// How many of twelve such requests, one after the other, are admitted.
fn admitted(proxy: &Tollgate, request: &[u8]) -> usize {
    let statuses: Vec<_> = (0..12)
        .map(|_| {
            let mut client = proxy.client();
            client.write(request).unwrap();
            let status = client.answer_to("POST").unwrap().status;
            // What the answer costs is settled a moment later.
            std::thread::sleep(std::time::Duration::from_millis(20));
            status
        })
        .collect();
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    statuses.iter().filter(|&&status| status == 200).count()
}

#[test]
fn what_costs_nothing_on_arrival_is_charged_afterwards_and_denied_where_nothing_is_left() {
    let upstream = obedient();
    let chunk = format!("{:x}\r\n{}\r\n", 5000, "x".repeat(5000));
    let chunked = format!("POST /200 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    let told = "POST /200?cost=5 HTTP/1.1\r\nhost: a\r\nx-units: 0\r\ncontent-length: 0\r\n\r\n";
    for (cost, request) in [
        ("{ default: 0, body: 1KiB }", &*chunked),
        ("{ default: 0, response_header: x-cost }", told),
        ("{ default: 1, header: x-units, response_header: x-cost }", told),
    ] {
        in_both_stores(&upstream.url(), &format!("rate: 10/h, cost: {cost}"), |proxy| {
            assert_eq!(admitted(proxy, request.as_bytes()), 2, "{cost}");
        });
    }
}

#[test]
fn a_field_makes_nothing_free_and_repeated_ones_are_the_dearest() {
    let upstream = obedient();
    let cost = |limit: &str, request: &Request| {
        let proxy = Tollgate::start(&configuration(&upstream.url(), &format!("rate: 100/h, {limit}"), ""));
        100 - proxy.client().send(request).remaining("l")
    };
    let field = "cost: { default: 1, header: x-units }";
    let units = |number| Request::get("/200").header("x-units", number);
    assert_eq!(cost(field, &units("0")), 1);
    assert_eq!(cost(field, &units("1").header("x-units", "5")), 5);
    assert_eq!(cost("cost: { default: 0, header: x-units }", &units("0")), 0, "it is free without the field, too");
    assert_eq!(cost("cost: { default: 0, body: 1KiB }", &Request::get("/200")), 0);
    assert_eq!(cost("cost: { default: 1, POST: 3 }", &Request::new("post", "/200")), 3);
}

#[test]
fn what_the_upstream_never_answered_stays_charged() {
    let silent = Upstream::start(crate::support::upstream::Peer::closed);
    let nobody = Upstream::start(|_| Ok(()));
    let limit = "rate: 3/h, count: { status: [401] }";
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n";
    for broken in ["ZZ\r\n", "0\r\nbad trailer\r\n\r\n"] {
        in_both_stores(&silent.url(), limit, |proxy| {
            let before = silent.connections();
            for n in 1..=3 {
                let mut client = proxy.client();
                client.write(head.as_bytes()).unwrap();
                eventually("it has arrived", || (silent.connections() == before + n).then_some(()));
                client.write(broken.as_bytes()).unwrap();
                assert_eq!(client.answer_to("POST").unwrap().status, 400, "{broken:?}");
            }
            assert_eq!(proxy.get("/").status, 429, "{broken:?}");
        });
    }
    in_both_stores(&nobody.url(), limit, |proxy| {
        for _ in 0..3 {
            assert_eq!(proxy.get("/").status, 502);
        }
        assert_eq!(proxy.get("/").status, 429);
    });
}
