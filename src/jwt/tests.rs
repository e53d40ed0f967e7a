use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, Method, header};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::claims::ClaimSet;
use super::key_set::KeySet;
use super::settings::{ALGORITHMS, JwtSettings, KeySource};
use super::token::{Refusal, Verified, verify};
use crate::limit::key::{AmbiguousKey, Claim, Claims, Facts, Found, Hashing, Key};

#[path = "../../tests/support/tokens.rs"]
#[allow(dead_code, reason = "shared with the tests that go through sockets, which use more of it")]
mod tokens;

use tokens::{Issuer, key_set};

impl Claims for ClaimSet {
    fn claim(&self, path: &str) -> Result<Option<Claim<'_>>, AmbiguousKey> {
        Ok(self.find(path))
    }
}

fn rules(leeway: Duration) -> JwtSettings {
    JwtSettings {
        source: KeySource::File("keys".into()),
        first_keys: Arc::default(),
        algorithms: ALGORITHMS.map(|(_, algorithm)| algorithm).to_vec(),
        audience: vec![],
        issuer: vec![],
        header: header::AUTHORIZATION,
        leeway,
        refresh: Duration::from_mins(5),
    }
}

fn keys(issuers: &[&Issuer]) -> KeySet {
    KeySet::from_json(key_set(issuers).as_bytes(), &rules(Duration::ZERO).algorithms).unwrap()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What comes of a token at a time.
fn at(issuer: &Issuer, claims: &Value, leeway: f64, now: f64) -> Result<Verified, Refusal> {
    let token = issuer.sign(&json!({ "alg": issuer.algorithm }), claims);
    verify(token.as_bytes(), &keys(&[issuer]), &rules(seconds(leeway)), seconds(now))
}

#[test]
fn a_token_holds_from_nbf_until_before_exp_and_the_leeway_widens_both() {
    let issuer = Issuer::new("EdDSA", None);
    let outcome = |claims: &Value, leeway, now| at(&issuer, claims, leeway, now).err();
    let claims = json!({ "nbf": 1_000, "exp": 2_000 });
    for (leeway, now, expected) in [
        (0.0, 999.999, Some(Refusal::NotYetValid)),
        (0.0, 1_000.0, None),
        (0.0, 1_999.999, None),
        (0.0, 2_000.0, Some(Refusal::Expired)),
        (60.0, 939.999, Some(Refusal::NotYetValid)),
        (60.0, 940.0, None),
        (60.0, 2_059.999, None),
        (60.0, 2_060.0, Some(Refusal::Expired)),
    ] {
        assert_eq!(outcome(&claims, leeway, now), expected, "leeway {leeway} at {now}");
    }
    let fractions = json!({ "nbf": 1_000.5, "exp": 2_000.5 });
    assert_eq!(outcome(&fractions, 0.0, 1_000.4), Some(Refusal::NotYetValid));
    assert_eq!(outcome(&fractions, 0.0, 2_000.4), None);
    assert_eq!(outcome(&json!({ "sub": "ann" }), 0.0, 9e9), None, "without exp it never expires");
    for wrong in [json!("2000"), json!(null), json!(-1), json!(1e300), json!([2_000])] {
        assert_eq!(outcome(&json!({ "exp": wrong }), 60.0, 0.0), Some(Refusal::Malformed), "exp {wrong}");
        assert_eq!(outcome(&json!({ "nbf": wrong }), 60.0, 0.0), Some(Refusal::Malformed), "nbf {wrong}");
    }
    assert_eq!(outcome(&json!({ "exp": u64::MAX, "nbf": 0 }), 60.0, 9e9), None, "no overflow");
    assert_eq!(outcome(&json!({ "nbf": u64::MAX }), 60.0, 9e9), Some(Refusal::NotYetValid));
}

#[test]
fn a_token_without_a_name_is_tried_against_a_few_keys_only() {
    let issuers: Vec<_> = (0..6).map(|_| Issuer::new("EdDSA", None)).collect();
    let keys = keys(&issuers.iter().collect::<Vec<_>>());
    let accepted: Vec<_> = issuers
        .iter()
        .map(|issuer| {
            verify(issuer.token(&json!({})).as_bytes(), &keys, &rules(Duration::ZERO), Duration::ZERO).is_ok()
        })
        .collect();
    assert_eq!(accepted, [true, true, true, true, false, false]);
}

#[test]
fn a_name_chooses_among_any_number_of_keys() {
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let issuers = NAMES.map(|name| Issuer::new("EdDSA", Some(name)));
    let keys = keys(&issuers.each_ref());
    let outcome = |token: String| verify(token.as_bytes(), &keys, &rules(Duration::ZERO), Duration::ZERO).err();
    for issuer in &issuers {
        assert_eq!(outcome(issuer.token(&json!({}))), None);
    }
    let of_another = issuers[7].sign(&json!({ "alg": "EdDSA", "kid": "a" }), &json!({}));
    assert_eq!(outcome(of_another), Some(Refusal::Signature));
    assert_eq!(outcome(Issuer::new("EdDSA", Some("z")).token(&json!({}))), Some(Refusal::UnknownKey));
    assert_eq!(outcome(Issuer::new("ES256", Some("a")).token(&json!({}))), Some(Refusal::Algorithm));
}

#[test]
fn numbers_are_spelled_in_one_way_or_left_out() {
    let spelled = |json: &str| {
        let set: ClaimSet = format!("{{\"n\":{json}}}").parse().unwrap();
        set.find("n").map(|claim| match claim {
            Claim::Literal(text) => text.to_owned(),
            Claim::Text(_) => panic!("a number"),
        })
    };
    for (json, expected) in [
        ("1", Some("1")),
        ("1.0", Some("1")),
        ("1e0", Some("1")),
        ("-0", Some("0")),
        ("-0.0", Some("0")),
        ("0.1", Some("0.1")),
        ("-1.5e3", Some("-1500")),
        ("18446744073709551615", Some("18446744073709551615")),
        ("9007199254740993", Some("9007199254740993")),
        ("9007199254740993.0", None),
        ("18446744073709551616", None),
        ("1e400", None),
    ] {
        // What JSON cannot hold at all is no claim set.
        if format!("{{\"n\":{json}}}").parse::<ClaimSet>().is_ok() {
            assert_eq!(spelled(json).as_deref(), expected, "{json}");
        } else {
            assert_eq!(expected, None, "{json}");
        }
    }
}

#[test]
fn claims_are_looked_for_within_bounds() {
    let mut deep = json!("x");
    for _ in 0..20 {
        deep = json!({ "a": deep });
    }
    let long = "n".repeat(300);
    let set = ClaimSet::of(json!({ "deep": deep, long.clone(): 1, "a": { "b": 1 }, "a.b": 2 }).as_object().unwrap());
    assert_eq!(set.find("a.b"), Some(Claim::Literal("2")));
    assert_eq!(set.find(&long), None);
    assert_eq!(set.find(&format!("deep{}", ".a".repeat(20))), None);
    assert_eq!(set.find(""), None);
}

/// Claim values with everything that could be taken for something else.
fn values() -> impl Strategy<Value = Value> {
    const FORGED: &[&str] =
        &["1", "true", "false", "null", "\"", "\"1", "1\"", "#", "=", "jwt:sub=", "é", "0", "-", ".", "a"];
    prop_oneof![
        3 => proptest::collection::vec(proptest::sample::select(FORGED), 1..4).prop_map(|parts| json!(parts.concat())),
        2 => "[ -~]{1,70}".prop_map(Value::from),
        2 => (-20_i64..20).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => (-20_i32..20).prop_map(|n| json!(f64::from(n) / 2.0)),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
    ]
}

/// Whether two values are the same to everybody who reads JSON.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn subject(claims: &ClaimSet, key: &[&str], hashing: &Hashing) -> Option<Vec<u8>> {
    let key = Key { parts: key.iter().map(|part| Key::parse_part(part, 64).unwrap()).collect() };
    let facts = Facts {
        client_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        method: &Method::GET,
        host: "",
        path: "/",
        query: None,
        headers: &HeaderMap::new(),
        has_unsized_body: false,
        tls_subject: None,
        params: &[],
        route: "",
        claims,
    };
    match key.subject(&facts, hashing).unwrap() {
        Found::Present { subject, .. } => Some(subject.to_vec()),
        Found::Missing => None,
    }
}

