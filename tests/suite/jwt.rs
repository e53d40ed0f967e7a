//! Limits keyed by what a verified token says: which tokens are believed, where the keys come from, and
//! that no request waits for them.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::config::frames::Colour;
use tollgate::config::{Loaded, Origin, parse};

use crate::support::client::{self, Answer, Request};
use crate::support::eventually;
use crate::support::key_server::{Behaviour, KeyServer};
use crate::support::port::Port;
use crate::support::redis_server::RedisServer;
use crate::support::tokens::{Issuer, base64url, hs256, key_set, message, now, pem};
use crate::support::tollgate::{Tollgate, field, tollgate};

/// A proxy with one limit of a hundred an hour, where a request without the key is denied.
fn proxy(key: &str, jwt: &str) -> Tollgate {
    Tollgate::start(&configuration(key, "missing: deny", jwt))
}

fn configuration(key: &str, more: &str, jwt: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstream: echo\n\
         limits: [{{ name: claim, key: {key}, rate: 100/h, {more} }}]\njwt: {jwt}\n"
    )
}

/// Files that a configuration names.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file all at once, as one who knows that it is being read.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let (path, new) = (self.0.path().join(name), self.0.path().join("new"));
        std::fs::write(&new, contents).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }

    /// `jwt:` with the keys of these issuers, in a file.
    fn keys_of(&self, issuers: &[&Issuer], more: &str) -> String {
        format!("{{ jwks_file: '{}'{more} }}", self.write("jwks.json", key_set(issuers)).display())
    }
}

fn bearing(token: &str) -> Request {
    Request::get("/").header("authorization", &format!("Bearer {token}"))
}

fn send(proxy: &Tollgate, token: &str) -> Answer {
    proxy.client().send(&bearing(token))
}

/// What is left for the token's key, after this request.
#[track_caller]
fn remaining(proxy: &Tollgate, token: &str) -> u64 {
    let answer = send(proxy, token);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.remaining("claim")
}

/// The token counts as missing, and `missing: deny` denies for good.
#[track_caller]
fn assert_missing(proxy: &Tollgate, token: &str, what: &str) {
    let answer = send(proxy, token);
    assert_eq!((answer.status, answer.header("retry-after")), (429, None), "{what}");
}

/// How many tokens came to this.
fn tokens(proxy: &Tollgate, result: &str) -> u64 {
    proxy.metrics().count("tollgate_jwt_tokens_total", &[("result", result)])
}

fn is_up(proxy: &Tollgate) -> bool {
    proxy.metrics().count("tollgate_jwks_up", &[]) == 1
}

#[track_caller]
fn wait_for_keys(proxy: &Tollgate, count: u64) {
    eventually("the keys are there", || {
        let metrics = proxy.metrics();
        let known = (metrics.count("tollgate_jwks_up", &[]), metrics.count("tollgate_jwks_keys", &[]));
        (known == (1, count)).then_some(())
    });
}

/// Log lines with this message.
fn logged(proxy: &Tollgate, message: &str) -> Vec<Value> {
    let lines = proxy.log().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
    lines.filter(|line| field(line, "message").starts_with(message)).collect()
}

const FAILED: &str = "keys of tokens cannot be loaded";
const AGAIN: &str = "keys of tokens can be loaded again";

#[test]
fn a_valid_token_is_counted_by_its_claim_however_it_is_signed_and_written() {
    let issuers = [
        Issuer::new("RS256", Some("rsa")),
        Issuer::new("PS256", Some("pss")),
        Issuer::new("ES256", Some("p-256")),
        Issuer::new("ES384", None),
        Issuer::new("EdDSA", Some("ed")),
    ];
    let files = Files::new();
    let proxy = proxy("'jwt:sub'", &files.keys_of(&issuers.each_ref(), ""));
    let ways = ["Bearer ", "bearer ", "BEARER \t ", "", "DPoP "];
    for (number, (issuer, way)) in issuers.iter().zip(ways).enumerate() {
        let token = issuer.token(&json!({ "sub": "ann", "n": number }));
        let request = Request::get("/").header("Authorization", &format!("{way}{token}  "));
        let answer = proxy.client().send(&request);
        assert_eq!(answer.status, 200, "{way}{}", issuer.algorithm);
        assert_eq!(answer.remaining("claim"), 99 - number as u64, "{way}{}", issuer.algorithm);
    }
    assert_eq!(remaining(&proxy, &issuers[0].token(&json!({ "sub": "bob" }))), 99);
    assert_eq!(remaining(&proxy, &issuers[4].token(&json!({ "sub": "bob" }))), 98);
}

