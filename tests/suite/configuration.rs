//! Configurations that are wrong: what is said, where, and what to write instead.

use std::fmt::Write as _;
use std::path::PathBuf;

use tollgate::config::frames::Colour;
use tollgate::config::{Config, Loaded, Origin, Report, expanded, parse};
use tollgate::limit::store::settings::Backend;

fn read(text: &str) -> Result<Loaded, Report> {
    read_with(text, &|_| None)
}

fn read_with(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    parse(text, &Origin::File(PathBuf::from("proxy.yaml")), env)
}

/// What is said about a text that must not be accepted, as a person sees it.
#[track_caller]
fn frames(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report.render(Colour::Plain),
    }
}

/// What is said about a text that is accepted with warnings.
#[track_caller]
fn warnings(text: &str) -> String {
    match read(text) {
        Ok(loaded) => loaded.warnings.render(Colour::Plain),
        Err(report) => panic!("refused:\n{}", report.render(Colour::Plain)),
    }
}

/// The short form with these limits on line 3.
fn limits(limits: &str) -> String {
    format!("listen: :8080\nupstream: echo\nlimits: [{limits}]\n")
}

/// A route with this match and these limits on line 4.
fn hosted(matches: &str, limits: &str) -> String {
    format!(
        "listen: :8080\nupstreams: {{ a: echo }}\nroutes:\n  - {{ name: a, upstream: a, {matches}, limits: [{limits}] }}\n"
    )
}

/// A limit with these schedules, from column 53 of line 3 on.
fn schedules(schedules: &str) -> String {
    limits(&format!("{{ key: client_ip, rate: 1/s, schedules: [ {schedules}] }}")).replace("[ {", "[{")
}

/// A route with these keys on line 4.
fn route(keys: &str) -> String {
    format!("listen: :8080\nupstreams: {{ users: http://127.0.0.1:3000 }}\nroutes:\n  - {{ {keys} }}\n")
}

/// A store with these keys of `redis` on line 4.
fn redis(keys: &str) -> String {
    format!("listen: :8080\nupstream: echo\nstore: {{ redis: {{\n  {keys} }} }}\n")
}

#[test]
fn a_lease_has_its_place_and_its_price() {
    let bucket = "key: global, rate: 1000/s, lease: 50ms";
    for (limit, said) in [
        ("key: global, rate: 1000/s, burst: 50, lease: 50ms", &["takes 50 of the burst", "`burst: 51` or more"][..]),
        ("key: global, rate: 1000/s, burst: 54, cost: 5, lease: 50ms", &["`burst: 55` or more"]),
        ("key: global, rate: 1/h, burst: 1, lease: 1ms", &["a lease of 1ms at 1/h takes 1", "`burst: 2`"]),
        ("key: global, rate: 1000/s, lease: 2s", &["out of bounds", "1ms to 1s"]),
        ("key: global, rate: 1000/s, algorithm: sliding_window, lease: 50ms", &["`lease` belongs to token_bucket"]),
        ("key: global, in_flight: 5, lease: 50ms", &["`lease` belongs to token_bucket"]),
        (&format!("{bucket}, mode: shadow"), &["only watches"]),
        (&format!("{bucket}, penalty: {{ after: 3 }}"), &["a penalty sees each denial"]),
        ("key: global, rate: [1000/s, 10000/m], lease: 50ms", &["one limit for each rate"]),
        (
            "key: client_ip, rate: 1000/s, lease: 50ms, overrides: [{ key: 10.0.0.0/8, rate: 10/s, burst: 1 }]",
            &["leaves too little of 1"],
        ),
    ] {
        let text = frames(&limits(&format!("{{ name: leased, {limit} }}")));
        assert!(said.iter().all(|said| text.contains(said)), "{limit}: {text}");
    }
    assert!(warnings(&limits(&format!("{{ {bucket} }}"))).contains("it only makes the burst smaller"));
}

