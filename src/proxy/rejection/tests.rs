use std::sync::Arc;

use http_body::Body as _;
use http_body_util::BodyExt;
use smallvec::smallvec;

use super::*;
use crate::limit::key::{Key, KeyPart};
use crate::limit::policy::{Applies, Cost, Missing, Mode, OnStoreError, Share, Terms};

static ID: HeaderValue = HeaderValue::from_static("id-1");

fn policy(name: &str, response: Option<&str>) -> Policy {
    let custom = |body: &str| DeniedResponse {
        status: StatusCode::FORBIDDEN,
        content_type: HeaderValue::from_static("text/plain"),
        body: body.into(),
    };
    Policy {
        name: name.into(),
        index: 0,
        ordinal: 0,
        key: Key { parts: vec![vec![KeyPart::Global]] },
        missing: Missing::Skip,
        networks: vec![],
        terms: Terms::Deny,
        overrides: Vec::new(),
        dynamic: None,
        tiers: None,
        schedules: None,
        cost: Cost::fixed(1),
        settling: crate::limit::policy::Settling::default(),
        mode: Mode::Enforce,
        applies: Applies::default(),
        on_store_error: OnStoreError::Local,
        response: response.map(custom).map(Arc::new),
        shadow_headers: false,
        enforced_share: Share::default(),
        warn_at: None,
        spread_retry: None,
    }
}

fn limited<'a>(policies: &[&'a Policy], millis: Option<u64>) -> Rejection<'a> {
    let policies = policies.iter().copied().collect();
    Rejection::Limited(Limited { policies, retry_after: millis.map(Duration::from_millis), abnormal: false })
}

fn asked(method: &Method, grpc: bool) -> Asked<'_> {
    Asked { method, grpc, request_id: &ID }
}

fn body(response: Response<Body>) -> String {
    let collected = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bytes = collected.block_on(response.into_body().collect()).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_denial_names_the_limits_it_violates() {
    let (one, two) = (policy("per \"key\"", None), policy("global", None));
    let response = limited(&[&one, &two], Some(1_200)).answer(&asked(&Method::GET, false));
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()[RETRY_AFTER], "2");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[&PROXY_STATUS], "tollgate; error=http_request_denied");
    let problem: serde_json::Value = serde_json::from_str(&body(response)).unwrap();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["violated-policies"], serde_json::json!(["per \"key\"", "global"]));
    assert_eq!(problem["status"], 429);
}

#[test]
fn a_policy_may_answer_in_its_own_words() {
    let policy = policy("login", Some("{limit.name} {limit.retry_after} {request.id} {other}"));
    let response = limited(&[&policy], Some(59_001)).answer(&asked(&Method::GET, false));
    assert_eq!(
        (response.status().as_u16(), &response.headers()[CONTENT_TYPE]),
        (403, &HeaderValue::from_static("text/plain"))
    );
    assert_eq!(body(response), "login 60 id-1 {other}");
}

#[test]
fn never_promises_nothing() {
    let policy = policy("closed", None);
    let response = limited(&[&policy], None).answer(&asked(&Method::GET, false));
    assert!(!response.headers().contains_key(RETRY_AFTER));
    let grpc = limited(&[&policy], None).answer(&asked(&Method::POST, true));
    assert_eq!(grpc.headers()[&GRPC_RETRY_PUSHBACK], "-1");
}

#[test]
fn grpc_calls_are_answered_in_trailers_only() {
    let policy = policy("closed", None);
    let response = limited(&[&policy], Some(250)).answer(&asked(&Method::POST, true));
    assert_eq!(response.status(), 200);
    assert!(response.body().is_end_stream());
    assert_eq!(response.headers()[&GRPC_STATUS], "8");
    assert_eq!(response.headers()[&GRPC_RETRY_PUSHBACK], "250");
    for (rejection, status) in
        [(Rejection::StoreUnavailable, "14"), (Rejection::NoRoute, "12"), (Rejection::BadBody, "13")]
    {
        assert_eq!(rejection.answer(&asked(&Method::POST, true)).headers()[&GRPC_STATUS], status);
    }
    let message = Rejection::EncodedSeparator.answer(&asked(&Method::POST, true)).headers()[&GRPC_MESSAGE].clone();
    assert!(message.to_str().unwrap().contains("(%252F, "));
}

#[test]
fn head_gets_no_body() {
    let response = Rejection::NoRoute.answer(&asked(&Method::HEAD, false));
    assert_eq!(response.status(), 404);
    assert!(response.body().is_end_stream());
}

#[test]
fn the_deciding_limit_is_the_one_that_denies_longest() {
    let policies = [policy("short", None), policy("never", None), policy("long", None)];
    let decision = |policy, seconds: Option<u64>| Decision {
        policy,
        limit: None,
        mode: Mode::Enforce,
        cost: 1,
        allowed: false,
        remaining: 0,
        retry_after: seconds.map(Duration::from_secs),
        reset_after: Duration::ZERO,
        source: crate::limit::Source::Store,
    };
    let decisions =
        smallvec![decision(&policies[0], Some(1)), decision(&policies[1], None), decision(&policies[2], Some(9))];
    let verdict = Verdict::new(crate::limit::Outcome::Denied { retry_after: None }, decisions);
    let names: Vec<_> = Limited::new(&verdict, None).policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["never", "long", "short"]);
}
