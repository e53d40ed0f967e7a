//! The dashboard in headless Chromium: it loads without an error, its numbers move, it tells what is wrong, and does
//! what its buttons say; in both themes, on a small screen, with a keyboard and a screen reader in mind.

use crate::support::browser::{Browser, DESKTOP, Look};
use crate::support::client::{Client, Request};
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

/// Everything that a browser fetches, bytes: what a page may weigh.
const LIGHT: usize = 60_000;

fn proxy(store: &str, server: &Upstream) -> Tollgate {
    Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\ntrusted_proxies: [127.0.0.1/32]\n{store}\n\
         upstreams: {{ web: {{ servers: ['{}'], health: {{ active: {{ path: /, interval: 1s }} }} }} }}\n\
         routes: [{{ name: all, match: {{ path: /* }}, upstream: web }}]\n\
         limits:\n  - {{ name: per-ip, key: client_ip, rate: 3/d }}\n  - {{ name: watched, key: client_ip, rate: 1/d, mode: shadow }}\n",
        server.url()
    ))
}

fn server() -> Upstream {
    Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
}

fn send(proxy: &Tollgate, address: &str) -> u16 {
    proxy.client().send(&Request::get("/").from(address)).status
}

fn page(proxy: &Tollgate) -> String {
    format!("http://{}/", proxy.admin())
}

#[track_caller]
fn shown(browser: &Browser) {
    browser.wait(
        "the figures are there",
        "document.querySelector('#state')?.dataset.state !== 'wait' && !document.querySelector('#main').hidden",
    );
}

/// Whether a cell of a table's row holds a text.
fn row(table: &str, text: &str) -> String {
    format!("[...document.querySelectorAll('#{table} tbody tr')].some((row) => row.textContent.includes({text:?}))")
}

#[test]
fn numbers_move_a_denied_key_shows_up_and_an_outage_is_told() {
    let (mut redis, server) = (RedisServer::start(), server());
    let proxy = proxy(&format!("store: {{ redis: {{ url: '{}', timeout: 200ms }} }}", redis.url()), &server);
    let browser = Browser::start(DESKTOP);
    browser.open(&page(&proxy));
    shown(&browser);
    browser.wait("nothing is wrong", "document.querySelector('#state').dataset.state === 'ok'");
    assert!(browser.text("#problem-list").contains("Nothing is wrong"));
    let codes: Vec<_> = (0..6).map(|_| send(&proxy, "192.0.2.7")).collect();
    assert_eq!(codes, [200, 200, 200, 429, 429, 429]);
    browser.wait("requests are told", "parseFloat(document.querySelector('.figure strong').textContent) > 0");
    browser.wait("denials are told", "parseFloat(document.querySelectorAll('.figure strong')[1].textContent) > 0");
    browser.wait("the denied key stands beside its limit", &row("limits-table", "ip=192.0.2.7"));
    browser.wait("and among the top keys", &row("keys-table", "ip=192.0.2.7"));
    browser.wait("the flow is told", &row("flow-table", "per-ip"));
    browser.wait("the server is told, with its check", &row("servers-table", "well, "));
    browser.wait(
        "charts are drawn",
        "document.querySelector('#chart-requests polyline') && document.querySelector('#chart-limited polyline')",
    );

    redis.kill();
    browser.wait("the outage is told", "document.querySelector('[data-kind=store_down]')");
    browser.wait("and stands out", "document.querySelector('#state').dataset.state === 'error'");
    assert!(browser.text("#store-facts").contains("away"));
    redis.restart();
    browser.wait("it is over", "!document.querySelector('[data-kind=store_down]')");
    assert_eq!(browser.errors(), Vec::<serde_json::Value>::new());
}

#[test]
fn buttons_do_what_they_say_once_it_is_confirmed() {
    let server = server();
    let proxy = proxy("", &server);
    assert_eq!([(); 4].map(|()| send(&proxy, "192.0.2.7")), [200, 200, 200, 429]);
    let browser = Browser::start(DESKTOP);
    browser.open(&page(&proxy));
    shown(&browser);
    let confirm = |answer: &str| {
        browser.wait("it asks", "document.querySelector('#ask').open");
        browser.click(&format!("#ask button[value={answer}]"));
        browser.wait("it has asked", "!document.querySelector('#ask').open");
    };
    let reset = "button[aria-label=\"Reset ip=192.0.2.7\"]";
    browser.wait("the key is listed", &format!("document.querySelector({reset:?})"));
    browser.click(reset);
    confirm("no");
    assert_eq!(send(&proxy, "192.0.2.7"), 429, "nothing was confirmed");
    browser.click(reset);
    confirm("yes");
    browser.wait("it is told", "document.querySelector('#toast').textContent.startsWith('Reset')");
    assert_eq!(send(&proxy, "192.0.2.7"), 200);

    browser.click("button[aria-label=\"Only watch: per-ip\"]");
    confirm("yes");
    browser.wait("the switch is shown", &row("limits-table", "shadow (switched)"));
    browser.wait("and noted", "document.querySelector('[data-kind=switched]')");
    assert_eq!([(); 4].map(|()| send(&proxy, "192.0.2.7")), [200; 4]);
    browser.click("button[aria-label=\"Enforce: per-ip\"]");
    confirm("yes");
    browser.wait("it is over", "!document.querySelector('[data-kind=switched]')");
    assert_eq!(send(&proxy, "192.0.2.7"), 429);

    browser.click("button[aria-label^=\"Drain: \"]");
    confirm("yes");
    browser.wait("the drain is shown", &row("servers-table", "draining"));
    assert_eq!(send(&proxy, "192.0.2.9"), 503);
    browser.click("button[aria-label^=\"Use again: \"]");
    browser.wait("it is used again", &row("servers-table", "healthy"));
    assert_eq!(send(&proxy, "192.0.2.9"), 200);

    browser.run(
        "document.querySelector('#key-text').value = '192.0.2.9'; document.querySelector('#key-form').requestSubmit()",
    );
    // The request that met no server was charged too.
    browser.wait("one key is told", "document.querySelector('#key-state').textContent.includes('1 of 3 left')");
    browser.run("document.querySelector('#ex-ip').value = '192.0.2.55'; document.querySelector('#explain-form').requestSubmit()");
    browser.wait("a request is explained", "document.querySelector('#explained').textContent.includes('3 of 3 left')");
    browser.click("#config summary");
    browser.wait("the configuration is shown", "document.querySelector('#yaml').textContent.includes('per-ip')");
    assert_eq!(browser.errors(), Vec::<serde_json::Value>::new());
}

#[test]
fn it_fits_small_screens_and_both_themes_and_axe_finds_no_serious_fault() {
    let server = server();
    let proxy = proxy("", &server);
    assert_eq!([(); 4].map(|()| send(&proxy, "192.0.2.7")), [200, 200, 200, 429]);
    let weight: usize = ["/", "/app.js", "/app.css", "/icon.svg"]
        .map(|path| Client::connect(proxy.admin()).send(&Request::get(path).header("accept", "text/html")).body.len())
        .iter()
        .sum();
    assert!((1_000..LIGHT).contains(&weight), "{weight} bytes");
    let mut backgrounds = Vec::new();
    for theme in ["light", "dark"] {
        for width in [1280, 375] {
            let browser = Browser::start(Look { theme, width, height: 800 });
            browser.open(&page(&proxy));
            shown(&browser);
            browser.wait("the key is listed", &row("keys-table", "ip=192.0.2.7"));
            browser.click("#config summary");
            browser.wait("the configuration is shown", "document.querySelector('#yaml').textContent.length > 100");
            let scroll = browser.run("return document.documentElement.scrollWidth").as_u64();
            assert!(scroll <= Some(u64::from(width)), "{theme}, {width}: {scroll:?} wide");
            assert_eq!(browser.faults(), Vec::<String>::new(), "{theme}, {width}");
            assert_eq!(browser.errors(), Vec::<serde_json::Value>::new(), "{theme}, {width}");
            backgrounds.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
        }
    }
    assert_ne!(backgrounds[0], backgrounds[2], "two themes");
}

#[test]
fn it_asks_for_the_token_and_works_below_a_path_of_another_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "correct-horse-battery").unwrap();
    let guarded = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nupstream: echo\nadmin: {{ address: 127.0.0.1:0, token_file: '{}' }}\n\
         limits: [{{ name: per-ip, key: client_ip, rate: 3/d }}]\n",
        token.display()
    ));
    let front = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nupstreams: {{ admin: 'http://{}' }}\n\
         routes: [{{ name: ops, match: {{ path: /ops/* }}, upstream: admin, rewrite: {{ strip_prefix: /ops }} }}]\n",
        guarded.admin()
    ));
    let browser = Browser::start(DESKTOP);
    browser.open(&format!("http://{}/ops/", front.web()));
    browser.wait("it asks for the token", "!document.querySelector('#login').hidden");
    assert_eq!(browser.run("return document.activeElement.id"), "token");
    let give = |token: &str| {
        browser.run(&format!(
            "document.querySelector('#token').value = '{token}'; document.querySelector('#login').requestSubmit()"
        ));
    };
    give("wrong");
    browser.wait(
        "a wrong one is not believed",
        "document.querySelector('#login-error').textContent.includes('not believed')",
    );
    give("correct-horse-battery");
    shown(&browser);
    browser.click("button[aria-label=\"Only watch: per-ip\"]");
    browser.wait("it asks", "document.querySelector('#ask').open");
    browser.click("#ask button[value=yes]");
    browser.wait("changes pass the other proxy too", &row("limits-table", "shadow (switched)"));
    browser.open(&format!("http://{}/ops/", front.web()));
    shown(&browser);
    assert_eq!(browser.run("return sessionStorage.getItem('token')"), "correct-horse-battery", "kept in this tab");
}
