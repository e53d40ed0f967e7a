//! How requests are spread over the servers of an upstream, and what happens when one has enough.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};

use crate::support::client::{Answer, Client, Request};
use crate::support::eventually;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// Servers that answer with their number.
fn servers<const N: usize>() -> [Upstream; N] {
    std::array::from_fn(|number| Upstream::answering(move |peer, _| peer.answer(&number.to_string())))
}

fn in_front_of(servers: &[String], keys: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 2\nupstream: api\n\
         upstreams: {{ api: {{ servers: [{}], {keys} }} }}\n",
        servers.join(", ")
    ))
}

fn urls(servers: &[Upstream]) -> Vec<String> {
    servers.iter().map(|server| format!("'{}'", server.url())).collect()
}

/// How many of these requests each server answered.
fn tally(proxy: &Tollgate, requests: impl Iterator<Item = Request>) -> BTreeMap<String, usize> {
    let mut client = proxy.client();
    requests.fold(BTreeMap::new(), |mut tally, request| {
        *tally.entry(client.send(&request).text()).or_default() += 1;
        tally
    })
}

fn gets(count: usize) -> impl Iterator<Item = Request> {
    std::iter::repeat_with(|| Request::get("/")).take(count)
}

#[test]
fn weights_are_kept_to() {
    let servers = servers::<3>();
    let listed = servers
        .iter()
        .zip([1, 2, 5])
        .map(|(server, weight)| format!("{{ url: '{}', weight: {weight} }}", server.url()));
    let proxy = in_front_of(&listed.collect::<Vec<_>>(), "balance: round_robin");
    let tally = tally(&proxy, gets(80));
    for (server, expected) in [("0", 10), ("1", 20), ("2", 50)] {
        assert!(tally[server].abs_diff(expected) <= 2, "{tally:?}");
    }
}

#[test]
fn a_backup_is_asked_only_while_no_other_server_can_be() {
    let [main, backup] = servers::<2>();
    let listed = |main: &str| [format!("'{main}'"), format!("{{ url: '{}', backup: true }}", backup.url())];
    let proxy = in_front_of(&listed(&main.url()), "balance: random");
    assert_eq!(tally(&proxy, gets(10)), BTreeMap::from([("0".to_owned(), 10)]));
    let proxy = in_front_of(&listed("http://127.0.0.1:9"), "balance: random");
    assert_eq!(tally(&proxy, gets(10)), BTreeMap::from([("1".to_owned(), 10)]));
}

#[test]
fn the_same_value_meets_the_same_server_over_two_proxies_and_other_values_others() {
    let servers = servers::<4>();
    let proxies = [(), ()].map(|()| in_front_of(&urls(&servers), "balance: hash, hash_key: header:x-user"));
    let of_user = |proxy: &Tollgate, user: usize| {
        let request = Request::get("/").header("x-user", &user.to_string());
        proxy.client().send(&request).text()
    };
    let mut met = BTreeMap::<String, usize>::new();
    for user in 0..60 {
        let server = of_user(&proxies[0], user);
        assert_eq!(of_user(&proxies[1], user), server);
        *met.entry(server).or_default() += 1;
    }
    assert!(met.len() == 4 && met.values().all(|&count| count >= 4), "{met:?}");
    // Without the value in turn.
    assert_eq!(tally(&proxies[0], gets(8)).len(), 4);
    let twice = Request::get("/").header("x-user", "1").header("x-user", "2");
    assert_eq!(proxies[0].client().send(&twice).status, 400);
}

#[test]
fn of_two_servers_the_less_busy_one_is_asked() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let slow = Upstream::answering(move |peer, _| {
        let (open, changed) = &*held;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open));
        peer.answer("slow")
    });
    let quick = Upstream::answering(|peer, _| peer.answer("quick"));
    let proxy = in_front_of(&urls(&[slow, quick]), "balance: least_requests");
    // Until one of them is caught by the slow server.
    let mut caught = Vec::new();
    while caught.is_empty() {
        let mut client = proxy.client();
        client.set_patience(std::time::Duration::from_millis(300));
        if client.exchange(&Request::get("/")).is_err() {
            // Its request still is where it was, with a client that waits.
            let mut waiting = proxy.client();
            waiting.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            caught.push(waiting);
        }
    }
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(tally(&proxy, gets(20)).values().sum::<usize>(), 20);
}