#[test]
fn every_mistake_has_its_place_and_its_cure() {
    let cases: &[(&str, &str, &[&str])] = &[
        // The whole file.
        ("", "", &["nothing says where to listen", "`listen: :8080`", "nothing says where requests go"]),
        ("listen: :8080", "", &["nothing says where requests go", "`upstream: http://127.0.0.1:3000`"]),
        ("- a", "1:1", &["expected keys and values, found a list"]),
        // Slips of YAML.
        ("listen: \":8080\nupstream: echo", "2:1", &["not valid YAML", "close the quote"]),
        (
            "listen: :8080\nupstream: echo\nlimits:\n  - key: client_ip\n   rate: 1/s",
            "5:4",
            &["not valid YAML", "one column"],
        ),
        ("listen: :8080\nupstream: {UPSTREAM}", "2:1", &["expected one value, found keys and values", "quote text"]),
        // Keys.
        ("listen: :8080\nupstraem: echo", "2:1", &["unknown key `upstraem`", "did you mean `upstream`?"]),
        ("listen: :8080\nupstream: echo\nzzz: {}", "3:1", &["unknown key `zzz`", "keys that exist here: listen,"]),
        (
            "listen: :8080\nupstream: echo\nlimits:\n  - key: client_ip\n    rate: 1/s\n    brust: 5",
            "6:5",
            &["unknown key `brust`", "did you mean `burst`?"],
        ),
        ("listen: :8080\nupstream: echo\nlimits: { key: client_ip }", "3:1", &["expected a list", "`- `"]),
        ("listen: [:8080]\nupstream: echo", "1:1", &["expected one value, found a list"]),
        ("listen: :8080\nlisten: :8081\nupstream: echo", "2:1", &["`listen` is given twice", "keep one of the two"]),
        // Values.
        ("listen: 8080\nupstream: echo", "1:9", &["`8080` is only a port", "did you mean `:8080`?"]),
        ("listen: example.com:80\nupstream: echo", "1:9", &["not an address to listen on", "127.0.0.1:8080"]),
        ("listen: :8080\nupstream: 127.0.0.1:3000", "2:11", &["has no scheme", "`http://127.0.0.1:3000`"]),
        ("listen: :8080\nupstream: h2c://a", "2:11", &["a protocol is no scheme"]),
        ("listen: :8080\nupstream: http://127.0.0.1:8080", "2:11", &["own listener `default`", "service behind"]),
        ("listen: 127.0.0.1:8080\nupstream: http://localhost:8080", "2:11", &["own listener `default`"]),
        (
            "listen: :8080\nupstream: http://a/b",
            "2:11",
            &["has a path", "write `http://a`", "`rewrite: { add_prefix: /b }`"],
        ),
        ("listen: [':8080', ':8081']\nupstream: echo", "1:1", &["found a list", "`listeners: { web:"]),
        ("listen: :8080\nupstream: echo\nrate_limit: 5/s", "3:1", &["`rate_limit`", "write `limits: [{ key:"]),
        ("listen: :8080\nupstream: echo\nworkers: none", "3:10", &["not a number of workers", "`auto`"]),
        ("listen: :8080\nupstream: echo\nclient_ip: { ipv6_prefix: 0 }", "3:27", &["0 is out of bounds", "1 to 128"]),
        ("listen: :8080\nupstream: echo\ntrusted_proxies: [privat]", "3:19", &["`privat` is not an address block"]),
        (
            "listen: :8080\nupstream: echo\naccess_log: { sample: 2 }",
            "3:23",
            &["`2` is not a share", "did you mean `2%`?"],
        ),
        ("listen: :8080\nupstream: echo\nlog: { level: warning }", "3:15", &["`warning`", "did you mean `warn`?"]),
        ("listen: :8080\nupstream: echo\nshutdown: { grace: 30 }", "3:20", &["`30` is not a duration", "30s"]),
        ("listeners: { a: { header_timeout: 1s } }\nupstream: echo", "1:14", &["no address", "`address: :8080`"]),
        ("listeners: { a: :80, b: 1.2.3.4:80 }\nupstream: echo", "1:25", &["`a` has this address already"]),
        ("listeners: { a: { address: :80, max_header_size: 1GiB } }\nupstream: echo", "1:50", &["1KiB to 1MiB"]),
        (
            "listen: :8080\nupstream: echo\nadmin: { address: 0.0.0.0:9901 }",
            "3:19",
            &["open to other machines without a token", "`token_file`"],
        ),
        ("listen: :9901\nupstream: echo\nadmin: { address: 127.0.0.1:9901 }", "3:19", &["has this address already"]),
    ];
    assert_cured(cases);
}

#[test]
fn every_mistake_in_a_limit_has_its_place_and_its_cure() {
    let cases: &[(&str, &str, &[&str])] = &[
        // Limits.
        (&limits("{ rate: 1/s }"), "3:12", &["this limit has no key"]),
        (&limits("{ key: client_ip }"), "3:12", &["this limit has no rate"]),
        (&limits("{ key: clientip, rate: 1/s }"), "3:17", &["`clientip`", "did you mean `client_ip`?"]),
        (&limits("{ key: client_ip, rate: 100 }"), "3:34", &["`100` is not a rate", "such as 100/s"]),
        (&limits("{ key: client_ip, rate: [5/s, 9/s] }"), "3:40", &["same period", "keep the smaller"]),
        (&limits("{ key: client_ip, rate: [5/s, unlimited] }"), "3:40", &["stands alone"]),
        (&limits("{ key: client_ip, rate: [5/s, 9/m], burst: 3 }"), "3:46", &["belongs to none", "one limit for each"]),
        (&limits("{ key: client_ip, in_flight: 5, rate: 5/s }"), "3:42", &["beside `in_flight`", "two limits"]),
        (&limits("{ key: client_ip, in_flight: 5, cost: 2 }"), "3:42", &["one place", "0 or 1"]),
        (&limits("{ key: client_ip, in_flight: 0 }"), "3:39", &["admits nothing"]),
        (&limits("{ key: client_ip, rate: 5/s, slot_ttl: 5s }"), "3:39", &["belongs to in_flight"]),
        (&limits("{ key: client_ip, rate: 5/s, align: clock }"), "3:39", &["belongs to fixed_window"]),
        (&limits("{ key: client_ip, rate: 5/s, algorithm: fixed_window, burst: 9 }"), "3:64", &["no burst"]),
        (
            &limits("{ key: client_ip, rate: 5/7h, algorithm: fixed_window, align: Europe/Berlin }"),
            "3:34",
            &["no fixed place", "6h"],
        ),
        (
            &limits("{ key: client_ip, rate: 5/h, algorithm: fixed_window, align: Nowhere/Here }"),
            "3:71",
            &["no time zone", "Europe/Berlin"],
        ),
        (&limits("{ key: client_ip, rate: 20000/h, algorithm: sliding_log }"), "3:34", &["10000", "sliding_window"]),
        (
            &limits("{ key: client_ip, rate: 1000000000000/366d, algorithm: sliding_window }"),
            "3:34",
            &["exactly", "rounder"],
        ),
        (&limits("{ key: client_ip, rate: unlimited, penalty: { after: 3 } }"), "3:45", &["needs a limit that denies"]),
        (&limits("{ key: client_ip, rate: 5/s, mode: shadow, penalty: { after: 3 } }"), "3:53", &["blocks nobody"]),
        (
            &limits("{ key: client_ip, rate: 5/s, penalty: { block: 2h, max: 1h } }"),
            "3:61",
            &["shorter than the first"],
        ),
        (
            &limits("{ key: client_ip, rate: 5/s, penalty: { widen_after: 1 } }"),
            "3:63",
            &["2 to 1000000 of its parts", "0 for never"],
        ),
        (&limits("{ key: global, rate: 5/s, penalty: { widen_after: 8 } }"), "3:60", &["no addresses", "`client_ip`"]),
        (&limits("{ key: client_ip, rate: 1/s, burst: 0 }"), "3:46", &["a burst of 0 admits nothing"]),
        (&limits("{ key: client_ip, rate: 1/s, burst: 2, cost: 5 }"), "3:46", &["costs 5", "`burst: 5` or more"]),
        (&limits("{ key: client_ip, rate: 1/s, cost: { get: 1 } }"), "3:47", &["did you mean `GET`?"]),
        (&limits("{ key: client_ip, rate: 7/366d, burst: 999999999999 }"), "3:49", &["cannot be counted exactly"]),
        (&limits("{ key: client_ip, rate: 0/s, burst: 4 }"), "3:39", &["no meaning beside this rate"]),
        (&limits("{ key: 'path:user', rate: 1/s }"), "3:17", &["cannot be keyed by `path:user`", "belong to a route"]),
        (&limits("{ key: client_ip, rate: 1/s, max_wait: 1s }"), "3:39", &["belongs to leaky_bucket"]),
        (
            &limits("{ key: global, algorithm: leaky_bucket, rate: 10/s, burst: 200 }"),
            "3:69",
            &["held longer than max_wait, 10s", "`burst: 101` or less"],
        ),
        (
            &limits("{ key: client_ip, algorithm: leaky_bucket, rate: 5/m }"),
            "3:59",
            &["the last of a burst of 5", "write `burst: 1`, or a longer"],
        ),
        (
            &limits("{ name: a, key: client_ip, rate: 10/s }, { name: a, key: client_ip, rate: 20/s }"),
            "3:59",
            &["there is a limit `a` already", "\n1 error in"],
        ),
        (
            &limits("{ key: global, algorithm: leaky_bucket, rate: 10/s, max_wait: 1m }"),
            "3:72",
            &["longer than its route's timeout, 30s"],
        ),
        (
            &limits("{ key: client_ip, rate: 1/s }, { key: client_ip, rate: 9/m }"),
            "3:48",
            &["there is a limit `default/client_ip` already", "a `name` of its own"],
        ),
        (&limits("{ name: 'a:b', key: client_ip, rate: 1/s }"), "3:18", &["`a:b` cannot be a name here"]),
        (&limits("{ key: client_ip, rate: 1/s, response: { status: 200 } }"), "3:59", &["429, or another from 400"]),
        (&limits("{ key: client_ip, rate: 1/s, mode: shadwo }"), "3:45", &["did you mean `shadow`?"]),
        (&limits("{ key: client_ip, rate: 1/s, match: { path: /a* } }"), "3:54", &["`/exact` or `/prefix/*`"]),
        (&limits("{ key: client_ip, rate: 1/s, overrides: [{ rate: 2/s }] }"), "3:53", &["this override has no key"]),
        (
            &limits(
                "{ key: ['cookie:tenant', 'header:x-device | client_ip'], rate: 1/s, overrides: [{ key: [10.0.0.1, acme], rate: 2/s }] }",
            ),
            "3:108",
            &["`acme` could be", "say of which part: write `cookie:tenant=acme` or `header:x-device=acme`"],
        ),
        (
            &limits("{ key: global, rate: 1/s, overrides: [{ key: acme, rate: 2/s }] }"),
            "3:55",
            &["all requests are one key here"],
        ),
        (
            &limits("{ key: client_ip, rate: 1/s, overrides: [{ key: monitor, rate: unlimited }] }"),
            "3:58",
            &["`monitor` is not an address", "10.20.0.0/16"],
        ),
        (
            &limits("{ key: client_ip, rate: 1/s, response: { body: 'wait {limit.retry} s' } }"),
            "3:57",
            &["`{limit.retry}` is not filled in", "`{limit.retry_after}`"],
        ),
    ];
    assert_cured(cases);
}

