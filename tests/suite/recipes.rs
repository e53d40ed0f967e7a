//! The limiters people start from, as `examples/` keeps them: each file runs and does what it says.

use std::time::{Duration, Instant};

use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::tollgate::{Tollgate, repository};
use crate::support::upstream::{SWITCHING, Upstream};

/// Starts a recipe as it stands, but for its address, its upstream, its store and its admin address.
fn recipe(name: &str) -> Tollgate {
    recipe_before("echo", name)
}

/// The same before an upstream of the test's.
fn recipe_before(upstream: &str, name: &str) -> Tollgate {
    let path = repository().join("examples").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut kept = String::from("workers: 2\n");
    let mut skipping = false;
    for line in text.lines() {
        let top = line.starts_with(|c: char| c.is_ascii_alphabetic());
        skipping =
            if top { ["store:", "admin:", "workers:"].iter().any(|key| line.starts_with(key)) } else { skipping };
        let line = match line.split_once(':') {
            _ if skipping => continue,
            Some(("listen", _)) => "listen: 127.0.0.1:0".to_owned(),
            Some((key, value)) if key.trim() == "upstream" && value.contains("http") => format!("{key}: {upstream}"),
            _ => line.replace("upstream: echo", &format!("upstream: {upstream}")),
        };
        kept.push_str(&line);
        kept.push('\n');
    }
    Tollgate::start(&kept)
}

fn statuses(proxy: &Tollgate, request: &Request, count: usize) -> Vec<u16> {
    (0..count).map(|_| proxy.client().send(request).status).collect()
}

#[test]
fn five_per_minute_and_client() {
    let proxy = recipe("fixed-count-per-client.yaml");
    assert_eq!(statuses(&proxy, &Request::get("/"), 7), [200, 200, 200, 200, 200, 429, 429]);
}

#[test]
fn api_data_is_limited_by_address_with_a_json_body() {
    let proxy = recipe("per-ip-api-data.yaml");
    let request = Request::get("/api/data");
    assert_eq!(statuses(&proxy, &request, 6), [200, 200, 200, 200, 200, 429]);
    let denied = proxy.client().send(&request);
    assert!(denied.header("content-type").is_some_and(|kind| kind.contains("json")), "{:?}", denied.headers);
    assert!(denied.json().is_object() && denied.retry_after() <= 60);
}

#[test]
fn ten_tokens_per_user() {
    let proxy = recipe("token-bucket-per-user.yaml");
    for user in ["ann", "bob"] {
        let request = Request::get("/").header("x-user-id", user);
        let admitted = statuses(&proxy, &request, 12).iter().filter(|status| **status == 200).count();
        assert_eq!(admitted, 10, "{user}");
    }
}

#[test]
fn slots_per_second_are_refused_when_taken() {
    let proxy = recipe("slots-per-second.yaml");
    let answers = statuses(&proxy, &Request::get("/").header("x-uid", "42"), 200);
    assert!(answers.contains(&429) && answers[0] == 200);
}

#[test]
fn slots_per_second_are_waited_for_when_asked() {
    let proxy = recipe("slots-per-second-waiting.yaml");
    let begun = Instant::now();
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let mut client = proxy.client();
            std::thread::spawn(move || client.send(&Request::get("/").header("x-uid", "42")).status)
        })
        .collect();
    let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("an answer")).collect();
    assert!(answers.iter().all(|status| *status == 200), "each gets its turn: {answers:?}");
    assert!(begun.elapsed() > Duration::from_millis(50), "and some had to wait");
}

#[test]
fn api_keys_pay_by_what_they_ask() {
    let proxy = recipe("api-key-costs.yaml");
    let get = Request::get("/").header("x-api-key", "one");
    let post = Request::post("/", b"").header("x-api-key", "two");
    let admitted = |request| statuses(&proxy, request, 12).iter().filter(|status| **status == 200).count();
    let (cheap, dear) = (admitted(&get), admitted(&post));
    assert!((10..=12).contains(&cheap), "ten at once: {cheap}");
    assert!((1..10).contains(&dear), "a dearer request sooner meets the limit: {dear}");
}

/// An upstream that answers with the status that `x-answer` asks for, and says that the answer used what
/// `x-use` asks for.
fn obedient() -> Upstream {
    Upstream::answering(|peer, request| {
        let asked = |name: &str| request.fields.iter().find(|field| field.0 == name).map(|field| field.1.clone());
        let status = asked("x-answer").unwrap_or_else(|| "200".to_owned());
        let used = asked("x-use").map(|used| format!("x-used-tokens: {used}\r\n")).unwrap_or_default();
        peer.send(format!("HTTP/1.1 {status} Said\r\n{used}content-length: 0\r\n\r\n"))
    })
}

