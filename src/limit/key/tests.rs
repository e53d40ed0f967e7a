use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;

/// A request to take facts from.
struct Request {
    ip: IpAddr,
    headers: HeaderMap,
    query: Option<String>,
    params: Vec<(String, String)>,
    host: String,
    method: Method,
    route: String,
    tls_subject: Option<Vec<u8>>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            ip: Ipv4Addr::new(192, 0, 2, 1).into(),
            headers: HeaderMap::new(),
            query: None,
            params: vec![],
            host: "example.com".into(),
            method: Method::GET,
            route: "orders".into(),
            tls_subject: None,
        }
    }
}

impl Request {
    fn with_header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    fn with_query(self, query: &str) -> Self {
        Self { query: Some(query.into()), ..self }
    }

    fn with_param(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    fn from(self, ip: impl Into<IpAddr>) -> Self {
        Self { ip: ip.into(), ..self }
    }

    fn under<T>(&self, read: impl FnOnce(&Facts<'_>) -> T) -> T {
        let params: Vec<(&str, &str)> = self.params.iter().map(|(name, value)| (&**name, &**value)).collect();
        read(&Facts {
            client_ip: Some(self.ip),
            method: &self.method,
            host: &self.host,
            path: "/",
            query: self.query.as_deref(),
            headers: &self.headers,
            has_unsized_body: false,
            tls_subject: self.tls_subject.as_deref(),
            params: &params,
            route: &self.route,
            claims: &NoClaims,
        })
    }

    /// The subject under a key, `None` when it is missing.
    fn subject(&self, key: &[&str], hashing: &Hashing) -> Result<Option<Vec<u8>>, AmbiguousKey> {
        let key = Key { parts: key.iter().map(|part| Key::parse_part(part, 64).unwrap()).collect() };
        self.under(|facts| {
            Ok(match key.subject(facts, hashing)? {
                Found::Present { subject, .. } => Some(subject.to_vec()),
                Found::Missing => None,
            })
        })
    }

    /// The same as text, hashed as for Redis.
    fn text(&self, key: &[&str]) -> String {
        String::from_utf8(self.subject(key, &Hashing::Hashed(None)).unwrap().unwrap()).unwrap()
    }

    fn is_missing(&self, key: &str) -> bool {
        self.subject(&[key], &Hashing::Raw).unwrap().is_none()
    }

    fn is_ambiguous(&self, key: &str) -> bool {
        self.subject(&[key], &Hashing::Raw).is_err()
    }
}

#[test]
fn subjects_read_as_documented() {
    let request = Request::default().with_param("tenant", "acme").with_header("x-api-key", b"secret");
    assert_eq!(request.text(&["client_ip"]), "ip=192.0.2.1");
    assert_eq!(request.text(&["path:tenant"]), "path:tenant=acme");
    assert_eq!(request.text(&["host"]), "host=example.com");
    assert_eq!(request.text(&["method"]), "method=GET");
    assert_eq!(request.text(&["route"]), "route=orders");
    assert_eq!(request.text(&["global"]), "global");
    assert_eq!(request.text(&["client_ip", "route"]), "12:ip=192.0.2.112:route=orders");
    let secured = Request { tls_subject: Some(b"CN=ann,O=Example".to_vec()), ..Request::default() };
    let hashed = secured.text(&["tls:subject"]);
    assert!(hashed.starts_with("tls:subject=#") && hashed.len() == 13 + 32, "{hashed}");
    assert!(request.is_missing("tls:subject"));
    let hashed = request.text(&["header:X-API-Key"]);
    assert!(hashed.starts_with("header:x-api-key=#") && hashed.len() == 18 + 32, "{hashed}");
}

#[test]
fn an_address_is_one_client_however_it_is_written() {
    let subject = |ip: IpAddr| Request::default().from(ip).text(&["client_ip"]);
    assert_eq!(subject("::ffff:192.0.2.1".parse().unwrap()), "ip=192.0.2.1");
    assert_eq!(subject("2001:db8:1:2:3:4:5:6".parse().unwrap()), "ip=2001:db8:1:2::/64");
    assert_eq!(subject(Ipv6Addr::LOCALHOST.into()), "ip=::/64");
    let prefixed = |prefix| {
        Request::default()
            .from("2001:db8:1:2:3:4:5:6".parse::<IpAddr>().unwrap())
            .under(|facts| String::from_utf8(client_subject(facts, prefix).to_vec()).unwrap())
    };
    assert_eq!(prefixed(128), "ip=2001:db8:1:2:3:4:5:6/128");
    assert_eq!(prefixed(1), "ip=::/1");
    assert_eq!(prefixed(48), "ip=2001:db8:1::/48");
}

#[test]
fn values_are_compared_after_decoding() {
    let same = |key: &str, a: Request, b: Request| assert_eq!(a.text(&[key]), b.text(&[key]));
    let request = Request::default;
    same("query:k", request().with_query("k=a%20b"), request().with_query("x=1&k=a+b&y"));
    same("query:k", request().with_query("%6b=%61"), request().with_query("k=a"));
    same(
        "cookie:s",
        request().with_header("cookie", b"s=a%62c"),
        request().with_header("cookie", b"t=1; s=\"abc\"; u"),
    );
    same(
        "header:authorization",
        request().with_header("authorization", b"Bearer  abc "),
        request().with_header("authorization", b"bearer abc"),
    );
    same("header:x-a", request().with_header("x-a", b"\t v "), request().with_header("x-a", b"v"));
}

#[test]
fn the_first_present_alternative_counts_and_an_empty_one_is_absent() {
    let key = "header:x-api-key | cookie:session | client_ip";
    assert_eq!(Request::default().text(&[key]), "ip=192.0.2.1");
    assert_eq!(Request::default().with_header("x-api-key", b"  ").text(&[key]), "ip=192.0.2.1");
    assert!(Request::default().with_header("cookie", b"session=1").text(&[key]).starts_with("cookie:session=#"));
    for (key, request) in [
        ("header:x-api-key", Request::default()),
        ("query:k", Request::default().with_query("k=&l=1")),
        ("query:k", Request::default().with_query("k")),
        ("cookie:s", Request::default().with_header("cookie", b"s=")),
        ("path:tenant", Request::default().with_param("tenant", "")),
        ("header:authorization", Request::default().with_header("authorization", b"")),
        ("host", Request { host: String::new(), ..Request::default() }),
    ] {
        assert!(request.is_missing(key), "{key}");
    }
    let combined = Request::default().subject(&["client_ip", "header:x-user"], &Hashing::Raw).unwrap();
    assert_eq!(combined, None, "a combined key is missing when one of its parts is");
}

#[test]
fn a_part_that_occurs_twice_is_ambiguous() {
    let request = Request::default;
    assert!(request().with_header("x-a", b"1").with_header("x-a", b"1").is_ambiguous("header:x-a"));
    assert!(request().with_header("cookie", b"s=1; s=2").is_ambiguous("cookie:s"));
    assert!(request().with_header("cookie", b"s=1").with_header("cookie", b"s=1").is_ambiguous("cookie:s"));
    assert!(request().with_query("k=1&k=2").is_ambiguous("query:k"));
    assert!(request().with_query("k=1&%6B").is_ambiguous("query:k"));
    assert!(!request().with_query("k=1&K=2&kk=3").is_ambiguous("query:k"));
    assert!(!request().with_header("cookie", b"s=1; S=2").with_header("cookie", b"t=1").is_ambiguous("cookie:s"));
}

#[test]
fn a_secret_changes_the_hash_and_the_value_never_shows() {
    let request = Request::default().with_header("x-api-key", b"hunter2");
    let plain = request.text(&["header:x-api-key"]);
    let keyed = request.subject(&["header:x-api-key"], &Hashing::Hashed(Some(Box::new([7; 32])))).unwrap().unwrap();
    assert_ne!(plain.as_bytes(), keyed);
    assert!(!plain.contains("hunter2"));
}

#[test]
fn overrides_see_the_decoded_value_and_the_whole_address() {
    let key = Key { parts: vec![Key::parse_part("query:k | client_ip", 64).unwrap()] };
    let values = |request: &Request| {
        request.under(|facts| match key.subject(facts, &Hashing::Hashed(None)) {
            Ok(Found::Present { values, .. }) => (values[0].1.bytes.to_vec(), values[0].1.address),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(values(&Request::default().with_query("k=a%20b")), (b"a b".to_vec(), None));
    let whole: IpAddr = "2001:db8::7".parse().unwrap();
    assert_eq!(values(&Request::default().from(whole)), (vec![], Some(whole)));
}

#[test]
fn keys_are_read_and_shown_as_written() {
    for text in
        ["client_ip", "header:x-api-key | client_ip", "cookie:s | query:api_key | path:tenant", "tls:subject", "global"]
    {
        let key = Key { parts: vec![Key::parse_part(text, 64).unwrap()] };
        assert_eq!(key.to_string(), text);
    }
    let combined = Key { parts: vec![Key::parse_part("path:a", 64).unwrap(), Key::parse_part("route", 64).unwrap()] };
    assert_eq!(combined.to_string(), "path:a, route");
}

#[test]
fn a_wrong_key_says_what_to_write() {
    for (text, part) in [
        ("client-ip", "did you mean `client_ip`?"),
        ("ip", "did you mean `client_ip`?"),
        ("headers:x-a", "did you mean `header:NAME`?"),
        ("zzz", "write client_ip, header:NAME"),
        ("header", "such as `header:x-api-key`"),
        ("cookie:", "such as `cookie:session`"),
        ("tls", "such as `tls:subject`"),
        ("tls:issuer", "write `tls:subject`"),
        ("client_ip:64", "takes no name"),
        ("header:a b", "cannot be the name of a header"),
        ("query:{x}", "cannot be the name of a query"),
        ("", "an empty key part"),
        ("client_ip |", "an empty key part"),
    ] {
        let message = Key::parse_part(text, 64).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
}

/// Values with everything that a forger would try.
fn values() -> impl Strategy<Value = String> {
    const FORGED: &[&str] =
        &["a", "1:a", "=", "#", "|", "ip=192.0.2.1", "10:ip=1.2.3.4", "%00", "{", "}", "é", "global", "="];
    prop_oneof![
        4 => proptest::collection::vec(proptest::sample::select(FORGED), 1..4).prop_map(|parts| parts.concat()),
        2 => "[ -~]{1,70}",
        1 => Just("x".repeat(10 * 1024)),
        1 => Just("x".repeat(10 * 1024 - 1)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn different_values_never_share_a_subject(a in [values(), values()], b in [values(), values()]) {
        for key in [&["path:a", "path:b"][..], &["path:a", "route"], &["path:a"], &["header:x-a | path:a"], &["path:b", "path:a", "route"]] {
            for hashing in [Hashing::Raw, Hashing::Hashed(None)] {
                let subject = |values: &[String; 2]| {
                    let request = Request { route: values[1].clone(), ..Request::default() };
                    request.with_param("a", &values[0]).with_param("b", &values[1]).subject(key, &hashing).unwrap()
                };
                let same = a[0] == b[0] && (key.len() == 1 || a[1] == b[1]);
                prop_assert_eq!(subject(&a) == subject(&b), same, "{:?}", key);
            }
        }
    }

    #[test]
    fn no_kind_passes_for_another(value in values()) {
        let mut request = Request::default().with_param("a", &value).with_query(&format!("a={}", value.len()));
        request.route.clone_from(&value);
        request.host.clone_from(&value);
        for hashing in [Hashing::Raw, Hashing::Hashed(None)] {
            let keys: [&[&str]; 8] = [&["path:a"], &["route"], &["host"], &["client_ip"], &["global"], &["method"], &["path:a", "host"], &["host", "path:a"]];
            let mut subjects: Vec<_> = keys.iter().map(|key| request.subject(key, &hashing).unwrap().unwrap()).collect();
            subjects.sort();
            subjects.dedup();
            prop_assert_eq!(subjects.len(), keys.len());
        }
    }

    #[test]
    fn a_hashed_subject_is_safe_inside_a_redis_hash_tag(
        value in proptest::collection::vec(any::<u8>().prop_filter("field values", |b| *b >= 0x20 && *b != 0x7f), 1..200),
        text in values(),
    ) {
        let request = Request { route: text.clone(), host: text.clone(), ..Request::default() };
        let request = request.with_header("x-a", &value).with_param("a", &text);
        let key = ["header:x-a | client_ip", "path:a", "route", "host"];
        let subject = request.subject(&key, &Hashing::Hashed(None)).unwrap().unwrap();
        let is_safe = |byte: &u8| byte.is_ascii_graphic() && !b"{}".contains(byte);
        prop_assert!(subject.iter().all(is_safe));
        prop_assert!(subject.len() < 400);
    }
}