fn cookie_of(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("server=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

#[test]
fn a_cookie_keeps_a_client_with_its_server_until_that_is_gone() {
    let [first, second] = servers::<2>();
    let keys = "sticky: { cookie: server }";
    let proxy = in_front_of(&urls(&[first, second]), keys);
    let answer = proxy.get("/");
    let (server, cookie) = (answer.text(), cookie_of(&answer));
    assert!(!cookie.contains("127.0.0.1"));
    for _ in 0..6 {
        let again = proxy.client().send(&Request::get("/").header("cookie", &format!("a=b; {cookie}; c=d")));
        assert_eq!(again.text(), server);
        assert_eq!(again.header("set-cookie"), None, "it has the cookie");
    }
    for unknown in ["server=0123456789abcdef", "server=x", "xserver=1", "server="] {
        let answer = proxy.client().send(&Request::get("/").header("cookie", unknown));
        assert_eq!(answer.status, 200);
        cookie_of(&answer);
    }
}

/// A server that answers when it is told to, and how many requests it has.
struct Held {
    upstream: Upstream,
    open: Arc<(Mutex<usize>, Condvar)>,
    inside: Arc<Mutex<(usize, usize)>>,
}

fn held() -> Held {
    let open = Arc::new((Mutex::new(0), Condvar::new()));
    let inside = Arc::<Mutex<(usize, usize)>>::default();
    let (gate, count) = (Arc::clone(&open), Arc::clone(&inside));
    let upstream = Upstream::answering(move |peer, _| {
        {
            let mut count = count.lock().unwrap();
            count.0 += 1;
            count.1 = count.1.max(count.0);
        }
        let (open, changed) = &*gate;
        *changed.wait_while(open.lock().unwrap(), |open| *open == 0).unwrap() -= 1;
        count.lock().unwrap().0 -= 1;
        peer.answer("ok")
    });
    Held { upstream, open, inside }
}

impl Held {
    fn let_pass(&self, requests: usize) {
        *self.open.0.lock().unwrap() += requests;
        self.open.1.notify_all();
    }

    fn inside(&self) -> usize {
        self.inside.lock().unwrap().0
    }
}

fn asking(proxy: &Tollgate) -> Client {
    let mut client = proxy.client();
    client.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    client
}

#[test]
fn requests_over_the_most_wait_for_their_turn_and_too_many_are_turned_away() {
    let server = held();
    let proxy =
        in_front_of(&urls(std::slice::from_ref(&server.upstream)), "max_requests: 3, queue: { size: 4, timeout: 1m }");
    let mut clients: Vec<_> = (0..3).map(|_| asking(&proxy)).collect();
    eventually("three are inside", || (server.inside() == 3).then_some(()));
    clients.extend((0..4).map(|_| asking(&proxy)));
    let waiting = || proxy.metrics().count("tollgate_upstream_waiting", &[("upstream", "api")]) == 4;
    eventually("four wait", || waiting().then_some(()));
    let turned_away = proxy.get("/");
    assert_eq!(turned_away.status, 503);
    assert_eq!(turned_away.header("proxy-status"), Some("tollgate; error=connection_limit_reached"));
    assert_eq!(turned_away.header("retry-after"), Some("1"));
    server.let_pass(7);
    for mut client in clients {
        assert_eq!(client.answer_to("GET").unwrap().status, 200);
    }
    assert_eq!(server.inside.lock().unwrap().1, 3, "never more than three at once");
}

#[test]
fn a_request_does_not_wait_for_ever_and_one_that_leaves_makes_room() {
    let server = held();
    let keys = "max_requests: 1, queue: { timeout: 200ms }";
    let proxy = in_front_of(&urls(std::slice::from_ref(&server.upstream)), keys);
    let first = asking(&proxy);
    eventually("one is inside", || (server.inside() == 1).then_some(()));
    assert_eq!(proxy.get("/").status, 503);
    // The client leaves, and with it its request.
    let mut second = asking(&proxy);
    drop(first);
    server.let_pass(2);
    assert_eq!(second.answer_to("GET").unwrap().status, 200);
}

#[test]
fn a_server_gets_no_more_connections_than_allowed_from_all_workers() {
    let server = held();
    let keys = "max_connections: 2, queue: { timeout: 1m }";
    let proxy = in_front_of(&urls(std::slice::from_ref(&server.upstream)), keys);
    let clients: Vec<_> = (0..12).map(|_| asking(&proxy)).collect();
    eventually("two are inside", || (server.inside() == 2).then_some(()));
    server.let_pass(12);
    for mut client in clients {
        assert_eq!(client.answer_to("GET").unwrap().status, 200);
    }
    assert_eq!(server.inside.lock().unwrap().1, 2, "never more than two at once");
    // Idle connections of one worker do not keep the other one out.
    server.let_pass(20);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").status, 200);
    }
}

#[test]
fn a_websocket_keeps_its_place_until_it_ends() {
    let (told, ended) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::answering(move |peer, request| {
        if request.field("upgrade").is_none() {
            return peer.answer("ok");
        }
        let mut socket = peer.websocket(request)?;
        let _ = socket.read();
        let _ = told.lock().unwrap().send(());
        Ok(())
    });
    let proxy = in_front_of(&urls(std::slice::from_ref(&upstream)), "max_requests: 1, queue: { size: 0 }");
    let stream = std::net::TcpStream::connect(proxy.web()).unwrap();
    let (mut socket, _) = tungstenite::client(format!("ws://{}/", proxy.web()), stream).expect("an upgrade");
    assert_eq!(proxy.get("/").status, 503);
    socket.close(None).unwrap();
    drop(socket);
    ended.recv_timeout(crate::support::PATIENCE).expect("the tunnel ends");
    eventually("there is room", || (proxy.get("/").status == 200).then_some(()));
}
