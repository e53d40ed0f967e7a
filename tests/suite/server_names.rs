//! Servers that are given by name: their addresses come from DNS, and change with it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::dns::{NameServer, Service};
use crate::support::eventually;
use crate::support::tollgate::{Tollgate, field};
use crate::support::upstream::Upstream;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 2);

/// Two servers on one port of two loopback addresses.
fn two_servers() -> ([Upstream; 2], u16) {
    let first = Upstream::listening((FIRST, 0).into(), |peer, _| peer.answer("first"));
    let port = first.address().port();
    let second = Upstream::listening((SECOND, port).into(), |peer, _| peer.answer("second"));
    ([first, second], port)
}

fn in_front_of(server: &str, dns: &NameServer) -> Tollgate {
    Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: {server}\ndns: {{ nameservers: '{}' }}\n",
        dns.address()
    ))
}

fn answering(proxy: &Tollgate) -> BTreeSet<String> {
    let mut client = proxy.client();
    (0..6).map(|_| client.get("/").text()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_address_of_a_name_gets_requests_and_changes_are_followed() {
    let (_servers, port) = two_servers();
    let dns = NameServer::start();
    dns.set("api.test", &[FIRST]);
    let proxy = in_front_of(&format!("http://api.test:{port}"), &dns);
    eventually("the name is known", || (answering(&proxy) == set(&["first"])).then_some(()));
    dns.set("api.test", &[SECOND, FIRST]);
    eventually("both are asked", || (answering(&proxy) == set(&["first", "second"])).then_some(()));
    dns.set("api.test", &[SECOND]);
    eventually("the first is left", || (answering(&proxy) == set(&["second"])).then_some(()));
}

#[test]
fn a_name_that_is_lost_keeps_its_last_addresses() {
    let (_servers, port) = two_servers();
    let dns = NameServer::start();
    dns.set("api.test", &[FIRST]);
    let proxy = in_front_of(&format!("http://api.test:{port}"), &dns);
    eventually("the name is known", || (answering(&proxy) == set(&["first"])).then_some(()));
    dns.forget("api.test");
    proxy.wait_for_log("the loss", |line| field(line, "message").starts_with("upstream name cannot be resolved"));
    assert_eq!(answering(&proxy), set(&["first"]));
    dns.set("api.test", &[SECOND]);
    proxy.wait_for_log("its return", |line| field(line, "message") == "upstream name is resolved again");
    eventually("it is where it is now", || (answering(&proxy) == set(&["second"])).then_some(()));
}

#[test]
fn a_name_without_an_address_is_502_and_says_so() {
    let dns = NameServer::start();
    let proxy = in_front_of("http://nobody.test:80", &dns);
    let answer = proxy.get("/");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("proxy-status"), Some("tollgate; error=dns_error"));
    eventually("it was asked", || (dns.questions() > 0).then_some(()));
}

/// Not the address that the system would tell meanwhile, nor a connection that nobody finds again.
#[test]
fn the_first_request_waits_for_the_first_answer() {
    let ([first, _second], port) = two_servers();
    let dns = NameServer::start();
    dns.set("api.test", &[FIRST]);
    dns.delay(Duration::from_millis(200));
    let proxy = in_front_of(&format!("http://api.test:{port}"), &dns);
    assert_eq!(answering(&proxy), set(&["first"]));
    assert_eq!(first.connections(), 1);
}

#[test]
fn name_servers_that_do_not_know_a_name_are_believed() {
    let (_servers, port) = two_servers();
    let dns = NameServer::start();
    // inet_aton(3) takes this for 127.0.0.1.
    let proxy = in_front_of(&format!("http://127.1:{port}"), &dns);
    let answer = proxy.get("/");
    assert_eq!(answer.header("proxy-status"), Some("tollgate; error=dns_error"), "the system knows it");
    dns.set("127.1", &[SECOND]);
    eventually("it has an address", || (proxy.get("/").text() == "second").then_some(()));
    proxy.wait_for_log("the change", |line| field(line, "message") == "upstream name is resolved again");
}

#[test]
fn a_name_that_never_had_an_address_is_not_asked_while_another_server_can_be() {
    let (_servers, port) = two_servers();
    let dns = NameServer::start();
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\ndns: {{ nameservers: '{}' }}\n\
         upstreams: {{ api: {{ servers: ['http://{FIRST}:{port}', 'http://nobody.test:{port}'] }} }}\nupstream: api\n",
        dns.address()
    ));
    proxy.wait_for_log("why", |line| {
        field(line, "message") == "upstream name cannot be resolved; it is not asked until it has an address"
    });
    let mut client = proxy.client();
    (0..10).for_each(|_| assert_eq!(client.get("/").status, 200));
    let server = format!("nobody.test:{port}");
    let (nobody, up) = ([("upstream", "api"), ("server", &*server)], |state| ("state", state));
    let endpoints = |state| proxy.metrics().count("tollgate_upstream_endpoints", &[&nobody[..], &[up(state)]].concat());
    assert_eq!((endpoints("healthy"), endpoints("down")), (0, 1));
    assert_eq!(proxy.metrics().count("tollgate_upstream_retries_total", &nobody), 0);
}

#[test]
fn srv_records_tell_ports_weights_and_backups() {
    let (servers, port) = two_servers();
    let dns = NameServer::start();
    dns.set("one.test", &[FIRST]);
    dns.set("two.test", &[SECOND]);
    let service = |priority, weight, target| Service { priority, weight, port, target };
    dns.set_services("_http._tcp.api.test", &[service(1, 3, "one.test"), service(1, 1, "two.test")]);
    let proxy = in_front_of("srv+http://_http._tcp.api.test", &dns);
    eventually("both are asked", || (answering(&proxy) == set(&["first", "second"])).then_some(()));
    let before = servers.each_ref().map(|server| server.seen().len());
    let mut client = proxy.client();
    (0..40).for_each(|_| assert_eq!(client.get("/").status, 200));
    let [first, second] = [0, 1].map(|n| servers[n].seen().len() - before[n]);
    assert!(first.abs_diff(30) <= 2 && second.abs_diff(10) <= 2, "{first} and {second}");
    dns.set_services("_http._tcp.api.test", &[service(1, 1, "two.test"), service(2, 1, "one.test")]);
    eventually("the higher number waits", || (answering(&proxy) == set(&["second"])).then_some(()));
}