/// Tokens that must not be believed. Two issuers are known, `rsa` and `ed`; the third one is not.
fn untrustworthy(rsa: &Issuer, ed: &Issuer, stranger: &Issuer) -> Vec<(&'static str, String)> {
    let claims = json!({ "sub": "ann", "aud": "api", "iss": "us", "exp": now() + 3600 });
    let header = |algorithm: &str, kid: &str| json!({ "alg": algorithm, "kid": kid });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let good = ed.token(&claims);
    let [head, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = base64url(with("sub", json!("bob")).to_string().as_bytes());
    let flipped = if signature.as_bytes()[20] == b'A' { "B" } else { "A" };
    let flipped = format!("{}{flipped}{}", &signature[..20], &signature[21..]);
    let none = |algorithm: &str| format!("{}.", message(&json!({ "alg": algorithm }), &claims));
    let modulus = rsa.jwk()["n"].as_str().unwrap().to_owned();
    vec![
        ("other claims under the same signature", format!("{head}.{other}.{signature}")),
        ("another signature", format!("{head}.{payload}.{flipped}")),
        ("half a signature", format!("{head}.{payload}.{}", &signature[..signature.len() / 2])),
        ("no signature", format!("{head}.{payload}.")),
        ("a signature too many", format!("{good}.{signature}")),
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("alg missing", format!("{}.", message(&json!({}), &claims))),
        ("alg none with a signature", format!("{}{signature}", none("none"))),
        ("HS256 with the public key as PEM", hs256(rsa.pem().as_bytes(), &header("HS256", "rsa"), &claims)),
        ("HS256 with the public key as DER", hs256(&rsa.spki(), &header("HS256", "rsa"), &claims)),
        ("HS256 with the modulus", hs256(modulus.as_bytes(), &header("HS256", "rsa"), &claims)),
        ("HS256 without a kid", hs256(rsa.pem().as_bytes(), &json!({ "alg": "HS256" }), &claims)),
        ("HS256 with nothing", hs256(b"", &header("HS256", "rsa"), &claims)),
        ("another algorithm of the key's type", rsa.sign(&header("PS256", "rsa"), &claims)),
        ("an algorithm of another type", rsa.sign(&header("RS256", "ed"), &claims)),
        ("the key of another algorithm", ed.sign(&header("EdDSA", "rsa"), &claims)),
        ("a stranger's key", stranger.token(&claims)),
        ("a stranger who takes our key's name", stranger.sign(&header("EdDSA", "ed"), &claims)),
        ("a stranger without a name", stranger.sign(&json!({ "alg": "EdDSA" }), &claims)),
        ("a stranger's key in the header", stranger.sign(&json!({ "alg": "EdDSA", "jwk": stranger.jwk() }), &claims)),
        ("another audience", ed.token(&with("aud", json!("else")))),
        ("other audiences", ed.token(&with("aud", json!(["else", "where"])))),
        ("no audience", ed.token(&without("aud"))),
        ("another issuer", ed.token(&with("iss", json!("them")))),
        ("no issuer", ed.token(&without("iss"))),
        ("an issuer that is no text", ed.token(&with("iss", json!(["us"])))),
        ("expired", ed.token(&with("exp", json!(now() - 120)))),
        ("an expiry that is no number", ed.token(&with("exp", json!((now() + 3600).to_string())))),
        ("an expiry of null", ed.token(&with("exp", json!(null)))),
        ("a negative expiry", ed.token(&with("exp", json!(-1)))),
        ("not yet", ed.token(&with("nbf", json!(now() + 120)))),
        (
            "an extension that must be understood",
            ed.sign(&json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false }), &claims),
        ),
        ("claims that are a list", ed.sign(&header("EdDSA", "ed"), &json!([claims]))),
        ("claims that are a text", ed.sign(&header("EdDSA", "ed"), &json!("sub"))),
        ("five parts", "a.b.c.d.e".to_owned()),
        ("two parts", format!("{head}.{payload}")),
        ("dots", "...".to_owned()),
        ("a word", "letmein".to_owned()),
        ("bytes that are no ASCII", "é.é.é".to_owned()),
        ("padding", format!("{head}=.{payload}.{signature}")),
        ("another token behind it", format!("{good}, Bearer {good}")),
        ("20 KiB of a token", format!("{head}.{}.{signature}", "A".repeat(20 << 10))),
        ("10 KiB of nothing", "A".repeat(10 << 10)),
        ("10 KiB of dots", ".".repeat(10 << 10)),
    ]
}

#[test]
fn what_is_not_a_valid_token_counts_as_none_and_touches_nobodys_bucket() {
    let (rsa, ed) = (Issuer::new("RS256", Some("rsa")), Issuer::new("EdDSA", Some("ed")));
    let stranger = Issuer::new("EdDSA", Some("stranger"));
    let files = Files::new();
    let proxy = proxy("'jwt:sub'", &files.keys_of(&[&rsa, &ed], ", audience: [web, api], issuer: us, leeway: 60s"));
    let believed = |issuer: &Issuer, more: Value| {
        let mut claims = json!({ "sub": "ann", "aud": "api", "iss": "us" });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        remaining(&proxy, &issuer.token(&claims))
    };
    assert_eq!(believed(&rsa, json!({})), 99);
    for (what, token) in untrustworthy(&rsa, &ed, &stranger) {
        assert_missing(&proxy, &token, what);
    }
    assert_eq!(proxy.client().get("/").status, 429, "no token at all");
    assert_eq!(proxy.client().send(&Request::get("/").header("authorization", "Bearer")).status, 429);
    // Every way of being wrong was met, and told apart for the operator.
    for result in [
        "too_long",
        "malformed",
        "unknown_key",
        "algorithm",
        "signature",
        "expired",
        "not_yet_valid",
        "audience",
        "issuer",
    ] {
        assert!(tokens(&proxy, result) > 0, "{result}");
    }
    assert_eq!(tokens(&proxy, "valid"), 1);
    assert_eq!(believed(&rsa, json!({ "aud": ["other", "web"] })), 98);
    assert_eq!(believed(&ed, json!({ "exp": now() - 30, "nbf": now() + 30 })), 97, "within the leeway");
    assert_eq!(believed(&ed, json!({ "exp": 4e9, "nbf": 0.5, "iat": "ignored" })), 96, "times may have fractions");
    let large = json!({ "padding": "x".repeat(7_500) });
    assert_eq!(believed(&rsa, large.clone()), 95, "10 KiB of valid token");
    assert_eq!(
        remaining(&proxy, &ed.sign(&json!({ "alg": "EdDSA" }), &json!({ "sub": "ann", "aud": "api", "iss": "us" }))),
        94
    );
}

