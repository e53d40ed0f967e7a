//! Keys of nginx, and what is written here for them.

/// nginx' directives.
const KEYS: [(&str, &str); 35] = [
    ("proxy_pass", "write `upstream: http://host:port` on a route, or at the top for everything"),
    ("server_name", "write `match: { host: example.com }` on a route"),
    ("location", "write `match: { path: /api/* }` on a route"),
    ("return", "write `redirect: …` or `respond: …` on a route"),
    ("ssl", TLS),
    ("ssl_certificate", TLS),
    ("ssl_certificate_key", TLS),
    ("ssl_protocols", "write `min_version: \"1.2\"` in `tls` of a listener"),
    ("ssl_client_certificate", CLIENTS),
    ("ssl_verify_client", CLIENTS),
    ("proxy_ssl_trusted_certificate", "write `tls: { ca: /etc/tollgate/ca.pem }` in an upstream"),
    ("proxy_ssl_verify", "servers' certificates are verified; `tls: { ca: … }` in an upstream names their authority"),
    ("proxy_ssl_name", "write `tls: { server_name: api.internal }` in an upstream"),
    ("max_fails", EJECTION),
    ("fail_timeout", EJECTION),
    ("max_conns", "write `max_requests: 100` or `max_connections: 100` in an upstream"),
    ("least_conn", "write `balance: least_requests` in an upstream"),
    ("ip_hash", "write `balance: hash` and `hash_key: client_ip` in an upstream"),
    ("keepalive", "write `max_idle_connections: 128` in an upstream"),
    ("keepalive_timeout", "write `idle_timeout: 75s` in a listener below `listeners`"),
    ("resolver", "write `dns: { nameservers: [10.0.0.2] }` at the top"),
    ("client_max_body_size", "write `max_body_size: 10MiB` on a route"),
    ("client_header_timeout", "write `header_timeout: 10s` in a listener below `listeners`"),
    ("proxy_connect_timeout", "write `connect_timeout: 2s` in an upstream"),
    ("proxy_read_timeout", "write `timeout: 30s` on a route, or `response_timeout` in an upstream"),
    ("proxy_send_timeout", "write `timeout: 30s` on a route, or `response_timeout` in an upstream"),
    ("proxy_next_upstream", "write `retries: { attempts: 2, retry_on: [connect_error, reset] }` on a route"),
    ("proxy_set_header", "write `request_headers: { set: { x-name: value } }` on a route"),
    ("proxy_hide_header", "write `response_headers: { remove: [x-name] }` on a route"),
    ("add_header", "write `response_headers: { set: { x-name: value } }` on a route"),
    ("set_real_ip_from", "write `trusted_proxies: [10.0.0.0/8]` at the top"),
    ("real_ip_header", "write `client_ip: { header: x-real-ip }` at the top"),
    ("limit_req", LIMIT_REQ),
    ("limit_req_zone", LIMIT_REQ),
    ("limit_conn", "write `limits: [{ key: client_ip, in_flight: 5 }]`"),
];

const LIMIT_REQ: &str =
    "write `limits: [{ key: client_ip, rate: 10/s, burst: 21 }]`; nginx' `burst=20` leaves out the first request";
const TLS: &str =
    "write `tls: { certificates: { cert: /etc/tollgate/tls.crt, key: /etc/tollgate/tls.key } }` in a listener";
const CLIENTS: &str = "write `client_auth: { mode: require, ca: /etc/tollgate/clients.pem }` in `tls` of a listener";
const EJECTION: &str = "write `health: { passive: { failures: 5, within: 10s, eject_for: 10s } }` in an upstream";

/// What is written here for a key of nginx.
pub(in crate::config) fn instead_of(key: &str) -> Option<&'static str> {
    KEYS.iter().find(|(foreign, _)| *foreign == key).map(|(_, instead)| *instead)
}
