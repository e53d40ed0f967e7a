//! What was written for another proxy, or cannot work as written: the frames as a terminal shows them.

use std::path::PathBuf;

use tollgate::config::frames::Colour;
use tollgate::config::{Origin, parse};

const NGINX: &str = r#"listeners:
  web: { address: ":8080", ssl_certificate: /etc/a.pem, max_header_size: 8k }
upstreams:
  api:
    servers: [{ url: http://10.0.0.1:3000/v1, max_fails: 3 }, http://unix:/run/app.sock]
  slow:
    servers: [http://10.0.0.2:3000]
    max_fails: 3
routes:
  - name: a
    match: { host: "_", path: /a }
    proxy_pass: http://10.0.0.1
    upstream: api
  - name: b
    upstream: api
    match: { path: /b }
    max_body_size: 10m
  - name: c
    upstream: http://10.0.0.9/base/
    max_body_size: 1048576
"#;

const NGINX_SAID: &str = r#"error: unknown key `ssl_certificate`
 --> proxy.yaml:2:28
  |
2 |   web: { address: ":8080", ssl_certificate: /etc/a.pem, max_header_size: 8k }
  |                            ^^^^^^^^^^^^^^^
  |
  = help: write `tls: { certificates: { cert: /etc/tollgate/tls.crt, key: /etc/tollgate/tls.key } }` in a listener

error: `8k` is not a size
 --> proxy.yaml:2:74
  |
2 |   web: { address: ":8080", ssl_certificate: /etc/a.pem, max_header_size: 8k }
  |                                                                          ^^
  |
  = help: did you mean `8KiB`?

error: `http://10.0.0.1:3000/v1` has a path, and a server has only a host and a port
 --> proxy.yaml:5:22
  |
5 |     servers: [{ url: http://10.0.0.1:3000/v1, max_fails: 3 }, http://unix:/run/app.sock]
  |                      ^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: write `http://10.0.0.1:3000`, and on the routes that lead there `rewrite: { add_prefix: /v1 }`

error: unknown key `max_fails`
 --> proxy.yaml:5:47
  |
5 |     servers: [{ url: http://10.0.0.1:3000/v1, max_fails: 3 }, http://unix:/run/app.sock]
  |                                               ^^^^^^^^^
  |
  = help: write `health: { passive: { failures: 5, within: 10s, eject_for: 10s } }` in an upstream

error: `http://unix:/run/app.sock`: a socket's address has no scheme
 --> proxy.yaml:5:63
  |
5 |     servers: [{ url: http://10.0.0.1:3000/v1, max_fails: 3 }, http://unix:/run/app.sock]
  |                                                               ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: did you mean `unix:/run/app.sock`?

error: unknown key `max_fails`
 --> proxy.yaml:8:5
  |
8 |     max_fails: 3
  |     ^^^^^^^^^
  |
  = help: write `health: { passive: { failures: 5, within: 10s, eject_for: 10s } }` in an upstream

error: `_` is no host
  --> proxy.yaml:11:20
   |
11 |     match: { host: "_", path: /a }
   |                    ^^^
   |
   = help: leave `host` out: without it every host matches

error: unknown key `proxy_pass`
  --> proxy.yaml:12:5
   |
12 |     proxy_pass: http://10.0.0.1
   |     ^^^^^^^^^^
   |
   = help: write `upstream: http://host:port` on a route, or at the top for everything

error: `10m` is not a size
  --> proxy.yaml:17:20
   |
17 |     max_body_size: 10m
   |                    ^^^
   |
   = help: did you mean `10MiB`?

error: `http://10.0.0.9/base/` has a path, and a server has only a host and a port
  --> proxy.yaml:19:15
   |
19 |     upstream: http://10.0.0.9/base/
   |               ^^^^^^^^^^^^^^^^^^^^^
   |
   = help: write `http://10.0.0.9`, and on the routes that lead there `rewrite: { add_prefix: /base }`

error: `1048576` is not a size
  --> proxy.yaml:20:20
   |
20 |     max_body_size: 1048576
   |                    ^^^^^^^
   |
   = help: did you mean `1MiB`?

11 errors in proxy.yaml
"#;

const DOUBTFUL: &str = r#"listen: :8080
upstreams:
  api:
    servers: [http://10.0.0.1:3000, http://10.0.0.2:3000]
    health: { active: { path: /healthz, interval: 5s, timeout: 10s } }
routes:
  - name: users
    match: { path: "/users/:id/orders" }
    upstream: api
    timeout: 5s
    retries: { attempts: 2, per_try_timeout: 10s }
    request_headers:
      set:
        x-user: "%REQ(X-User)%"
        x-when: "%START_TIME(%s)%"
        x-peer: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
        x-time: "%START_TIME(s)%"
"#;

const DOUBTFUL_SAID: &str = r#"warning: a check may last 10s, longer than the 5s between two: a server that hangs is found out late
 --> proxy.yaml:5:64
  |
5 |     health: { active: { path: /healthz, interval: 5s, timeout: 10s } }
  |                                                                ^^^
  |
  = help: write a `timeout` below `interval`

warning: only requests with the text `:id` in this place fit: parameters have braces
 --> proxy.yaml:8:20
  |
8 |     match: { path: "/users/:id/orders" }
  |                    ^^^^^^^^^^^^^^^^^^^
  |
  = help: did you mean `/users/{id}/orders`?

warning: one attempt may take all of the route's time, 5s
  --> proxy.yaml:11:46
   |
11 |     retries: { attempts: 2, per_try_timeout: 10s }
   |                                              ^^^
   |
   = help: write a shorter `per_try_timeout`: then a slow first attempt leaves time

warning: `%REQ(X-User)%` is sent as it stands: variables have braces
  --> proxy.yaml:14:17
   |
14 |         x-user: "%REQ(X-User)%"
   |                 ^^^^^^^^^^^^^^^
   |
   = help: did you mean `{header.x-user}`?

warning: `%START_TIME(%s)%` is sent as it stands: variables have braces
  --> proxy.yaml:15:17
   |
15 |         x-when: "%START_TIME(%s)%"
   |                 ^^^^^^^^^^^^^^^^^^
   |
   = help: write one such as `{client_ip}` or `{header.x-api-key}`, or a fixed text

warning: `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%` is sent as it stands: variables have braces
  --> proxy.yaml:16:17
   |
16 |         x-peer: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
   |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: did you mean `{client_ip}`?

warning: `%START_TIME(s)%` is sent as it stands: variables have braces
  --> proxy.yaml:17:17
   |
17 |         x-time: "%START_TIME(s)%"
   |                 ^^^^^^^^^^^^^^^^^
   |
   = help: write one such as `{client_ip}` or `{header.x-api-key}`, or a fixed text

7 warnings in proxy.yaml
"#;

/// Everything that is said about a text, whether it is accepted or not; empty where that is nothing.
fn said(text: &str) -> String {
    let origin = Origin::File(PathBuf::from("proxy.yaml"));
    let report = match parse(text, &origin, &|_| None) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    if report.is_empty() { String::new() } else { report.render(Colour::Plain) }
}

#[test]
fn what_is_written_for_nginx_is_refused_with_what_to_write_here() {
    assert_eq!(said(NGINX), NGINX_SAID);
}

#[test]
fn what_has_another_meaning_here_or_none_is_a_warning() {
    assert_eq!(said(DOUBTFUL), DOUBTFUL_SAID);
}

#[test]
fn what_is_close_to_these_and_meant_is_accepted_in_silence() {
    let text = r#"listen: :8080
upstreams:
  api:
    servers: [http://10.0.0.1:3000/, unix:/run/app.sock]
    health: { active: { path: /healthz, interval: 2s, timeout: 2s } }
routes:
  - name: users
    match: { host: _dmarc.example.com, path: [/v1/users:batch, "/a:b/{id}"] }
    upstream: api
    timeout: 5s
    retries: { attempts: 2, per_try_timeout: 2s }
    max_body_size: 10MiB
    request_headers: { set: { x-share: "50% OFF 20%", x-price: "US$ 5", x-encoded: "%C3%A4" } }
"#;
    assert_eq!(said(text), "");
}