#[test]
fn what_happens_without_a_verified_claim_is_what_the_limit_says() {
    let (ed, stranger) = (Issuer::new("EdDSA", Some("ed")), Issuer::new("EdDSA", Some("stranger")));
    let files = Files::new();
    let jwt = files.keys_of(&[&ed], "");
    let forged = stranger.token(&json!({ "sub": "ann" }));
    let without = ed.token(&json!({ "name": "ann" }));

    let skipping = Tollgate::start(&configuration("'jwt:sub'", "missing: skip", &jwt));
    for request in [Request::get("/"), bearing(&forged), bearing("garbage"), bearing(&without)] {
        let answer = skipping.client().send(&request);
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None), "{request:?}");
    }
    assert_eq!(remaining(&skipping, &ed.token(&json!({ "sub": "ann" }))), 99);

    let by_address = Tollgate::start(&configuration("'jwt:sub'", "missing: client_ip", &jwt));
    let left = |request: &Request| by_address.client().send(request).remaining("claim");
    assert_eq!(left(&Request::get("/")), 99);
    assert_eq!(left(&bearing(&forged)), 98);
    assert_eq!(left(&bearing("garbage")), 97);
    assert_eq!(left(&bearing(&without)), 96);
    assert_eq!(left(&bearing(&ed.token(&json!({ "sub": "ann" })))), 99);
    assert_eq!(left(&bearing(&ed.token(&json!({ "sub": "127.0.0.1" })))), 99, "a claim is no address");

    let alternatives = Tollgate::start(&configuration("'jwt:sub | header:x-api-key | client_ip'", "burst: 100", &jwt));
    let left = |request: &Request| alternatives.client().send(request).remaining("claim");
    assert_eq!(left(&bearing(&forged).header("x-api-key", "ann")), 99);
    assert_eq!(left(&Request::get("/").header("x-api-key", "ann")), 98);
    assert_eq!(left(&bearing(&ed.token(&json!({ "sub": "ann" }))).header("x-api-key", "ann")), 99);
    assert_eq!(left(&Request::get("/")), 99);
}

#[test]
fn two_tokens_in_one_request_are_refused_for_every_limit_that_asks() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let files = Files::new();
    let token = format!("Bearer {}", ed.token(&json!({ "sub": "ann" })));
    let jwt = files.keys_of(&[&ed], "");
    for missing in ["deny", "skip", "client_ip"] {
        let proxy = Tollgate::start(&configuration("'jwt:sub'", &format!("missing: {missing}"), &jwt));
        let twice = Request::get("/").header("authorization", &token).header("authorization", &token);
        assert_eq!(proxy.client().send(&twice).status, 400, "{missing}");
        let scheme = Request::get("/").header("authorization", "Basic YTpi").header("authorization", &token);
        assert_eq!(proxy.client().send(&scheme).status, 400, "{missing}");
        assert_eq!(proxy.client().send(&Request::get("/").header("authorization", &token)).remaining("claim"), 99);
    }
}

#[test]
fn the_token_may_be_carried_by_another_field() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let files = Files::new();
    let proxy = proxy("'jwt:sub'", &files.keys_of(&[&ed], ", header: X-Access-Token"));
    let token = ed.token(&json!({ "sub": "ann" }));
    assert_missing(&proxy, &token, "not in Authorization");
    for (number, way) in ["", "Bearer "].into_iter().enumerate() {
        let request = Request::get("/").header("x-access-token", &format!("{way}{token}"));
        assert_eq!(proxy.client().send(&request).remaining("claim"), 99 - number as u64);
    }
}

#[test]
fn claims_are_texts_numbers_and_booleans_each_in_its_own_right() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let files = Files::new();
    let proxy = proxy("'jwt:id'", &files.keys_of(&[&ed], ""));
    let left = |id: Value| remaining(&proxy, &ed.token(&json!({ "id": id })));
    assert_eq!(left(json!(42)), 99);
    assert_eq!(left(json!(42.0)), 98, "the same number");
    for own in [
        json!("42"),
        json!("\"42"),
        json!(43),
        json!(-42),
        json!(4.2),
        json!(true),
        json!(false),
        json!("true"),
        json!("null"),
        json!(9_007_199_254_740_992_u64),
        json!(9_007_199_254_740_993_u64),
        json!(u64::MAX),
        json!(u64::MAX - 1),
        json!("ann"),
        json!("Ann"),
        json!("ann "),
        json!("änn"),
        json!("x".repeat(5_000)),
        json!("x".repeat(5_001)),
    ] {
        assert_eq!(left(own.clone()), 99, "{own}");
    }
    for none in [json!(null), json!(""), json!([]), json!(["ann"]), json!({ "a": 1 }), json!(1e300), json!(1.0e19)] {
        assert_missing(&proxy, &ed.token(&json!({ "id": none })), &none.to_string());
    }
}

#[test]
fn claims_within_claims_are_reached_with_dots_and_names_may_have_dots() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let files = Files::new();
    let jwt = files.keys_of(&[&ed], "");
    let nested = proxy("'jwt:realm.tenant'", &jwt);
    assert_eq!(remaining(&nested, &ed.token(&json!({ "realm": { "tenant": "acme", "other": 1 } }))), 99);
    assert_eq!(remaining(&nested, &ed.token(&json!({ "realm": { "tenant": "umbrella" } }))), 99);
    let both = json!({ "realm": { "tenant": "umbrella" }, "realm.tenant": "acme" });
    assert_eq!(remaining(&nested, &ed.token(&both)), 98, "the name as it stands comes first");
    for missing in
        [json!({ "tenant": "acme" }), json!({ "realm": "acme" }), json!({ "realm": { "tenant": { "id": 1 } } })]
    {
        assert_missing(&nested, &ed.token(&missing), &missing.to_string());
    }
    let named = proxy("'jwt:https://example.com/plan'", &jwt);
    assert_eq!(remaining(&named, &ed.token(&json!({ "https://example.com/plan": "gold" }))), 99);
    assert_missing(&named, &ed.token(&json!({ "plan": "gold" })), "another name");
    let combined = proxy("['jwt:tenant', 'jwt:sub']", &jwt);
    let left = |tenant: &str, sub: &str| remaining(&combined, &ed.token(&json!({ "tenant": tenant, "sub": sub })));
    assert_eq!([left("acme", "ann"), left("acme", "bob"), left("acme", "ann"), left("acm", "eann")], [99, 99, 98, 99]);
    assert_missing(&combined, &ed.token(&json!({ "tenant": "acme" })), "a part of the key is missing");
}

