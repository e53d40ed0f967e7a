//! What is counted separately, as clients meet it.

use crate::support::client::Request;
use crate::support::tollgate::Tollgate;

/// A proxy with one limit of two per hour with this key (and whatever follows it in braces).
fn limited(key: &str, more: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\ntrusted_proxies: [127.0.0.1/32]\nroutes:\n\
         \x20 - name: all\n    match: {{ path: '/users/{{user}}/*' }}\n    upstream: echo\n\
         \x20   limits: [{{ name: two, key: {key}, rate: 2/h{more} }}]\n"
    ))
}

fn request() -> Request {
    Request::get("/users/ann/x")
}

/// Sends the request three times and expects two to be admitted.
#[track_caller]
fn assert_own_count(proxy: &Tollgate, request: &Request) {
    let statuses: Vec<_> = (0..3).map(|_| proxy.client().send(request).status).collect();
    assert_eq!(statuses, [200, 200, 429], "{request:?}");
}

#[track_caller]
fn assert_same_count(proxy: &Tollgate, request: &Request) {
    assert_eq!(proxy.client().send(request).status, 429, "{request:?} is counted with the others");
}

#[test]
fn cookies_are_compared_decoded() {
    let proxy = limited("'cookie:session'", "");
    assert_own_count(&proxy, &request().header("cookie", "a=b; session=one"));
    assert_same_count(&proxy, &request().header("cookie", "session=%6fne"));
    assert_own_count(&proxy, &request().header("cookie", "session=two"));
}

#[test]
fn query_values_are_compared_decoded() {
    let proxy = limited("'query:k'", "");
    assert_own_count(&proxy, &Request::get("/users/ann/x?a=1&k=one"));
    assert_same_count(&proxy, &Request::get("/users/ann/x?k=%6Fne&b=2"));
    assert_own_count(&proxy, &Request::get("/users/ann/x?k=two"));
}

#[test]
fn path_parameters_are_compared_in_canonical_form() {
    let proxy = limited("'path:user'", "");
    assert_own_count(&proxy, &Request::get("/users/ann/x"));
    for spelling in ["/users/%61nn/y", "//users//ann/z", "/users/bob/../ann/x", "/./users/ann/x"] {
        assert_same_count(&proxy, &Request::get(spelling));
    }
    assert_own_count(&proxy, &Request::get("/users/bob/x"));
}

#[test]
fn the_scheme_of_authorization_is_not_part_of_the_key() {
    let proxy = limited("'header:authorization'", "");
    assert_own_count(&proxy, &request().header("authorization", "Bearer abc"));
    assert_same_count(&proxy, &request().header("authorization", "bearer   abc "));
}

#[test]
fn the_first_present_part_is_the_key() {
    let proxy = limited("'header:x-api-key | client_ip'", "");
    assert_own_count(&proxy, &request().header("x-api-key", "one").from("192.0.2.1"));
    assert_same_count(&proxy, &request().header("x-api-key", "one").from("192.0.2.2"));
    assert_own_count(&proxy, &request().from("192.0.2.1"));
}

#[test]
fn a_combined_key_counts_each_combination() {
    let proxy = limited("[client_ip, 'header:x-user']", "");
    assert_own_count(&proxy, &request().from("192.0.2.1").header("x-user", "ann"));
    assert_own_count(&proxy, &request().from("192.0.2.1").header("x-user", "bob"));
    assert_own_count(&proxy, &request().from("192.0.2.2").header("x-user", "ann"));
    assert_same_count(&proxy, &request().from("192.0.2.1").header("x-user", "ann"));
}

#[test]
fn a_missing_key_is_denied_when_the_limit_says_so() {
    let proxy = limited("'header:x-api-key'", ", missing: deny");
    let denied = proxy.client().send(&request());
    assert_eq!((denied.status, denied.header("retry-after")), (429, None));
    assert_own_count(&proxy, &request().header("x-api-key", "one"));
}

