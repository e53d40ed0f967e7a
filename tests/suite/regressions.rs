//! One test for each fault that was found after it had been believed not to be there.

use crate::support::client::Request;
use crate::support::tollgate::Tollgate;
use crate::support::upstream::Scripted;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy that trusts nobody, with one limit of two per hour (and whatever follows it in braces).
fn limited(upstream: &str, limit: &str) -> Tollgate {
    Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nupstreams: {{ web: \"{upstream}\" }}\nroutes:\n\
         \x20 - name: all\n    match: {{ path: '/users/{{user}}' }}\n    upstream: web\n\
         \x20   limits: [{{ name: two, rate: 2/h, {limit} }}]\n"
    ))
}

/// Sends these requests, each on a connection of its own, and tells their statuses.
fn statuses(proxy: &Tollgate, requests: &[Request]) -> Vec<u16> {
    requests.iter().map(|request| proxy.client().send(request).status).collect()
}

#[test]
fn a_path_parameter_is_one_key_however_it_is_encoded() {
    let upstream = Scripted::replying(OK);
    let proxy = limited(&upstream.url(), "key: 'path:user'");
    let sent = ["a@b", "a%40b", "%61%40b", "a%40%62"].map(|user| Request::get(&format!("/users/{user}")));
    assert_eq!(statuses(&proxy, &sent), [200, 200, 429, 429]);
    let other = ["a%20b", "a%20b", "a%20b", "a+b"].map(|user| Request::get(&format!("/users/{user}")));
    assert_eq!(statuses(&proxy, &other), [200, 200, 429, 200]);
}

#[test]
fn a_limit_on_a_path_holds_for_its_encoded_spelling() {
    let upstream = Scripted::replying(OK);
    for (pattern, target) in
        [("/users/@me", "/users/%40me"), ("/users/a:b", "/users/a%3Ab"), ("/users/%40me", "/users/@me")]
    {
        let proxy = limited(&upstream.url(), &format!("key: global, match: {{ path: '{pattern}' }}"));
        let sent = [pattern, target, target].map(Request::get);
        assert_eq!(statuses(&proxy, &sent), [200, 200, 429], "{pattern}");
    }
    let proxy = limited(&upstream.url(), "key: global, match: { not_path: '/users/@me' }");
    assert_eq!(statuses(&proxy, &["/users/@me", "/users/%40me", "/users/%40me"].map(Request::get)), [200, 200, 200]);
}