#[test]
fn overrides_are_matched_against_the_claim() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let files = Files::new();
    let overrides = "missing: deny, overrides: [{ key: [admin, '7'], rate: unlimited }, { key: abusive, rate: 0/s }]";
    let proxy = Tollgate::start(&configuration("'jwt:sub'", overrides, &files.keys_of(&[&ed], "")));
    for free in [json!("admin"), json!(7)] {
        let answer = send(&proxy, &ed.token(&json!({ "sub": free })));
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None), "{free}");
    }
    assert_eq!(send(&proxy, &ed.token(&json!({ "sub": "abusive" }))).status, 429);
    let forged = Issuer::new("EdDSA", Some("ed")).token(&json!({ "sub": "admin" }));
    assert_missing(&proxy, &forged, "nobody becomes admin by saying so");
}

#[test]
fn a_token_is_verified_once_and_only_where_a_limit_asks_for_a_claim() {
    let rsa = Issuer::new("RS256", Some("rsa"));
    let files = Files::new();
    let proxy = Tollgate::start(&format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0' }} }}\nworkers: 1\nroutes:\n\
         \x20 - name: plain\n    match: {{ path: /plain }}\n    upstream: echo\n\
         \x20   limits: [{{ name: plain, key: client_ip, rate: 100/h }}]\n\
         \x20 - name: claims\n    match: {{ path: /claims }}\n    upstream: echo\n    limits:\n\
         \x20     - {{ name: claim, key: 'jwt:sub', rate: 100/h }}\n\
         \x20     - {{ name: tenant, key: ['jwt:tenant', 'jwt:sub'], rate: 100/h }}\n\
         \x20     - {{ name: missing, key: 'jwt:nothing | jwt:sub', rate: 100/h, mode: shadow }}\n\
         jwt: {}\n",
        files.keys_of(&[&rsa], "")
    ));
    let (one, two) = (rsa.token(&json!({ "sub": 1, "tenant": 1 })), rsa.token(&json!({ "sub": 2, "tenant": 1 })));
    let mut client = proxy.client();
    let mut get = |path: &str, token: &str| {
        let request = Request::get(path).header("authorization", &format!("Bearer {token}"));
        assert_eq!(client.send(&request).status, 200);
    };
    for _ in 0..5 {
        get("/plain", &one);
        get("/plain", "garbage");
    }
    let counts = || ["valid", "remembered", "malformed"].map(|result| tokens(&proxy, result));
    assert_eq!(counts(), [0, 0, 0], "nobody asked");
    for _ in 0..5 {
        get("/claims", &one);
    }
    assert_eq!(counts(), [1, 4, 0]);
    for token in [&two, &one, &two] {
        get("/claims", token);
    }
    assert_eq!(counts(), [2, 6, 0]);
    get("/claims", "garbage");
    assert_eq!(counts(), [2, 6, 1], "three limits asked, one answer");
}

#[test]
fn a_remembered_token_expires_all_the_same() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let files = Files::new();
    let proxy = proxy("'jwt:sub'", &files.keys_of(&[&ed], ", leeway: 0s"));
    let token = ed.token(&json!({ "sub": "ann", "exp": now() + 3 }));
    assert_eq!(remaining(&proxy, &token), 99);
    assert_eq!(remaining(&proxy, &token), 98);
    eventually("it expires", || {
        let answer = send(&proxy, &token);
        (answer.status == 429 && answer.header("retry-after").is_none()).then_some(())
    });
    assert_eq!([tokens(&proxy, "valid"), tokens(&proxy, "expired")], [1, 1]);
}

#[test]
fn a_new_key_is_found_early_and_no_request_waits_for_it() {
    let (old, new) = (Issuer::new("ES256", Some("old")), Issuer::new("ES256", Some("new")));
    let server = KeyServer::start(&key_set(&[&old]));
    let proxy = proxy("'jwt:sub'", &format!("{{ jwks_url: '{}', refresh: 1h }}", server.url()));
    wait_for_keys(&proxy, 1);
    let (by_old, by_new) = (old.token(&json!({ "sub": "ann" })), new.token(&json!({ "sub": "ann" })));
    assert_eq!(remaining(&proxy, &by_old), 99);

    server.become_(Behaviour::Hang);
    assert_missing(&proxy, &by_new, "its key is not known yet");
    eventually("the key set is asked for", || (server.requests() == 2).then_some(()));
    // The server owes its answer: whoever waited for it would not be answered now.
    assert_missing(&proxy, &by_new, "still not known");
    assert_eq!(remaining(&proxy, &by_old), 98);

    server.become_(Behaviour::Body(key_set(&[&old, &new])));
    eventually("the new key is known", || (send(&proxy, &by_new).status == 200).then_some(()));
    wait_for_keys(&proxy, 2);
    assert!(remaining(&proxy, &by_old) < 98, "the same person");

    // Names of keys can be made up without end: they lead to one fetch in ten seconds.
    for number in 0..200 {
        let header = json!({ "alg": "ES256", "kid": format!("made-up-{number}") });
        assert_missing(&proxy, &old.sign(&header, &json!({ "sub": "ann" })), "made up");
    }
    assert!((2..=3).contains(&server.requests()), "{} fetches", server.requests());
}