fn issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(|| Issuer::new("EdDSA", Some("one")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn different_claims_never_share_a_subject(a in [values(), values()], b in [values(), values()]) {
        let claims = |values: &[Value; 2]| {
            ClaimSet::of(json!({ "sub": values[0], "realm": { "tenant": values[1] } }).as_object().unwrap())
        };
        let (first, second) = (claims(&a), claims(&b));
        for hashing in [Hashing::Raw, Hashing::Hashed(None), Hashing::Hashed(Some(Box::new([7; 32])))] {
            for key in [&["jwt:sub"][..], &["jwt:sub", "jwt:realm.tenant"], &["jwt:nothing | jwt:sub", "jwt:realm.tenant"]] {
                let (left, right) = (subject(&first, key, &hashing), subject(&second, key, &hashing));
                let same = is_equal(&a[0], &b[0]) && (key.len() == 1 || is_equal(&a[1], &b[1]));
                if left.is_some() || right.is_some() {
                    prop_assert_eq!(left == right, same, "{:?} of {:?} and {:?}", key, a, b);
                }
            }
        }
    }

    #[test]
    fn a_damaged_token_is_never_believed(at in any::<proptest::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let keys = keys(&[issuer()]);
        let token = issuer().token(&json!({ "sub": "ann", "n": { "m": 1 } })).into_bytes();
        let mut damaged = token.clone();
        let at = at.index(token.len());
        if cut { damaged.truncate(at) } else { damaged[at] = with }
        let outcome = verify(&damaged, &keys, &rules(Duration::ZERO), Duration::ZERO);
        prop_assert_eq!(outcome.is_ok(), damaged == token);
    }

    #[test]
    fn no_bytes_are_met_with_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), header in "[ -~]{0,60}", claims in "[ -~]{0,60}") {
        let keys = keys(&[issuer()]);
        prop_assert!(verify(&bytes, &keys, &rules(Duration::ZERO), Duration::ZERO).is_err());
        let built = [header.as_bytes(), claims.as_bytes(), &bytes].map(tokens::base64url).join(".");
        prop_assert!(verify(built.as_bytes(), &keys, &rules(Duration::ZERO), Duration::ZERO).is_err());
    }

    #[test]
    fn any_object_is_a_claim_set(claims in proptest::collection::btree_map("[a-c.]{0,3}", values(), 0..6)) {
        let object: Map<String, Value> = claims.clone().into_iter().collect();
        let set = ClaimSet::of(&object);
        for (name, value) in &claims {
            if let Some(Claim::Text(text)) = set.find(name) {
                prop_assert_eq!(Some(text), value.as_str());
            }
        }
    }
}