#[test]
fn guesses_at_once_are_no_more_than_guesses_one_by_one() {
    let upstream = obedient();
    let proxy = recipe_before(&upstream.url(), "brute-force-login.yaml");
    let login = |status: &str| Request::post("/login", b"").header("x-answer", status);
    for _ in 0..8 {
        assert_eq!(proxy.client().send(&login("204")).status, 204, "who knows the password is let in");
    }
    let guesses: Vec<_> = (0..10)
        .map(|_| {
            let (mut client, guess) = (proxy.client(), login("401"));
            std::thread::spawn(move || client.send(&guess).status)
        })
        .collect();
    let answers: Vec<_> = guesses.into_iter().map(|guess| guess.join().expect("an answer")).collect();
    assert_eq!(answers.iter().filter(|status| **status == 401).count(), 5, "{answers:?}");
    let denied = proxy.client().send(&login("204"));
    assert!(denied.status == 429 && denied.text().contains("\"failures\""), "{}", denied.text());
    assert_eq!(proxy.client().send(&Request::get("/about")).status, 200, "the rest of the site is free");
}

#[test]
fn guesses_under_other_spellings_of_the_login_meet_limits_too() {
    let upstream = obedient();
    let proxy = recipe_before(&upstream.url(), "brute-force-login.yaml");
    let guess = |path: &str| proxy.client().send(&Request::post(path, b"").header("x-answer", "401"));
    let paths = ["/login", "/login/", "/LOGIN", "/Login/", "/login/x/../"];
    assert_eq!(paths.map(|path| guess(path).status), [401; 5]);
    for path in paths {
        assert!(guess(path).text().contains("\"failures\""), "{path} is counted with the others");
    }
    let odd = ["/login;x=1", "/login%20", "/lOgIn"];
    let wrong = odd.iter().cycle().take(60).filter(|path| guess(path).status == 401).count();
    assert_eq!(wrong, 30);
    assert!(guess("/other").text().contains("\"failures-elsewhere\""));
    assert_eq!(proxy.client().send(&Request::get("/login")).status, 200, "who looks at the form is not counted");
}

#[test]
fn tokens_are_charged_by_what_the_answer_says() {
    let upstream = obedient();
    let proxy = recipe_before(&upstream.url(), "llm-tokens.yaml");
    let chat = |key: &str, used: u32| {
        Request::post("/v1/chat", b"").header("x-api-key", key).header("x-use", &used.to_string())
    };
    for (key, used) in [("short", 100), ("long", 5_000)] {
        let answer = proxy.client().send(&chat(key, used));
        assert_eq!((answer.status, answer.header("x-used-tokens")), (200, None), "the field is the proxy's alone");
        // Who looks has been charged the estimate of 1000 when it is told; 28 tokens are earned each second.
        let settled = 19_000 - u64::from(used);
        let left = || proxy.client().send(&chat(key, 0)).remaining("tokens");
        eventually("the difference is settled", || (settled..settled + 400).contains(&left()).then_some(()));
    }
    // One answer dearer than all there is: the next one has to wait.
    assert_eq!(proxy.client().send(&chat("dear", 32_000)).status, 200);
    let denied = eventually("the debt is known", || {
        Some(proxy.client().send(&chat("dear", 0))).filter(|answer| answer.status == 429)
    });
    assert!(denied.text().contains("\"tokens\"") && denied.retry_after() > 400, "{}", denied.text());
}

#[test]
fn a_user_has_three_connections_at_once() {
    let upstream = Upstream::answering(|peer, _| {
        peer.send(format!("{SWITCHING}\r\n"))?;
        peer.closed()
    });
    let proxy = recipe_before(&upstream.url(), "websocket-per-user.yaml");
    let open = |user: &str| {
        let upgrade = Request::get("/live").header("connection", "upgrade").header("upgrade", "websocket");
        let mut client = proxy.client();
        client.write(&upgrade.header("cookie", &format!("session={user}")).bytes()).expect("sent");
        let status = client.head().expect("an answer").status;
        (status, client)
    };
    let mut tunnels: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let (status, tunnel) = open("ann");
        assert_eq!(status, 101);
        tunnels.push(tunnel);
    }
    assert_eq!(open("ann").0, 429, "a fourth is refused");
    assert_eq!(open("bob").0, 101, "and it is nobody else's");
    drop(tunnels.pop());
    eventually("a closed one makes room", || (open("ann").0 == 101).then_some(()));
}