/// What a broken server does, and what the log says of it.
fn broken(keys: &str) -> Vec<(Behaviour, &'static str)> {
    vec![
        (Behaviour::Hang, "no whole answer within 5 s"),
        (Behaviour::Close, "connection"),
        (Behaviour::Status(500, keys.to_owned()), "the server answers 500"),
        (Behaviour::Status(302, keys.to_owned()), "give the final address"),
        (Behaviour::Body("<html>not here</html>".to_owned()), "not a JSON Web Key Set"),
        (Behaviour::Body("{\"keys\":{}}".to_owned()), "not a JSON Web Key Set"),
        (Behaviour::Body("{\"keys\":[]}".to_owned()), "none of its keys can be used"),
        (Behaviour::Body("[".repeat(200_000)), "not a JSON Web Key Set"),
        (Behaviour::Body(format!("{keys}{}", " ".repeat(300 << 10))), "larger than 256 KiB"),
        (Behaviour::Endless, "larger than 256 KiB"),
    ]
}

#[test]
fn a_key_server_that_is_broken_at_the_start_harms_nobody_and_is_used_once_it_works() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let keys = key_set(&[&ed]);
    let token = ed.token(&json!({ "sub": "ann" }));
    let run = |behaviour: Behaviour, said: &str| {
        let name = format!("{behaviour:?}").chars().take(60).collect::<String>();
        let server = KeyServer::behaving(behaviour);
        let proxy = proxy("'jwt:sub'", &format!("{{ jwks_url: '{}' }}", server.url()));
        assert_missing(&proxy, &token, &name);
        assert_eq!(tokens(&proxy, "no_keys"), 1);
        let failure = proxy.wait_for_log(&name, |line| field(line, "message").starts_with(FAILED));
        assert!(field(&failure, "error").contains(said), "{name}: {failure}");
        let metrics = proxy.metrics();
        let known = ["up", "keys", "last_success_timestamp_seconds"];
        assert_eq!(known.map(|known| metrics.count(&format!("tollgate_jwks_{known}"), &[])), [0, 0, 0], "{name}");
        assert_missing(&proxy, &token, &name);
        server.become_(Behaviour::Body(keys.clone()));
        eventually(&name, || (send(&proxy, &token).status == 200).then_some(()));
        assert!(is_up(&proxy) && logged(&proxy, FAILED).len() == 1, "{name}");
        assert!(now() - proxy.metrics().count("tollgate_jwks_last_success_timestamp_seconds", &[]) < 60, "{name}");
    };
    std::thread::scope(|scope| {
        for (behaviour, said) in broken(&keys) {
            let run = &run;
            scope.spawn(move || run(behaviour, said));
        }
        scope.spawn(|| {
            let port = Port::take();
            let jwt = format!("{{ jwks_url: '{}/keys' }}", port.url());
            let proxy = proxy("'jwt:sub'", &jwt);
            let failure = proxy.wait_for_log("nobody listens", |line| field(line, "message").starts_with(FAILED));
            assert!(field(&failure, "error").contains("cannot connect"), "{failure}");
            assert_missing(&proxy, &token, "nobody listens");
            let _server = KeyServer::start_on(port.number(), &keys);
            eventually("the server is found", || (send(&proxy, &token).status == 200).then_some(()));
        });
    });
}

#[test]
fn a_key_server_that_breaks_leaves_the_keys_and_the_log_tells_it_once() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let keys = key_set(&[&ed]);
    let server = KeyServer::start(&keys);
    let proxy = proxy("'jwt:sub'", &format!("{{ jwks_url: '{}', refresh: 1s }}", server.url()));
    wait_for_keys(&proxy, 1);
    let token = ed.token(&json!({ "sub": "ann" }));
    let mut left = remaining(&proxy, &token);
    for outage in 1..=2 {
        server.become_(Behaviour::Status(503, String::new()));
        let before = server.requests();
        eventually("it is asked again and again", || (server.requests() >= before + 2).then_some(()));
        assert!(!is_up(&proxy));
        assert_eq!((logged(&proxy, FAILED).len(), logged(&proxy, AGAIN).len()), (outage, outage - 1));
        let next = remaining(&proxy, &token);
        assert_eq!(next, left - 1, "the keys stay");
        left = next;
        server.become_(Behaviour::Body(keys.clone()));
        eventually("it works again", || (is_up(&proxy) && logged(&proxy, AGAIN).len() == outage).then_some(()));
    }
    assert_eq!(logged(&proxy, "keys of tokens loaded").len(), 1, "they never changed");
    assert_eq!(tokens(&proxy, "valid"), 1, "so what was verified stays so");
}

#[test]
fn each_new_reason_of_an_outage_of_the_keys_is_a_line() {
    let port = Port::take();
    let proxy = proxy("'jwt:sub'", &format!("{{ jwks_url: '{}/keys' }}", port.url()));
    let first = proxy.wait_for_log("nobody listens", |line| field(line, "message").starts_with(FAILED));
    assert!(field(&first, "message").contains("there are none"), "no keys stay where there were none: {first}");
    let server = KeyServer::start_on(port.number(), "<html>");
    let second = proxy.wait_for_log("another reason", |line| field(line, "message").contains("still cannot be loaded"));
    assert!(field(&second, "error").contains("not a JSON Web Key Set"), "{second}");
    let before = server.requests();
    eventually("it is asked again and again", || (server.requests() >= before + 2).then_some(()));
    assert_eq!(proxy.log().iter().filter(|line| line.contains("cannot be loaded")).count(), 2, "{:#?}", proxy.log());
    server.become_(Behaviour::Body(key_set(&[&Issuer::new("EdDSA", Some("ed"))])));
    wait_for_keys(&proxy, 1);
}

#[test]
fn a_proxy_that_waits_for_keys_ends_when_it_is_asked_to() {
    let server = KeyServer::behaving(Behaviour::Hang);
    let mut proxy = proxy("'jwt:sub'", &format!("{{ jwks_url: '{}' }}", server.url()));
    eventually("the keys are asked for", || (server.requests() == 1).then_some(()));
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
    assert_eq!(logged(&proxy, FAILED), Vec::<Value>::new(), "it did not wait for the answer");
}

