use super::*;

fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn forwarded() -> Forwarded<'static> {
    static ID: HeaderValue = HeaderValue::from_static("id-1");
    static PEER: HeaderValue = HeaderValue::from_static("192.0.2.1");
    Forwarded {
        peer: "192.0.2.1".parse().ok(),
        peer_text: &PEER,
        request_id: &ID,
        version: http::Version::HTTP_11,
        scheme: "http",
    }
}

fn prepared(trusted: bool, lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = fields(lines);
    headers.insert(HOST, HeaderValue::from_static("a.example"));
    sanitise_request(&mut headers, Belief { trusted, client_field: None });
    complete_request(&mut headers, &forwarded());
    headers
}

#[test]
fn a_trailer_whose_name_is_no_token_is_dropped() {
    let names = ["x-sum", "x\"sum"].map(|name| HeaderName::from_lowercase(name.as_bytes()).unwrap());
    let mut trailers = names.into_iter().map(|name| (name, HeaderValue::from_static("1"))).collect();
    filter_trailers(&mut trailers);
    assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
}

#[test]
fn hop_by_hop_fields_and_every_name_in_every_connection_line_are_removed() {
    let headers = prepared(
        false,
        &[
            ("connection", "x-one, keep-alive"),
            ("connection", "X-Two,,close"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("expect", "100-continue"),
        ],
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "x-three"]
    );
}

#[test]
fn a_connection_line_removes_neither_our_fields_nor_end_to_end_ones() {
    let headers = prepared(
        false,
        &[
            ("connection", "x-forwarded-for, x-request-id, via, host, authorization, content-length, cookie"),
            ("authorization", "Bearer x"),
            ("content-length", "3"),
            ("cookie", "a=b"),
        ],
    );
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-request-id", "id-1"),
        ("host", "a.example"),
        ("authorization", "Bearer x"),
        ("content-length", "3"),
        ("cookie", "a=b"),
    ] {
        assert_eq!(headers.get(name).unwrap(), value, "{name}");
    }
    assert!(headers.contains_key(VIA));
    assert!(!headers.contains_key(CONNECTION));
}

#[test]
fn an_untrusted_peer_cannot_say_where_a_request_comes_from() {
    let headers = prepared(
        false,
        &[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/x"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x-request-id", "chosen"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x.real.ip", "6.6.6.6"),
        ],
    );
    assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-host"], "a.example");
    assert_eq!(headers["x-request-id"], "id-1");
    for gone in ["x-forwarded-port", "x-forwarded-prefix", "forwarded", "x-real-ip", "x_forwarded_for", "x.real.ip"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn a_trusted_peer_is_appended_to_what_it_says() {
    let headers = prepared(
        true,
        &[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.1.1.1"),
        ],
    );
    assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    let elements: Vec<_> = headers.get_all(FORWARDED).iter().collect();
    assert_eq!(elements, ["for=1.1.1.1", "for=192.0.2.1;proto=http"]);
}

#[test]
fn te_is_cut_to_trailers_and_named_in_connection() {
    let headers = prepared(false, &[("te", "gzip, Trailers"), ("trailer", "x-sum")]);
    assert_eq!(headers[TE], "trailers");
    assert_eq!(headers[CONNECTION], "te");
    assert_eq!(headers["trailer"], "x-sum");
}

#[test]
fn a_request_that_was_here_before_is_known_by_via_and_others_are_not() {
    let headers = prepared(false, &[("via", "1.0 fred, 1.1 tollgate-other")]);
    assert!(is_loop(&headers));
    assert!(!is_loop(&fields(&[("via", "1.1 tollgate, 1.1 tollgate-other (tollgate)")])));
    assert!(!is_loop(&HeaderMap::new()));
}

#[test]
fn a_response_with_transfer_encoding_loses_its_length() {
    let mut headers = fields(&[
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("upgrade", "h2c"),
        ("proxy-status", "cdn"),
    ]);
    prepare_response(&mut headers);
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["proxy-status"]);
}

#[test]
fn trailers_carry_no_framing_routing_authentication_or_limits() {
    let mut trailers = fields(&[
        ("x-checksum", "1"),
        ("grpc-status", "0"),
        ("content-length", "1"),
        ("transfer-encoding", "chunked"),
        ("host", "a"),
        ("authorization", "x"),
        ("set-cookie", "a=b"),
        ("ratelimit", "x"),
        ("x-ratelimit-remaining", "9"),
        ("retry-after", "0"),
        ("x-forwarded-for", "6.6.6.6"),
        ("client-cert", ":AA==:"),
        ("if-match", "*"),
        ("x_sum", "1"),
    ]);
    filter_trailers(&mut trailers);
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-checksum", "grpc-status"]);
}
