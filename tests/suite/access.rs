//! Who is let in, by the client's address: before anything else, and per route.

use crate::routing::{assert_problem, routed, routed_with, told};
use crate::support::client::{Answer, Client, Request};
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn from(proxy: &Tollgate, address: &str, target: &str) -> Answer {
    Client::connect(proxy.web()).send(&Request::get(target).from(address))
}

#[test]
fn denied_addresses_get_403_before_anything_is_counted() {
    let upstream = Upstream::replying(OK);
    let proxy = routed_with(
        &upstream,
        "  - { name: a, match: { path: /a }, upstream: web }\n",
        "trusted_proxies: [127.0.0.0/8]\naccess: { allow: [192.0.2.0/24, 2001:db8::/32], deny: [192.0.2.66, 2001:db8:6::/48] }\n\
         access_log: { only: errors }\nlimits: [{ name: all, key: global, rate: 1/h, burst: 3 }]\n",
    );
    for address in ["192.0.2.66", "198.51.100.1", "2001:db8:6::1", "::ffff:192.0.2.66", "garbage"] {
        for target in ["/a", "/unmatched", "/a/%zz", "/a"] {
            let answer = from(&proxy, address, target);
            assert_problem(&answer, 403);
            assert_eq!(answer.list("proxy-status"), "tollgate; error=http_request_denied");
            assert_eq!(answer.header("ratelimit"), None, "{address}: a limit was asked");
        }
    }
    assert!(upstream.seen().is_empty());
    for address in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1"] {
        assert_eq!(from(&proxy, address, "/a").status, 200, "{address}");
    }
    assert_eq!(from(&proxy, "192.0.2.1", "/a").status, 429, "three were left for those who are let in");
    let metrics = proxy.metrics();
    assert_eq!(metrics.count("tollgate_rejected_requests_total", &[("error", "access_denied")]), 20);
    let lines = proxy.access_lines(20);
    assert!(lines.iter().all(|line| line["status"] == 403 && line["error"] == "access_denied"), "{lines:?}");
    assert_eq!((&lines[0]["client"], &lines[0]["path"]), (&"192.0.2.66".into(), &"/a".into()));
}

#[test]
fn a_route_may_be_for_some_addresses_only() {
    let upstream = Upstream::replying(OK);
    let proxy = routed_with(
        &upstream,
        "  - { name: admin, match: { path: /admin/* }, upstream: web, access: { allow: private, deny: 10.6.6.6 }, limits: [{ name: admin, key: global, rate: 1/h }] }\n  \
         - { name: rest, upstream: web }\n",
        "trusted_proxies: [127.0.0.0/8]\n",
    );
    for (address, target, expected) in [
        ("198.51.100.1", "/admin/x", 403),
        ("198.51.100.1", "//admin/./x", 403),
        ("198.51.100.1", "/%61dmin/x", 403),
        ("10.6.6.6", "/admin/x", 403),
        ("198.51.100.1", "/x", 200),
        ("10.1.2.3", "/admin/x", 200),
        ("10.1.2.3", "/admin/x", 429),
        ("198.51.100.1", "/admin/x", 403),
    ] {
        assert_eq!(from(&proxy, address, target).status, expected, "{address} {target}");
    }
}

#[test]
fn what_an_untrusted_client_says_of_its_address_opens_nothing() {
    let upstream = Upstream::replying(OK);
    let proxy = routed(&upstream, "  - { name: a, upstream: web, access: { deny: 127.0.0.1 } }\n");
    for field in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        let value = if field == "forwarded" { "for=192.0.2.1" } else { "192.0.2.1" };
        assert_problem(&proxy.client().send(&Request::get("/").header(field, value)), 403);
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn blocks_are_checked_as_those_of_trusted_proxies() {
    for (access, expected) in [
        ("{ deny: 10.0.0.300 }", "is not an address block"),
        ("{ allow: [10.0.0.1/8] }", "write `10.0.0.0/8` for the block"),
        ("{}", "this lets everybody in"),
        ("{ alow: private }", "did you mean `allow`?"),
    ] {
        let text = told(&["check"], &format!("listen: :0\nupstream: echo\naccess: {access}\n"));
        assert!(text.contains(expected) && text.contains("<stdin>:3:"), "{access}:\n{text}");
    }
}