#[test]
fn keys_are_fetched_with_tls_from_a_server_that_proves_who_it_is() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let server = KeyServer::start_with_tls(&key_set(&[&ed]));
    let url = server.url();
    let token = ed.token(&json!({ "sub": "ann" }));
    let trusting = proxy("'jwt:sub'", &format!("{{ jwks_url: '{url}', jwks_ca: '{}' }}", server.ca().display()));
    let doubting = proxy("'jwt:sub'", &format!("{{ jwks_url: '{url}' }}"));
    wait_for_keys(&trusting, 1);
    assert_eq!(remaining(&trusting, &token), 99);
    let failure = doubting.wait_for_log("doubt", |line| field(line, "message").starts_with(FAILED));
    assert!(field(&failure, "error").contains("certificate"), "{failure}");
    assert_missing(&doubting, &token, "keys of somebody who might be anybody");
}

#[test]
fn files_are_read_again_when_they_change_and_keys_taken_out_are_not_believed_any_more() {
    let (old, new) = (Issuer::new("EdDSA", Some("old")), Issuer::new("EdDSA", Some("new")));
    let (by_old, by_new) = (old.token(&json!({ "sub": "ann" })), new.token(&json!({ "sub": "ann" })));
    let run = |key: &str, name: &str, contents: &dyn Fn(&Issuer) -> String| {
        let files = Files::new();
        let path = files.write(name, contents(&old));
        let proxy = proxy("'jwt:sub'", &format!("{{ {key}: '{}' }}", path.display()));
        assert!(is_up(&proxy), "from the first moment");
        assert_eq!([remaining(&proxy, &by_old), remaining(&proxy, &by_old)], [99, 98], "verified, and remembered");
        assert_missing(&proxy, &by_new, "not yet");
        files.write(name, contents(&new));
        eventually("the new key is read", || (send(&proxy, &by_new).status == 200).then_some(()));
        assert_missing(&proxy, &by_old, "though it was remembered");
        files.write(name, "nonsense");
        proxy.wait_for_log("nonsense is told", |line| field(line, "message").starts_with(FAILED));
        assert_eq!(send(&proxy, &by_new).status, 200, "the keys stay");
        assert!(!is_up(&proxy));
        files.write(name, contents(&new));
        eventually("the file is good again", || (logged(&proxy, AGAIN).len() == 1).then_some(()));
        assert_eq!(logged(&proxy, FAILED).len(), 1);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run("jwks_file", "jwks.json", &|issuer| key_set(&[issuer])));
        scope.spawn(|| run("public_key_file", "issuer.pem", &Issuer::pem));
    });
}

#[test]
fn a_pem_file_may_hold_keys_of_every_kind() {
    let issuers = ["RS256", "ES256", "ES384", "EdDSA"].map(|algorithm| Issuer::new(algorithm, Some("any-name")));
    let files = Files::new();
    let all: String = issuers.iter().map(Issuer::pem).collect();
    let path = files.write("issuers.pem", format!("Keys of our issuers.\n\n{all}"));
    let proxy = proxy("'jwt:sub'", &format!("{{ public_key_file: '{}' }}", path.display()));
    for (number, issuer) in issuers.iter().enumerate() {
        assert_eq!(
            remaining(&proxy, &issuer.token(&json!({ "sub": "ann" }))),
            99 - number as u64,
            "{}",
            issuer.algorithm
        );
        let secret = hs256(issuer.pem().as_bytes(), &json!({ "alg": "HS256" }), &json!({ "sub": "ann" }));
        assert_missing(&proxy, &secret, "a public key is no secret");
    }
    let stranger = Issuer::new("ES256", Some("any-name"));
    assert_missing(&proxy, &stranger.token(&json!({ "sub": "ann" })), "a stranger");
}

#[test]
fn no_claim_and_no_token_is_written_anywhere() {
    let (ed, redis) = (Issuer::new("EdDSA", Some("ed")), RedisServer::start());
    let server = KeyServer::start(&key_set(&[&ed]));
    let proxy = Tollgate::start(&format!(
        "{}log: {{ level: trace }}\naccess_log: {{ format: json }}\nstore: {{ redis: {{ url: '{}', timeout: 2s }} }}\n",
        configuration("['jwt:email', 'jwt:id']", "missing: skip", &format!("{{ jwks_url: '{}' }}", server.url())),
        redis.url()
    ));
    wait_for_keys(&proxy, 1);
    let token = ed.token(&json!({ "email": "ann@example.com", "id": 4_711_471_147_u64 }));
    let request = bearing(&token).host("a.test");
    eventually("redis is used", || {
        let answer = proxy.client().send(&request);
        (answer.status == 200 && !redis.keys().is_empty()).then_some(())
    });
    let forged = Issuer::new("EdDSA", Some("ed")).token(&json!({ "email": "eve@example.com", "id": 1 }));
    assert_eq!(send(&proxy, &forged).status, 200);
    proxy.access_lines(2);
    let keys = redis.keys();
    assert!(keys.iter().any(|key| key.contains("jwt:email=#") && key.contains("jwt:id=#")), "{keys:?}");
    let scrape = client::get(proxy.admin(), "/metrics").text();
    let everything = [proxy.log().join("\n"), proxy.output().join("\n"), scrape, format!("{keys:?}")].join("\n");
    let parts = [&token, &forged].map(|token| token.split('.').nth(1).unwrap().to_owned());
    for secret in ["ann@", "eve@", "4711471147", &parts[0], &parts[1]] {
        assert!(!everything.contains(secret), "{secret} was written");
    }
}