#[test]
fn a_missing_key_is_not_counted_when_the_limit_says_so() {
    let proxy = limited("'header:x-api-key'", ", missing: skip");
    for _ in 0..5 {
        let answer = proxy.client().send(&request());
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
}

#[test]
fn a_missing_key_is_counted_by_address_otherwise() {
    let proxy = limited("'header:x-api-key'", "");
    assert_own_count(&proxy, &request().from("192.0.2.1"));
    assert_own_count(&proxy, &request().from("192.0.2.2"));
}

#[test]
fn a_key_that_occurs_twice_is_refused() {
    let proxy = limited("'header:x-api-key'", "");
    let twice = request().header("x-api-key", "one").header("x-api-key", "two");
    assert_eq!(proxy.client().send(&twice).status, 400);
    let proxy = limited("'query:k'", "");
    assert_eq!(proxy.get("/users/ann/x?k=1&k=2").status, 400);
    let proxy = limited("'cookie:k'", "");
    assert_eq!(proxy.client().send(&request().header("cookie", "k=1; k=2")).status, 400);
}

#[test]
fn overrides_hold_for_their_keys() {
    let overrides =
        ", overrides: [{ key: [10.20.0.0/16, 'monitoring'], rate: unlimited }, { key: abusive, rate: 0/s }]";
    let proxy = limited("'header:x-api-key | client_ip'", overrides);
    for _ in 0..5 {
        assert_eq!(proxy.client().send(&request().header("x-api-key", "monitoring")).status, 200);
        assert_eq!(proxy.client().send(&request().from("10.20.30.40")).status, 200);
    }
    assert_eq!(proxy.client().send(&request().header("x-api-key", "abusive")).status, 429);
    assert_own_count(&proxy, &request().header("x-api-key", "normal"));
}

#[test]
fn x_forwarded_for_is_walked_from_the_right_to_the_first_stranger() {
    let proxy = limited("client_ip", "");
    assert_own_count(&proxy, &request().from("198.51.100.7"));
    for spoofed in [
        "203.0.113.1, 198.51.100.7",
        "1.1.1.1, 2.2.2.2, 198.51.100.7",
        "198.51.100.7, 127.0.0.1",
        "garbage, 198.51.100.7",
    ] {
        assert_same_count(&proxy, &request().from(spoofed));
    }
    assert_same_count(&proxy, &request().from("203.0.113.1").from("198.51.100.7"));
    assert_same_count(&proxy, &request().from("198.51.100.7:4711"));
    assert_same_count(&proxy, &request().from("::ffff:198.51.100.7"));
}

#[test]
fn x_forwarded_for_of_a_stranger_is_not_believed() {
    let proxy = Tollgate::start("listen: 127.0.0.1:0\nupstream: echo\nlimits: [{ key: client_ip, rate: 2/h }]\n");
    let statuses: Vec<_> =
        (1..4).map(|n| proxy.client().send(&Request::get("/").from(&format!("192.0.2.{n}"))).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn addresses_of_one_ipv6_network_are_one_client() {
    let proxy = limited("client_ip", "");
    assert_own_count(&proxy, &request().from("2001:db8:0:1::1"));
    for neighbour in ["2001:db8:0:1::2", "2001:db8:0:1:ffff:ffff:ffff:ffff", "[2001:db8:0:1::3]:443"] {
        assert_same_count(&proxy, &request().from(neighbour));
    }
    assert_own_count(&proxy, &request().from("2001:db8:0:2::1"));
}

#[test]
fn a_listener_on_ipv6_limits_too() {
    let proxy = Tollgate::start("listen: '[::1]:0'\nupstream: echo\nlimits: [{ key: client_ip, rate: 2/h }]\n");
    let statuses: Vec<_> = (0..3).map(|_| proxy.get("/").status).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn methods_may_cost_differently() {
    let proxy = limited("client_ip", ", cost: { default: 1, POST: 2 }");
    let from = |request: Request, address| proxy.client().send(&request.from(address)).remaining("two");
    assert_eq!(from(request(), "192.0.2.1"), 1);
    assert_eq!(from(Request::post("/users/ann/x", b""), "192.0.2.2"), 0);
}

#[test]
fn a_key_value_cannot_forge_a_separator_or_a_hash_tag() {
    let proxy = limited("['header:x-a', 'header:x-b']", "");
    assert_own_count(&proxy, &request().header("x-a", "one:two").header("x-b", "three"));
    assert_own_count(&proxy, &request().header("x-a", "one").header("x-b", "two:three"));
    assert_own_count(&proxy, &request().header("x-a", "{tag}").header("x-b", "}{"));
}

#[test]
fn a_huge_key_is_a_key_like_any_other() {
    let proxy = limited("'header:x-api-key'", "");
    let huge = "k".repeat(10_000);
    assert_own_count(&proxy, &request().header("x-api-key", &huge));
    assert_own_count(&proxy, &request().header("x-api-key", &format!("{huge}2")));
}

#[test]
fn a_comma_inside_quotes_divides_nothing_in_forwarded() {
    let proxy = Tollgate::start(
        "listen: 127.0.0.1:0\nupstream: echo\ntrusted_proxies: [127.0.0.1/32]\nclient_ip: { header: forwarded }\n\
         limits: [{ name: two, key: client_ip, rate: 2/h }]\n",
    );
    let forwarded = |value: &str| request().header("forwarded", value);
    assert_own_count(&proxy, &forwarded("for=192.0.2.9"));
    for same in [
        r#"for=192.0.2.9;host="a,for=203.0.113.7;x=""#,
        r#"for=192.0.2.9;host="a\",for=203.0.113.7;x=""#,
        r#"host="a;for=203.0.113.7,b";For="192.0.2.9:4711""#,
        "for=203.0.113.7 , ;for=192.0.2.9;",
    ] {
        assert_same_count(&proxy, &forwarded(same));
    }
    assert_own_count(&proxy, &request());
    for nonsense in [
        r#"for=203.0.113.7;host="a"#,
        r#"for=203.0.113.7;host="a\"#,
        r#"for=203.0.113.7;x=", for="[2001:db8::1]:80""#,
        r#"host="a"b, for=203.0.113.7"#,
        "for=203.0.113.7;for=192.0.2.9",
        "for=203.0.113.7 x",
        "for=203.0.113.7;host",
        "for:203.0.113.7",
    ] {
        assert_same_count(&proxy, &forwarded(nonsense));
    }
}