#[test]
fn every_mistake_in_a_route_a_store_or_the_environment_has_its_place_and_its_cure() {
    let cases: &[(&str, &str, &[&str])] = &[
        // Routes and upstreams.
        (&route("name: a, upstream: usres"), "4:26", &["there is no upstream `usres`", "did you mean `users`?"]),
        (&route("name: a"), "4:7", &["this route has no upstream"]),
        (&route("upstream: users"), "4:7", &["this route has no name"]),
        (&route("name: a, upstream: users, match: { path: v1 }"), "4:48", &["did you mean `/v1`?"]),
        (&route("name: a, upstream: users, match: { path: /a//b }"), "4:48", &["normalised", "`/a/b`"]),
        (&route("name: a, upstream: users, match: { host: 'a:80' }"), "4:48", &["has no port"]),
        (&route("name: a, upstream: users, match: { method: post }"), "4:50", &["did you mean `POST`?"]),
        (
            &route("name: a, upstream: users, match: { path: '/u/{user}' }, limits: [{ key: 'path:usr', rate: 1/s }]"),
            "4:79",
            &["`/u/{user}` of this route has no parameter `usr`", "did you mean `path:user`?"],
        ),
        (
            "listen: :8080\nroutes:\n  - { name: a, upstream: echo }\n  - { name: a, upstream: echo, match: { path: /b } }",
            "4:13",
            &["there is a route `a` already"],
        ),
        ("listen: :8080\nupstream: echo\nroutes: [{ name: a, upstream: echo }]", "3:1", &["the short form"]),
        ("listen: :8080\nupstream: echo\nupstreams: { echo: http://a }", "3:14", &["`echo` is the built-in upstream"]),
        ("listen: :8080\nupstream: a\nupstreams: { a: { servers: [] } }", "3:14", &["`a` has no server"]),
        // The store.
        ("listen: :8080\nupstream: echo\nstore: memroy", "3:8", &["did you mean `memory`?"]),
        ("listen: :8080\nupstream: echo\nstore: { redis: { url: http://a } }", "3:24", &["redis://host:6379/0"]),
        (&redis("url: redis://a, cluster: ['a:1']"), "4:19", &["given in two shapes", "keep one of `url`"]),
        (&redis("sentinel: { master: m, nodes: ['a:1'] }, cluster: ['a:1']"), "4:44", &["given in two shapes"]),
        (&redis("sentinel: { nodes: ['a:1'] }"), "4:3", &["`sentinel` has no `master`", "sentinel monitor NAME"]),
        (&redis("sentinel: { master: m }"), "4:3", &["`sentinel` has no `nodes`", "10.0.0.1:26379"]),
        (&redis("sentinel: { master: m, nodes: [] }"), "4:26", &["names no node", "host:port"]),
        (&redis("sentinel: { master: m, node: 'a:1' }"), "4:26", &["did you mean `nodes`?"]),
        (&redis("sentinel: { master: m, nodes: 'a:1', password: x, password_file: y }"), "4:40", &["given twice"]),
        (&redis("sentinel: { master: m, nodes: 'a:1' }, database: 20000"), "4:52", &["20000 is out of bounds"]),
        (&redis("cluster: []"), "4:3", &["names no node", "10.0.0.1:6379"]),
        (&redis("cluster: ['redis://a:1']"), "4:13", &["this is a URL", "`tls: {}`"]),
        (&redis("cluster: [a]"), "4:13", &["`a` has no valid host and port", "host:port"]),
        (&redis("cluster: ['a:1'], database: 3"), "4:21", &["only the database 0", "leave `database` out"]),
        (&redis("cluster: ['a:1'], hash_tag: routes"), "4:31", &["did you mean `route`?"]),
        (&redis("url: redis://a, database: 3"), "4:19", &["the database stands in `url`", "redis://host:6379/3"]),
        (&redis("url: redis://a, hash_tag: route"), "4:19", &["a meaning with `cluster` only"]),
        ("listen: :8080\nupstream: echo\nstore: { redis: { timeout: 1s } }", "3:1", &["`redis` has no `url`"]),
        (
            "listen: :8080\nupstream: echo\nstore: { redis: { url: redis://a, password_file: /nowhere/x } }",
            "3:50",
            &["cannot read `/nowhere/x`: there is no such file"],
        ),
        (
            "listen: :8080\nupstream: echo\nstore: { redis: { url: redis://a, tls: {} } }",
            "3:35",
            &["the address begins with redis://", "rediss://"],
        ),
        // The environment.
        ("listen: :${PORT}\nupstream: echo", "1:9", &["`PORT` is not set", "${PORT:-default}"]),
        ("listen: :8080\nupstream: ${UP:?name one}", "2:11", &["`UP` is needed: name one"]),
        ("listen: :8080\nupstream: ${UP", "2:11", &["no closing brace"]),
        (&limits("{ key: client_ip, rate: '${R}' }"), "3:34", &["`R` is not set", "1 error in"]),
        // YAML itself.
        ("listen: :8080\n\tupstream: echo", "2:1", &["not valid YAML", "indent with spaces"]),
        (
            "listen: :8080\nupstream: echo\nlimits:\n  - key: client_ip\n\trate: 10/s\n",
            "5:1",
            &["not valid YAML", "indent with spaces"],
        ),
        ("listen: :8080\nupstream: echo\nlog: { level: ${L:-info} }", "3:", &["quote what holds `${…}`"]),
        ("listen: [", "", &["not valid YAML"]),
        ("listen: :8080\n---\nupstream: echo", "", &["second YAML document"]),
    ];
    assert_cured(cases);
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn every_mistake_of_what_else_may_hold_has_its_place_and_its_cure() {
    assert_cured(&[
        (
            &limits("{ key: client_ip, rate: 1/s, tiers: { values: { a: 2/s } } }"),
            "3:39",
            &["go by", "`by: header:x-plan`"],
        ),
        (&limits("{ key: client_ip, rate: 1/s, tiers: { by: host } }"), "3:39", &["there is no tier", "`values: {"]),
        (
            &limits("{ key: client_ip, rate: 1/s, tiers: { by: client_ip, values: { a: 2/s } } }"),
            "3:52",
            &["`client_ip` has no value", "overrides for addresses"],
        ),
        (
            &limits("{ key: client_ip, rate: 1/s, tiers: { by: 'path:plan', values: { a: 2/s } } }"),
            "3:52",
            &["cannot be keyed by `path:plan`"],
        ),
        (
            &limits("{ key: client_ip, rate: 1/s, tiers: { by: 'plan', values: { a: 2/s } } }"),
            "3:52",
            &["`plan`", "write"],
        ),
        (
            &limits("{ key: client_ip, rate: 1/s, tiers: { by: host, values: { 'a@b': 2/s } } }"),
            "3:68",
            &["`a@b` cannot be a name"],
        ),
        (
            &limits("{ key: client_ip, rate: 1/s, tiers: { by: host, values: { a: { burst: 5 } } } }"),
            "3:68",
            &["the tier `a` has no rate", "`unlimited`"],
        ),
        (&limits("{ key: client_ip, rate: 1/s, tiers: { by: host, values: { a: } } }"), "3:68", &["`a` has no rate"]),
        (
            &limits("{ key: client_ip, rate: 9/s, cost: 5, tiers: { by: host, values: { a: 2/s } } }"),
            "3:80",
            &["costs 5", "`burst: 5` or more"],
        ),
        (&schedules("{ from: 1:00, rate: 2/s }"), "3:53", &["no name", "`name: night`"]),
        (&schedules("{ name: a, from: 1:00 }"), "3:53", &["this schedule has no rate"]),
        (&schedules("{ name: a, rate: 2/s }"), "3:53", &["always holds", "`from` or `to`"]),
        (&schedules("{ name: a, from: 6:00, to: 06:00, rate: 2/s }"), "3:74", &["from 06:00 to 06:00 never", "24:00"]),
        (&schedules("{ name: a, from: 22:00, to: 0:00, rate: 2/s }"), "3:75", &["never hold", "24:00 for midnight"]),
        (&schedules("{ name: a, from: 22, rate: 2/s }"), "3:68", &["`22` is not a time of day", "24:00"]),
        (&schedules("{ name: a, days: monday, rate: 2/s }"), "3:68", &["`monday` is not a day", "mon-fri"]),
        (&schedules("{ name: a, days: [], rate: 2/s }"), "3:62", &["no day"]),
        (
            &schedules("{ name: a, from: 1:00, timezone: Berlin, rate: 2/s }"),
            "3:84",
            &["`Berlin` is no time zone", "Europe/Berlin"],
        ),
        (
            &schedules("{ name: a, from: 22:00, to: 6:00, rate: 2/s }, { name: b, days: sun, to: 1:00, rate: 3/s }"),
            "3:100",
            &["`b` and `a` hold at the same time, sun 00:00", "where the other begins"],
        ),
        (
            &schedules("{ name: a, to: 6:00, rate: 2/s }, { name: a, from: 6:00, rate: 3/s }"),
            "3:87",
            &["there is a schedule `a` already"],
        ),
        (
            &schedules("{ name: a, to: 6:00, rate: 2/s }, { name: b, from: 6:00, timezone: Asia/Tokyo, rate: 3/s }"),
            "3:108",
            &["one time zone", "`timezone: UTC`"],
        ),
        (&schedules("{ name: a, to: 6:00, rate: [2/s, 9/m] }"), "3:72", &["same periods", "two limits"]),
        (&schedules("{ name: a, to: 6:00, in_flight: 5 }"), "3:72", &["counts as its limit does"]),
        (
            &limits("{ name: a, key: host, rate: 1/s, dynamic_overrides: {} }"),
            "3:43",
            &["nothing caps", "`max_rate: 10000/m`"],
        ),
        (
            &limits("{ name: a, key: host, rate: 1/s, dynamic_overrides: { max_rate: 0/s } }"),
            "3:74",
            &["0/s allows nothing"],
        ),
        (
            &limits("{ key: host, rate: 1/s, dynamic_overrides: { max_rate: 9/s } }"),
            "3:34",
            &["needs a name", "admin API"],
        ),
        (
            &limits("{ name: a, key: global, rate: 1/s, dynamic_overrides: { max_rate: 9/s } }"),
            "3:45",
            &["all requests are one key", "the limit's own rate"],
        ),
        (
            &limits("{ name: a, key: host, in_flight: 5, dynamic_overrides: { max_rate: 9/s } }"),
            "3:46",
            &["change rates, and this limit has none"],
        ),
        (
            &limits("{ name: a, key: host, rate: 9/s, cost: 5, dynamic_overrides: { max_rate: 9/s, max_burst: 4 } }"),
            "3:99",
            &["that costs 5", "`max_burst: 5` or more"],
        ),
        (&limits("{ key: client_ip, rate: 1/s, spread_retry: 5ms }"), "3:53", &["whole seconds", "1s or more"]),
        (&limits("{ key: client_ip, in_flight: 5, spread_retry: 5s }"), "3:42", &["no meaning beside `in_flight`"]),
        (&limits("{ key: client_ip, rate: 1/s, warn_at: 0% }"), "3:48", &["warns every request", "80%"]),
        (&limits("{ key: client_ip, rate: 1/s, warn_at: 80 }"), "3:48", &["`80` is not a share"]),
        (
            &limits("{ key: client_ip, rate: 1/s, mode: shadow, shadow: { enforce: 101% } }"),
            "3:72",
            &["`101%` is not a share"],
        ),
    ]);
}

#[test]
fn a_block_is_named_by_its_first_address() {
    assert_cured(&[
        (
            &limits("{ key: client_ip, rate: 1/s, overrides: [{ key: 10.0.0.1/8, rate: 2/s }] }"),
            "3:58",
            &["an address within a block", "`10.0.0.0/8` for the block, or `10.0.0.1` for the address"],
        ),
        (
            "listen: :8080\nupstream: echo\ntrusted_proxies: ['2001:db8::1/32']",
            "3:19",
            &["an address within a block", "write `2001:db8::/32`"],
        ),
    ]);
}

#[test]
fn what_is_written_in_the_words_of_others_is_understood_and_corrected() {
    let top = |keys: &str| format!("listen: :8080\nupstream: echo\n{keys}\n");
    let rate = |rate: &str| limits(&format!("{{ key: client_ip, rate: {rate} }}"));
    let limit = |keys: &str| limits(&format!("{{ key: client_ip, rate: 9/s, {keys} }}"));
    assert_cured(&[
        // Long forms.
        (&top("admin: 127.0.0.1:9901"), "3:8", &["did you mean `admin: { address: \"127.0.0.1:9901\" }`?"]),
        (&top("admin: off"), "3:8", &["write `admin: { address: 127.0.0.1:9901 }`, or `admin: none`"]),
        (&top("store: redis"), "3:8", &["write `store: { redis: { url: redis://127.0.0.1:6379/0 } }`"]),
        (&top("store: 'redis://h'"), "3:8", &["not given as an address alone", "`store: { redis: { url:"]),
        (&top("store: { redis: 'redis://h' }"), "3:17", &["found a single value", "write `redis: { url: redis://"]),
        // Keys of other places.
        (&top("rate: 10/s"), "3:1", &["unknown key `rate`", "it belongs in an item of `limits`"]),
        (&top("penalty: {}"), "3:1", &["it belongs in an item of `limits`"]),
        (&top("schedules: []"), "3:1", &["it belongs in an item of `limits`"]),
        (&top("dynamic_overrides: {}"), "3:1", &["it belongs in an item of `limits`"]),
        (&top("mode: shadow"), "3:1", &["it belongs in an item of `limits`"]),
        (&top("timeout: 5s"), "3:1", &["it belongs in an item of `routes`"]),
        (&top("host: a"), "3:1", &["it belongs in `match` of a route"]),
        (&route("name: a, upstream: users, rate: 1/s"), "4:33", &["it belongs in an item of `limits`"]),
        (&route("name: a, upstream: users, path: /a"), "4:33", &["it belongs in `match`"]),
        (&route("name: a, upstream: users, store: memory"), "4:33", &["it belongs at the top of the file"]),
        (&limit("block: 5m"), "3:39", &["it belongs in `penalty`"]),
        (&limit("overrides: [{ key: 10.0.0.1, rate: 1/s, cost: 5 }]"), "3:79", &["it belongs in the limit itself"]),
        (&redis("url: redis://a, max_keys: 5"), "4:19", &["it belongs in `store`, beside `redis`"]),
        // Values.
        (&limits("{ key: client_ip, algorithm: in_flight }"), "3:39", &["write `in_flight: 5` for five at once"]),
        (&limit("algorithm: gcra"), "3:50", &["write `token_bucket`"]),
        (&rate("10/sec"), "3:34", &["did you mean `10/s`?"]),
        (&rate("0.5/s"), "3:34", &["did you mean `1/2s`?"]),
        (&rate("10/min"), "3:34", &["did you mean `10/m`?"]),
        (&rate("5/w"), "3:34", &["did you mean `5/7d`?"]),
        (&rate("999999999999999999999/s"), "3:34", &["is too large for a rate", "a smaller count"]),
        (&limit("warn_at: 80"), "3:48", &["`80` is not a share", "did you mean `80%`?"]),
        (&limit("refund: { status: 5XX }"), "3:57", &["did you mean `5xx`?", "\n1 error in"]),
        (&limit("count: { status: [4xx, 600] }"), "3:62", &["`600` is not a status", "\n1 error in"]),
        (&limit("count: { status: [] }"), "3:39", &["`count` names no answer"]),
    ]);
    let secret = frames(&top("store: 'redis://:hunter2@h'"));
    assert!(!secret.contains("hunter2"), "{secret}");
}

/// Each of these texts is refused at this place with these words.
#[track_caller]
fn assert_cured(cases: &[(&str, &str, &[&str])]) {
    let mut wrong = String::new();
    for (text, place, expected) in cases {
        let out = frames(text);
        let place = if place.is_empty() { "error".to_owned() } else { format!("proxy.yaml:{place}") };
        for expected in std::iter::once(place.as_str()).chain(expected.iter().copied()) {
            if !out.contains(expected) {
                let _ = writeln!(wrong, "`{expected}` is missing in\n{out}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_frame_shows_the_line_and_underlines_the_value() {
    let out = frames("listen: :8080\nupstream: echo\nlimits:\n  - { key: client_ip, rate: fast }\n");
    let expected = "\
error: `fast` is not a rate
 --> proxy.yaml:4:29
  |
4 |   - { key: client_ip, rate: fast }
  |                             ^^^^
  |
  = help: write a count and a period, such as 100/s, 5/10s, 1000/m or 50000/d

1 error in proxy.yaml
";
    assert_eq!(out, expected);
}

#[test]
fn every_mistake_is_found_in_one_run() {
    let report = read(
        "listen: nonsense\nupstraem: echo\nworkers: 0\nclient_ip: { header: 'a b' }\nlimits:\n\
         \x20 - { key: clientip, rate: fast, brust: 2 }\n\
         \x20 - { key: client_ip, rate: 1/s, burst: 1, cost: 2, mode: '${MODE}' }\n\
         routes:\n  - { name: a, upstream: nowhere, timeout: 0s }\n",
    )
    .unwrap_err();
    let lines: Vec<_> = report
        .diagnostics
        .iter()
        .filter_map(|diagnostic| diagnostic.span.map(|span| report.position(span.start).0))
        .collect();
    assert_eq!(lines, [1, 2, 3, 4, 6, 6, 6, 7, 7, 9, 9], "{report}");
    assert_eq!(report.errors(), 11);
}

#[test]
fn a_limit_by_host_is_no_doubt_where_hosts_cannot_be_invented_or_addresses_count_too() {
    let named = hosted("match: { host: [example.com, www.example.com] }", "{ key: host, rate: 1/s }");
    let beside = limits("{ key: host, rate: 1/s }, { key: client_ip, rate: 1/s }");
    let everywhere = named.clone() + "limits: [{ key: [host, method], rate: 2/s }]\n";
    for text in [named, beside, everywhere] {
        assert!(!warnings(&text).contains("warning"), "{text}");
    }
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let redis = "store: { redis: { url: redis://127.0.0.1 } }\n";
    let two = "{ name: a, key: client_ip, rate: 1/s, burst: 5 }, { name: b, key: client_ip, rate: 2/s, burst: 10 }";
    let cases: &[(String, &str, &str)] = &[
        (limits(two), "3:68", "this limit can never bind: `a` has the same key and is tighter"),
        (limits("{ key: 'header:x-key', rate: 1/s }"), "3:17", "a client leaves this limit behind"),
        (limits("{ key: host, rate: 1/s }"), "3:17", "by inventing another host"),
        (
            hosted("match: { host: '*.example.com' }", "{ key: [host, method], rate: 1/s }"),
            "4:74",
            "name `host:` in the",
        ),
        (
            limits(
                "{ name: a, key: client_ip, algorithm: sliding_log, rate: 1/s, \
                    schedules: [{ name: b, to: 1:00, rate: 9/m }] }",
            ),
            "3:105",
            "counts start afresh where it begins and ends",
        ),
        (
            limits("{ name: a, key: client_ip, rate: 1/s, tiers: { by: 'header:x-plan', values: { pro: 9/s } } }"),
            "3:61",
            "clients choose their tier themselves: whoever sends `header:x-plan` is believed",
        ),
        (
            limits("{ key: client_ip, rate: 9/s }, { key: 'header:x-forwarded-for', rate: 1/s }"),
            "3:48",
            "clients write `x-forwarded-for` themselves",
        ),
        (
            limits("{ key: client_ip, rate: 9/s }, { key: 'cookie:id', rate: 1/s }") + redis,
            "3:48",
            "stand in Redis as an unkeyed hash",
        ),
        ("listen: :8080\nupstream: echo\nlimits:\n".to_owned(), "3:1", "there is nothing below `limits`"),
        (limits("{ key: client_ip, rate: 9/s, cost: { default: 1, PSOT: 2 } }"), "3:59", "HTTP knows no method `PSOT`"),
        (route("name: a, upstream: users, match: { method: PATHC }"), "4:50", "HTTP knows no method `PATHC`"),
        (
            limits("{ key: client_ip, rate: 9/s, count: { status: [401, 403] }, refund: { status: 4xx } }"),
            "3:70",
            "no answer of the upstream counts",
        ),
        (
            limits(
                "{ key: client_ip, rate: 1/s, overrides: [{ key: 10.0.0.0/8, rate: 2/s }, { key: 10.1.2.3, rate: 3/s }] }",
            ),
            "3:90",
            "`10.1.2.3` never gets as far as here",
        ),
        (
            limits(
                "{ key: host, rate: 1/s, overrides: [{ key: [a, b], rate: 2/s }, { key: [b, c], rate: 3/s }] }, { key: client_ip, rate: 9/s }",
            ),
            "3:82",
            "`b` never gets as far as here",
        ),
        (limits("") + "trusted_proxies: 0.0.0.0/0", "4:18", "each client chooses its own address"),
        (limits("") + "client_ip: { header: cf-connecting-ip }", "4:22", "this field is never believed"),
        (limits("") + "store: { redis: { url: 'redis://:hunter2@h' } }", "4:24", "a secret written in the file"),
        (limits("") + "store: { redis: { url: redis://h, password: x } }", "4:45", "a secret written in the file"),
        (
            route("name: a, upstream: users }\n  - { name: b, upstream: users, match: { path: /* }"),
            "5:13",
            "no request reaches the route `b`: `a` takes them all",
        ),
        (
            route("name: a, upstream: users, match: { path: /login }, limits: [{ key: client_ip, rate: 5/m }]"),
            "4:13",
            "passwords tried from many addresses pass these limits",
        ),
    ];
    for (text, place, expected) in cases {
        let out = warnings(text);
        assert!(out.contains(&format!("proxy.yaml:{place}\n")), "{place} in\n{out}");
        assert!(out.contains(expected), "`{expected}` in\n{out}");
        assert!(out.ends_with("1 warning in proxy.yaml\n"), "{out}");
    }
}

#[test]
fn what_may_be_meant_is_no_warning() {
    for text in [
        limits("{ key: client_ip, rate: 9/s, cost: { default: 1, PURGE: 2, QUERY: 3, PROPFIND: 4 } }"),
        // All of 4xx but 404.
        limits("{ key: client_ip, rate: 9/s, count: { status: 4xx }, refund: { status: 404 } }"),
        // The second is a value of the field.
        limits(
            "{ key: 'header:x-id | client_ip', rate: 1/s, \
             overrides: [{ key: 10.0.0.0/8, rate: 2/s }, { key: 'header:x-id=10.1.2.3', rate: 3/s }] }, { key: client_ip, rate: 9/s }",
        ),
        limits("{ key: host, rate: 1/s, overrides: [{ key: 10.0.0.1/8, rate: 2/s }] }, { key: client_ip, rate: 9/s }"),
        "listen: :8080\nupstream: echo\nlimits: []\n".to_owned(),
    ] {
        let out = warnings(&text);
        assert!(!out.contains("warning"), "{text}\n{out}");
    }
}

#[test]
fn the_environment_fills_in_values_of_every_kind_and_never_structure() {
    let env = |name: &str| match name {
        "PORT" => Some("9000".to_owned()),
        "BURST" => Some("7".to_owned()),
        "EVIL" => Some("echo\nworkers: 9".to_owned()),
        _ => None,
    };
    let text = "listen: :${PORT}\nupstream: echo\nlimits: [{ key: client_ip, rate: '${R:-3/s}', burst: '${BURST}' }]\n";
    let loaded = read_with(text, &env).unwrap();
    assert_eq!(loaded.config.listeners[0].address.to_string(), "[::]:9000");
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let report = read_with("listen: :8080\nupstream: ${EVIL}\n", &env).unwrap_err().to_string();
    assert!(report.contains("proxy.yaml:2:11"), "{report}");
}

#[test]
fn a_secret_from_the_environment_is_not_repeated_in_a_message() {
    let env = |_: &str| Some("hunter2".to_owned());
    for text in ["listen: ${X}\nupstream: echo", "listen: :80\nupstream: echo\nworkers: ${X}"] {
        let report = read_with(text, &env).unwrap_err();
        assert!(!report.to_string().contains("hunter2") && report.to_string().contains("${X}"), "{report}");
    }
}

#[test]
fn a_secret_written_in_the_file_is_covered_in_its_frame() {
    let text = limits("") + "store: { redis: { url: 'redis://:hunter2@h', password: hunter2 } }\nlog: loud\n";
    let report = read(&text).unwrap_err();
    for shown in [report.render(Colour::Ansi), report.json().to_string(), report.github()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(report.to_string().contains("redis://:*******@h"), "{report}");
}

#[test]
fn yaml_bombs_are_refused_quickly() {
    let mut laughs = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (name, of) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
        let _ = writeln!(laughs, "{name}: &{name} [{}]", vec![format!("*{of}"); 10].join(", "));
    }
    let deep = format!("listen: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = (0..5_000).map(|depth| " ".repeat(depth % 1_000)).collect::<Vec<_>>().join("a:\n");
    let large = format!("listen: {}", "x".repeat(5 << 20));
    let many = (0..300_000).map(|number: u32| number.to_string()).collect::<Vec<_>>().join(": 1\n");
    for text in [laughs, deep, nested, large, many] {
        let begun = std::time::Instant::now();
        assert!(read(&text).is_err());
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "took {:?}", begun.elapsed());
    }
}

#[test]
fn booleans_of_yaml_1_1_and_numbers_are_text_where_text_is_meant() {
    let text = "listen: :8080\nroutes:\n  - { name: on, upstream: echo, match: { headers: { x-version: 1.10, x-on: yes } } }\n\
                limits: [{ name: 007, key: host, rate: 5/m, overrides: [{ key: 1e3, rate: unlimited }] }]\n";
    let loaded = read(text).unwrap();
    let route = loaded.config.router.routes().next().unwrap();
    assert_eq!(&*route.name, "on");
    assert_eq!(route.matches.headers[0].1.to_string(), ": 1.10");
    assert_eq!(route.matches.headers[1].1.to_string(), ": yes");
    assert_eq!(&*loaded.config.policies[0].name, "007");
}

#[test]
fn a_file_that_is_missing_is_one_sentence() {
    let origin = Origin::File(PathBuf::from("/nowhere/proxy.yaml"));
    let report = tollgate::config::load(&origin).unwrap_err();
    assert_eq!(report.diagnostics.len(), 1);
    let message = &report.diagnostics[0].message;
    assert_eq!(message, "cannot read the configuration `/nowhere/proxy.yaml`: there is no such file");
}

#[test]
fn github_annotations_and_json_carry_the_same_places() {
    let report = read("listen: :8080\nupstraem: echo\n").unwrap_err();
    assert!(report.github().starts_with("::error file=proxy.yaml,line=2,col=1::unknown key `upstraem`%0Ahelp: did"));
    let json = report.json();
    assert_eq!(json["diagnostics"][0]["line"], 2);
    assert_eq!(json["diagnostics"][0]["end_column"], 9);
}

#[test]
fn an_override_is_a_block_where_addresses_are_counted_and_a_value_elsewhere() {
    use tollgate::limit::policy::OverrideMatch::{Network, Value};
    let of = |key: &str| {
        let text =
            limits(&format!("{{ name: a, key: {key}, rate: 1/s, overrides: [{{ key: 10.0.0.1, rate: 0/s }}] }}"));
        read(&text).unwrap().config.policies[0].overrides[0].matches.clone()
    };
    let network = [Network("10.0.0.1/32".parse().unwrap())];
    let value = Value { part: tollgate::limit::key::KeyPart::Host, value: "10.0.0.1".into() };
    assert_eq!(of("client_ip"), network);
    assert_eq!(of("host"), [value]);
    assert_eq!(of("'header:x-id | client_ip'"), network, "never a value that clients write");
    assert_eq!(of("'header:x-id'"), network, "those without the field are counted by address");
}

#[test]
fn limits_of_every_request_come_first_and_defaults_are_what_is_documented() {
    let text = "listen: :8080\nroutes:\n  - { name: a, upstream: echo, limits: [{ key: host, rate: 5/10s }] }\n\
                limits: [{ key: client_ip, rate: 9/s }]\n";
    let config = read(text).unwrap().config;
    let route = config.router.routes().next().unwrap();
    let names: Vec<_> = route.policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["default/client_ip", "a/host"]);
    assert!(config.policies.iter().enumerate().all(|(index, policy)| policy.index == index));
    let tollgate::limit::policy::Terms::Limited(limit) = &route.policies[1].terms else { panic!("limited") };
    assert_eq!(limit[0].algorithm.capacity(), 5);
    assert_eq!(config.router.routes().last().unwrap().policies.len(), 1, "unmatched requests have the global ones");
    assert_eq!(config.admin.unwrap().address.to_string(), "127.0.0.1:9901");
    assert_eq!(config.listeners[0].address.to_string(), "[::]:8080");
    assert_eq!(config.listeners[0].idle_timeout.as_secs(), 75);
    assert_eq!(config.store.max_keys, 1_000_000);
}

#[test]
fn no_damage_to_a_file_is_met_with_a_panic_or_a_place_outside_it() {
    let full = include_str!("../../examples/full.yaml");
    let mut random = fastrand::Rng::with_seed(7);
    let assert_sound = |text: &str| {
        let (Ok(Loaded { warnings: report, .. }) | Err(report)) = read(text);
        let inside = |span: &tollgate::config::frames::Span| span.start <= span.end && span.end <= text.len();
        assert!(report.diagnostics.iter().filter_map(|diagnostic| diagnostic.span).all(|span| inside(&span)), "{text}");
        let drawn = [report.render(Colour::Plain), report.json().to_string(), report.github()];
        assert!(drawn.iter().all(|drawn| report.is_empty() || !drawn.is_empty()), "{text}");
    };
    for _ in 0..300 {
        let cut = full.floor_char_boundary(random.usize(..full.len()));
        assert_sound(&full[..cut]);
        let mut damaged: Vec<char> = full.chars().collect();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..damaged.len());
            damaged[at] = *random
                .choice(&[':', ' ', '{', '}', '[', ']', '"', '\'', '\n', '\t', '-', '&', '*', '$', 'é', '0', '\0'])
                .unwrap();
        }
        assert_sound(&damaged.into_iter().collect::<String>());
    }
}

/// Every shape of Redis, written out and read again.
#[test]
fn each_redis_topology_is_read_and_written_out() {
    let shapes = [
        ("url: 'rediss://u@h:7000/3'", "rediss://h:7000/3"),
        (
            "sentinel: { master: m, nodes: ['a:1', '[::1]:2'], username: w }, database: 5",
            "redis master m (sentinels a:1, [::1]:2)",
        ),
        ("sentinel: { master: m, nodes: 'a:1' }, tls: {}", "redis master m (sentinels a:1, TLS)"),
        ("cluster: a:1, username: u, key_prefix: p", "redis cluster (a:1)"),
        ("cluster: ['a:1', 'b:2'], tls: {}, hash_tag: route", "redis cluster (a:1, b:2, TLS)"),
    ];
    for (keys, shown) in shapes {
        let loaded = read(&redis(keys)).unwrap_or_else(|report| panic!("{}", report.render(Colour::Plain)));
        let settings = |config: &Config| match &config.store.backend {
            Backend::Redis(settings) => (**settings).clone(),
            Backend::Memory => panic!("no Redis: {keys}"),
        };
        let first = settings(&loaded.config);
        assert_eq!(first.display(), shown);
        let text = expanded(&loaded.config);
        let again = settings(&read(&text).unwrap_or_else(|report| panic!("{text}\n{report}")).config);
        assert_eq!(format!("{again:?}"), format!("{first:?}"), "{text}");
    }
}

#[test]
fn keys_are_tagged_with_the_route_that_their_limit_belongs_to() {
    let tags = |limits: &str| {
        let text = format!("listen: :8080\n{limits}\nstore: {{ redis: {{ cluster: 'a:1', hash_tag: route }} }}\n");
        let Backend::Redis(settings) = read(&text).unwrap().config.store.backend else { panic!("no Redis") };
        move |state: &str| settings.hash_tags.route_of(state).map(str::to_owned)
    };
    let limit = |name: &str| format!("limits: [{{ name: {name}, key: client_ip, rate: 1/s }}]");
    let alone = tags(&format!("upstream: echo\n{}", limit("a")));
    assert_eq!(alone("a@gold~2").as_deref(), Some("default"), "one route has everything");
    let several = tags(&format!(
        "routes:\n  - {{ name: x, upstream: echo, match: {{ path: /x }}, {} }}\n  - {{ name: y, upstream: echo, {} }}\n{}",
        limit("in-x"),
        limit("in-y"),
        limit("everywhere")
    ));
    assert_eq!([several("in-x").as_deref(), several("in-y").as_deref()], [Some("x"), Some("y")]);
    assert_eq!(several("everywhere"), None, "its state is the same on every route");
}