#[test]
fn explain_imagines_a_verified_token() {
    let ed = Issuer::new("EdDSA", Some("ed"));
    let files = Files::new();
    let yaml = configuration("['jwt:realm.tenant', 'jwt:sub']", "missing: deny", &files.keys_of(&[&ed], ""));
    let path = files.write("proxy.yaml", yaml);
    let explain =
        |more: &[&str]| tollgate(&[&["explain", "-c", path.to_str().unwrap(), "GET", "http://a/"], more].concat());
    let counted = explain(&["--jwt-claims", r#"{ "sub": "ann", "realm": { "tenant": 7 } }"#]).output;
    assert!(counted.contains("counted under") && counted.contains("jwt:realm.tenant=#"), "{counted}");
    assert!(counted.contains("per claim realm.tenant of the verified token and claim sub"), "{counted}");
    let missing = explain(&["--jwt-claims", r#"{ "sub": "ann" }"#]).output;
    assert!(missing.contains("denied") && missing.contains("missing: deny"), "{missing}");
    let token = format!("authorization: Bearer {}", ed.token(&json!({ "sub": "ann", "realm": { "tenant": 7 } })));
    let unverified = explain(&["-H", &token]).output;
    assert!(unverified.contains("missing: deny"), "{unverified}");
    assert!(unverified.contains("tokens in fields are not verified here: say what it tells with --jwt-claims"));
    assert!(!missing.contains("are not verified here"), "{missing}");
    let twice = explain(&["-H", &token, "-H", &token, "--jwt-claims", "{}"]).output;
    assert!(twice.contains("400"), "{twice}");
    let wrong = explain(&["--jwt-claims", "[1]"]);
    assert!(wrong.code == Some(2) && wrong.errors.contains("as a JSON object"), "{}", wrong.errors);
}

/// What is said about a configuration; nothing when there is nothing to say.
fn check(text: &str) -> String {
    match parse(text, &Origin::File(PathBuf::from("proxy.yaml")), &|_| None) {
        Ok(loaded) if loaded.warnings.is_empty() => String::new(),
        Ok(Loaded { warnings: report, .. }) | Err(report) => report.render(Colour::Plain),
    }
}

/// What is said about a `jwt:` with these keys, in a configuration whose limit is keyed by a claim.
fn said(jwt: &str) -> String {
    check(&format!("listen: :8080\nupstream: echo\nlimits: [{{ key: 'jwt:sub', rate: 1/s }}]\njwt: {jwt}\n"))
}

/// The same for a file with these contents.
fn said_of_file(files: &Files, key: &str, contents: impl AsRef<[u8]>) -> String {
    said(&format!("{{ {key}: '{}' }}", files.write("keys", contents).display()))
}

#[test]
fn files_without_a_usable_key_are_mistakes_of_the_configuration() {
    let files = Files::new();
    let with = |jwk: Value, name: &str, value: Value| {
        let mut jwk = jwk;
        jwk[name] = value;
        json!({ "keys": [jwk] }).to_string()
    };
    let (ed, ec) = (Issuer::new("EdDSA", Some("one")).jwk(), Issuer::new("ES256", Some("one")).jwk());
    let rsa = Issuer::new("RS256", Some("one")).jwk();
    let secret = json!({ "kty": "oct", "kid": "one", "k": "c2VjcmV0" });
    for (contents, expected) in [
        ("{}".to_owned(), "it is not a JSON Web Key Set"),
        ("not json".to_owned(), "it is not a JSON Web Key Set"),
        (" ".repeat(300 << 10), "larger than 256 KiB"),
        (json!({ "keys": [] }).to_string(), "there are none"),
        (
            json!({ "keys": [secret, 5] }).to_string(),
            "key `one` is a shared secret, with which whoever verifies could forge",
        ),
        (with(ed.clone(), "d", json!("AA")), "key `one` is a private key"),
        (with(ed.clone(), "x", json!("AA")), "key `one` is of a kind that is not supported, or malformed"),
        (with(ed.clone(), "crv", json!("Ed448")), "not supported"),
        (with(ed.clone(), "use", json!("enc")), "key `one` is not for signatures"),
        (with(ed.clone(), "key_ops", json!(["sign"])), "key `one` is not for signatures"),
        (with(ed, "alg", json!("ES256")), "key `one` is for no algorithm that is allowed"),
        (with(ec.clone(), "crv", json!("secp256k1")), "not supported"),
        (with(ec.clone(), "crv", json!("P-384")), "malformed"),
        (with(ec, "y", json!("not base64!")), "malformed"),
        (with(rsa, "n", json!(base64url(&[0xff; 128]))), "fewer than 2048 bits"),
    ] {
        let out = said_of_file(&files, "jwks_file", &contents);
        assert!(out.contains("proxy.yaml:4:19") && out.contains(expected), "{expected} in {out}");
    }
    for (contents, expected) in [
        (String::new(), "no PEM section PUBLIC KEY"),
        (pem("CERTIFICATE", b"anything"), "openssl x509 -pubkey"),
        (pem("PRIVATE KEY", b"anything"), "openssl pkey -pubout"),
        (pem("PUBLIC KEY", b"anything"), "not supported, or malformed"),
        ("-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----\n".to_owned(), "no PEM section PUBLIC KEY"),
    ] {
        let out = said_of_file(&files, "public_key_file", &contents);
        assert!(out.contains("proxy.yaml:4:25") && out.contains(expected), "{expected} in {out}");
    }
}

#[test]
fn keys_that_are_passed_over_are_told_when_they_may_be_meant() {
    let files = Files::new();
    let ed = Issuer::new("EdDSA", Some("good")).jwk();
    let encryption = json!({ "kty": "RSA", "use": "enc", "kid": "enc", "n": "AQAB", "e": "AQAB" });
    let out = said_of_file(&files, "jwks_file", json!({ "keys": [ed, encryption] }).to_string());
    assert_eq!(out, "", "a key for something else is nothing to warn about");
    let secret = json!({ "kty": "oct", "kid": "hs", "k": "c2VjcmV0" });
    let out = said_of_file(&files, "jwks_file", json!({ "keys": [ed, secret] }).to_string());
    assert!(out.contains("some keys are not used: key `hs` is a shared secret"), "{out}");
    assert!(!out.contains("c2VjcmV0"), "{out}");
}

#[test]
fn a_tier_that_a_token_tells_is_not_the_clients_to_choose() {
    let files = Files::new();
    let path = files.write("issuer.pem", Issuer::new("RS256", None).pem());
    let tiers = |by: &str| {
        let limit =
            format!("{{ name: a, key: client_ip, rate: 1/s, tiers: {{ by: '{by}', values: {{ pro: 9/s }} }} }}");
        let jwt = format!("jwt: {{ public_key_file: '{}' }}", path.display());
        check(&format!("listen: :8080\nupstream: echo\nlimits: [{limit}]\n{jwt}\n"))
    };
    let verified = tiers("jwt:plan");
    assert!(!verified.contains("warning"), "{verified}");
    let chosen = tiers("jwt:plan | header:x-plan");
    assert!(chosen.contains("whoever sends `header:x-plan` is believed"), "{chosen}");
}

#[test]
fn a_wrong_jwt_says_what_to_write() {
    let url = "jwks_url: 'https://login.example.com/jwks.json'";
    for (jwt, place, expected) in [
        ("{}".to_owned(), "4:1", "`jwt` does not say where the keys are"),
        (format!("{{ {url}, jwks_file: x }}"), "4:57", "keep one of `jwks_url`, `jwks_file` and `public_key_file`"),
        ("{ jwks_file: /nowhere/x }".to_owned(), "4:19", "cannot read `/nowhere/x`: there is no such file"),
        ("{ jwks_url: login.example.com }".to_owned(), "4:18", "does not begin with https://"),
        ("{ jwks_url: 'http://login.example.com' }".to_owned(), "4:18", "write https://login.example.com"),
        (format!("{{ {url}, jwks_ca: /nowhere/ca }}"), "4:66", "cannot read `/nowhere/ca`"),
        ("{ jwks_url: 'http://127.0.0.1/', jwks_ca: x }".to_owned(), "4:39", "`jwks_ca` has no meaning without TLS"),
        (format!("{{ {url}, algorithms: [RS256, HS256] }}"), "4:77", "`HS256` needs a shared secret"),
        (format!("{{ {url}, algorithms: none }}"), "4:69", "a token without a signature proves nothing"),
        (format!("{{ {url}, algorithms: RS265 }}"), "4:69", "did you mean `RS256`?"),
        (format!("{{ {url}, leeway: 1h }}"), "4:65", "write 10m or less"),
        (format!("{{ {url}, refresh: 0s }}"), "4:66", "longer than zero"),
        (format!("{{ {url}, refresh: 10ms }}"), "4:66", "more than once a second"),
        (format!("{{ {url}, audience: [] }}"), "4:57", "this names nobody"),
        (format!("{{ {url}, header: 'a b' }}"), "4:65", "not a field name"),
        (format!("{{ {url}, adience: api }}"), "4:57", "did you mean `audience`?"),
    ] {
        let out = said(&jwt);
        assert!(out.contains(&format!("proxy.yaml:{place}\n")), "{place} in {out}");
        assert!(out.contains(expected) && out.contains("1 error in"), "{expected} in {out}");
    }
    let files = Files::new();
    let file = files.write("jwks", key_set(&[&Issuer::new("EdDSA", None)])).display().to_string();
    let out = said(&format!("{{ jwks_file: '{file}', refresh: 5m }}"));
    assert!(out.contains("`refresh` belongs to `jwks_url`"), "{out}");
    assert_eq!(said(&format!("{{ jwks_file: '{file}' }}")), "", "a verified claim is nothing that a client invents");
    assert!(
        said(&format!("{{ jwks_file: '{file}', algorithms: RS256 }}")).contains("for no algorithm that is allowed")
    );
}

#[test]
fn claims_and_keys_belong_together() {
    let limits = |key: &str| format!("listen: :8080\nupstream: echo\nlimits: [{{ key: '{key}', rate: 1/s }}]\n");
    let jwt = "jwt: { jwks_url: 'https://login.example.com/jwks.json' }\n";
    let out = check(&limits("jwt:sub"));
    assert!(
        out.contains("proxy.yaml:3:17\n") && out.contains("`jwt:sub` cannot be told: no token can be verified"),
        "{out}"
    );
    let out = check(&format!("{}{jwt}", limits("client_ip")));
    assert!(
        out.contains("proxy.yaml:4:1\n") && out.contains("no limit asks for a claim and no field holds one"),
        "{out}"
    );
    assert_eq!(check(&format!("{}{jwt}", limits("jwt:sub"))), "");
    let out = check(&format!("{}{jwt}", limits("jwt:sub | header:x-api-key")));
    assert!(out.contains("a client leaves this limit behind"), "{out}");
    let skipping = |more: &str| {
        let limit = "{ key: 'jwt:sub', missing: skip, rate: 1/s }";
        check(&format!("listen: :8080\nupstream: echo\nlimits: [{limit}{more}]\n{jwt}"))
    };
    let out = skipping("");
    assert!(
        out.contains("not believed, passes this limit uncounted") && out.contains("leave `missing: skip` out"),
        "{out}"
    );
    assert_eq!(skipping(", { key: client_ip, rate: 1/s }"), "");
    let redis = "store: { redis: { url: redis://127.0.0.1 } }\n";
    assert!(check(&format!("{}{jwt}{redis}", limits("jwt:sub"))).contains("stand in Redis as an unkeyed hash"));
    assert!(check(&format!("{}jwt: {{}}\n", limits("jwt:sub"))).contains("1 error in"), "one mistake, told once");
}
