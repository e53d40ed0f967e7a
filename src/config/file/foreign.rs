//! Keys of nginx and of others, and what is written here for them.

/// nginx' directives.
const KEYS: [(&str, &str); 50] = [
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
    ("rate_limit", LIMITS),
    ("rate_limits", LIMITS),
    ("rateLimit", LIMITS),
    ("limit_req", LIMIT_REQ),
    ("limit_req_zone", LIMIT_REQ),
    ("limit_conn", LIMIT_CONN),
    ("limit_conn_zone", LIMIT_CONN),
    ("limit_req_status", STATUS),
    ("limit_conn_status", STATUS),
    ("limit_req_dry_run", DRY_RUN),
    ("limit_conn_dry_run", DRY_RUN),
    ("limit_req_log_level", LOG_LEVEL),
    ("limit_conn_log_level", LOG_LEVEL),
    ("real_ip_recursive", "leave it out: addresses of trusted proxies are always passed over, one after the other"),
    ("log_format", "write `access_log: { format: json }` at the top"),
    ("limit_rate", "leave it out: there are limits of requests, and none of bytes per second"),
    ("proxy_buffering", BUFFERING),
    ("proxy_request_buffering", BUFFERING),
];

/// Its blocks. These words are common, so they are looked up where a whole configuration of nginx begins.
const AT_THE_TOP: [(&str, &str); 4] = [
    ("http", "leave it out: what stands in it is written at the top of the file"),
    ("server", "write `listen: :8080` at the top, and `match: { host: example.com }` on a route"),
    ("geo", EXEMPT),
    ("map", EXEMPT),
];

/// What follows `limit_req` on its line.
const IN_A_LIMIT: [(&str, &str); 2] = [
    ("nodelay", "leave it out: without `algorithm: leaky_bucket` no request is held"),
    ("delay", "write `algorithm: leaky_bucket` with `delay_after`, one more than nginx' `delay`"),
];

const LIMITS: &str = "write `limits: [{ key: client_ip, rate: 100/s, burst: 200 }]`";
const LIMIT_REQ: &str =
    "write `limits: [{ key: client_ip, rate: 10/s, burst: 21 }]`; nginx' `burst=20` leaves out the first request";
const LIMIT_CONN: &str = "write `limits: [{ key: client_ip, in_flight: 5 }]`";
const STATUS: &str = "write `response: { status: 503 }` in a limit; it is 429 without that";
const DRY_RUN: &str = "write `mode: shadow` in a limit";
const LOG_LEVEL: &str =
    "write `access_log: { only: [limited] }` at the top: a line for each denial, and none of them in the process log";
const BUFFERING: &str = "leave it out: bodies are passed on as they come";
const EXEMPT: &str =
    "write `overrides: [{ key: [10.0.0.0/8], rate: unlimited }]` in a limit, or `tiers` for rates of their own";
const TLS: &str =
    "write `tls: { certificates: { cert: /etc/tollgate/tls.crt, key: /etc/tollgate/tls.key } }` in a listener";
const CLIENTS: &str = "write `client_auth: { mode: require, ca: /etc/tollgate/clients.pem }` in `tls` of a listener";
const EJECTION: &str = "write `health: { passive: { failures: 5, within: 10s, eject_for: 10s } }` in an upstream";

/// What is written here for a key of nginx that stands in this shape.
pub(in crate::config) fn instead_of(shape: &str, key: &str) -> Option<&'static str> {
    let of_the_shape: &[(&str, &str)] = match shape {
        "File" => &AT_THE_TOP,
        "Limit" => &IN_A_LIMIT,
        _ => &[],
    };
    KEYS.iter().chain(of_the_shape).find(|(foreign, _)| *foreign == key).map(|(_, instead)| *instead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_is_known_wherever_it_stands_and_a_common_word_only_in_its_place() {
        for key in ["limit_conn_zone", "limit_req_status", "limit_conn_dry_run", "real_ip_recursive", "limit_rate"] {
            assert!(["File", "Route", "Limit"].iter().all(|shape| instead_of(shape, key).is_some()), "{key}");
        }
        for key in ["http", "server", "geo", "map"] {
            assert!(instead_of("File", key).is_some() && instead_of("Upstream", key).is_none(), "{key}");
        }
        assert!(instead_of("Limit", "delay").is_some_and(|instead| instead.contains("delay_after")));
        assert!(instead_of("Limit", "nodelay").is_some());
        assert_eq!(instead_of("Route", "delay"), None);
        assert_eq!(instead_of("File", "nonsense"), None);
    }
}
