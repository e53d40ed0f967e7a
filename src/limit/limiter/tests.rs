use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::limit::algorithm::{Algorithm, Bucket};
use crate::limit::key::{Key, KeyPart, NoClaims};
use crate::limit::policy::{
    Applies, Cost, Limit, Missing, Mode, Override, OverrideMatch, PathPattern, Settling, Share, Terms,
};
use crate::limit::store::settings::{HashTags, RedisSettings, ServerAddress, Servers};

pub(in crate::limit) fn terms(state_id: &str, rate: &str, burst: u64) -> Terms {
    let rate = rate.parse().unwrap();
    let algorithm = Algorithm::TokenBucket(Bucket::new(rate, burst).unwrap());
    Terms::Limited(vec![Limit {
        state_id: state_id.into(),
        suffix: "".into(),
        rate: Some(rate),
        algorithm,
        lease: None,
        network: None,
    }])
}

pub(in crate::limit) fn policy(name: &str, key: &str, terms: Terms) -> Policy {
    Policy {
        name: name.into(),
        index: 0,
        ordinal: 0,
        key: Key { parts: vec![Key::parse_part(key, 64).unwrap()] },
        missing: Missing::ClientIp { ipv6_prefix: 64 },
        networks: vec![],
        terms,
        overrides: vec![],
        dynamic: None,
        tiers: None,
        schedules: None,
        cost: Cost::fixed(1),
        settling: Settling::default(),
        mode: Mode::Enforce,
        applies: Applies::default(),
        on_store_error: OnStoreError::Local,
        response: None,
        shadow_headers: false,
        enforced_share: Share::default(),
        warn_at: None,
        spread_retry: None,
    }
}

/// An API key that an override names.
fn value(value: &str) -> OverrideMatch {
    let part = KeyPart::Header(http::HeaderName::from_static("x-api-key"));
    OverrideMatch::Value { part, value: value.into() }
}

/// A limit of this burst by client address, which earns next to nothing back.
fn burst(name: &str, burst: u64) -> Policy {
    policy(name, "client_ip", terms(name, "1/d", burst))
}

fn leaky(name: &str, rate: &str, burst: u64) -> Policy {
    let Terms::Limited(mut limits) = terms(name, rate, burst) else { panic!("counted") };
    limits[0].algorithm = Algorithm::LeakyBucket { bucket: *limits[0].algorithm.bucket().unwrap(), delay_after: 1 };
    policy(name, "client_ip", Terms::Limited(limits))
}

fn shared(policies: Vec<Policy>) -> Vec<Arc<Policy>> {
    policies
        .into_iter()
        .enumerate()
        .map(|(index, policy)| Arc::new(Policy { index, ordinal: index, ..policy }))
        .collect()
}

/// A request from one address, with a key field if given.
struct Request {
    method: Method,
    path: &'static str,
    ip: IpAddr,
    headers: HeaderMap,
}

fn request() -> Request {
    Request { method: Method::GET, path: "/", ip: [192, 0, 2, 1].into(), headers: HeaderMap::new() }
}

impl Request {
    fn with_key(mut self, value: &'static str) -> Self {
        self.headers.append("x-api-key", HeaderValue::from_static(value));
        self
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            client_ip: Some(self.ip),
            method: &self.method,
            host: "example.com",
            path: self.path,
            query: None,
            headers: &self.headers,
            has_unsized_body: false,
            tls_subject: None,
            params: &[],
            route: "r",
            claims: &NoClaims,
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn limiter(backend: Backend) -> Rc<Limiter> {
    let settings = StoreSettings { backend, max_keys: 1000 };
    Limiter::start(
        &settings,
        Arc::new(Fallback::new(Arc::new(MemoryStore::new(1000)))),
        Arc::new(LimitStats::new()),
        Arc::default(),
    )
}

/// A Redis that is not there.
fn absent_redis() -> Backend {
    Backend::Redis(Box::new(RedisSettings {
        servers: Servers::One { address: ServerAddress::new("127.0.0.1", 1), database: 0 },
        tls: None,
        username: None,
        password: None,
        key_prefix: "tollgate".into(),
        hash_tags: HashTags::Subject,
        timeout: Duration::from_millis(25),
        hashing: Hashing::Hashed(None),
    }))
}

const PASS: Outcome = Outcome::Allowed { wait: Duration::ZERO };

fn is_denied(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Denied { .. })
}

/// What a limiter with memory says of these requests, one after the other.
fn outcomes(policies: Vec<Policy>, requests: &[Request]) -> Vec<Outcome> {
    let policies = shared(policies);
    run(async {
        let limiter = limiter(Backend::Memory);
        let mut outcomes = vec![];
        for request in requests {
            outcomes.push(limiter.check(&policies, None, &request.facts()).await.outcome);
        }
        outcomes
    })
}

#[test]
fn a_request_under_two_limits_is_charged_to_both_or_to_none() {
    let policies = shared(vec![burst("wide", 10), policy("narrow", "header:x-api-key", terms("narrow", "1/d", 2))]);
    run(async {
        let limiter = limiter(Backend::Memory);
        let mut remaining = vec![];
        for key in ["a", "a", "a", "a", "b"] {
            let verdict = limiter.check(&policies, None, &request().with_key(key).facts()).await;
            remaining.push((
                is_denied(verdict.outcome),
                verdict.decisions[0].remaining,
                verdict.decisions[1].remaining,
            ));
            assert_eq!(
                verdict.deciding().map(|decision| &*decision.policy.name),
                is_denied(verdict.outcome).then_some("narrow")
            );
        }
        assert_eq!(remaining, [(false, 9, 1), (false, 8, 0), (true, 8, 0), (true, 8, 0), (false, 7, 1)]);
        assert_eq!(limiter.stats.decisions.at(0)[DecisionKind::Allow as usize].value(), 5);
        assert_eq!(limiter.stats.decisions.at(1)[DecisionKind::Allow as usize].value(), 3);
        assert_eq!(limiter.stats.decisions.at(1)[DecisionKind::Deny as usize].value(), 2);
    });
}

#[test]
fn a_forbidden_key_is_denied_for_good_and_consumes_nothing_elsewhere() {
    let mut keyed = policy("keyed", "header:x-api-key", terms("keyed", "1/d", 5));
    keyed.overrides = vec![Override { matches: vec![value("bad")], terms: Terms::Deny }];
    let said = outcomes(
        vec![burst("wide", 1), keyed],
        &[request().with_key("bad"), request().with_key("bad"), request().with_key("good"), request().with_key("good")],
    );
    let never = Outcome::Denied { retry_after: None };
    assert_eq!(said[..3], [never, never, PASS]);
    assert!(matches!(said[3], Outcome::Denied { retry_after: Some(_) }));
}

#[test]
fn overrides_match_values_and_blocks_and_keep_states_of_their_own() {
    let mut limited = policy("l", "header:x-api-key | client_ip", terms("l", "1/d", 1));
    limited.overrides = vec![
        Override { matches: vec![OverrideMatch::Network("10.0.0.0/8".parse().unwrap())], terms: Terms::Unlimited },
        Override { matches: vec![value("big")], terms: terms("l@1", "1/d", 2) },
    ];
    let inside = || Request { ip: [10, 1, 2, 3].into(), ..request() };
    let said = outcomes(
        vec![limited],
        &[
            inside(),
            inside(),
            request().with_key("big"),
            request().with_key("big"),
            request().with_key("big"),
            request(),
            request(),
        ],
    );
    let denied: Vec<bool> = said.into_iter().map(is_denied).collect();
    assert_eq!(denied, [false, false, false, false, true, false, true]);
}

#[test]
fn a_missing_key_is_counted_by_address_denied_or_skipped() {
    let with = |missing| {
        let limit = Policy { missing, ..policy("l", "header:x-api-key", terms("l", "1/d", 1)) };
        let denied = outcomes(vec![limit], &[request(), request()]);
        denied.into_iter().map(is_denied).collect::<Vec<_>>()
    };
    assert_eq!(with(Missing::ClientIp { ipv6_prefix: 64 }), [false, true]);
    assert_eq!(with(Missing::Deny), [true, true]);
    assert_eq!(with(Missing::Skip), [false, false]);
}

#[test]
fn an_ambiguous_key_is_said_unless_only_a_shadow_limit_minds() {
    let twice = || request().with_key("a").with_key("a");
    let keyed = || policy("l", "header:x-api-key", terms("l", "1/d", 1));
    assert_eq!(outcomes(vec![keyed()], &[twice()]), [Outcome::AmbiguousKey]);
    assert_eq!(outcomes(vec![Policy { mode: Mode::Shadow, ..keyed() }], &[twice()]), [PASS]);
}

#[test]
fn costs_go_by_method_and_paths_that_do_not_apply_are_free() {
    let mut limit = burst("l", 5);
    limit.cost = Cost { by_method: vec![(Method::POST, 4), (Method::HEAD, 0)], ..Cost::fixed(1) };
    limit.applies.not_path = vec![PathPattern::Prefix("/assets/".into())];
    let sent = |method, path| Request { method, path, ..request() };
    let said = outcomes(
        vec![limit],
        &[
            sent(Method::POST, "/"),
            sent(Method::POST, "/"),
            sent(Method::POST, "/assets/x"),
            sent(Method::GET, "/"),
            sent(Method::GET, "/"),
            sent(Method::HEAD, "/"),
        ],
    );
    assert_eq!(said.into_iter().map(is_denied).collect::<Vec<_>>(), [false, true, false, false, true, false]);
}

#[test]
fn the_least_cost_is_the_least_that_counts() {
    let least = |default, listed| Cost { by_method: vec![(Method::POST, listed)], ..Cost::fixed(default) }.least();
    assert_eq!([least(1, 5), least(5, 2), least(3, 0), least(0, 4), least(0, 0)], [1, 2, 3, 4, 1]);
}

#[test]
fn a_shadow_limit_watches_and_denies_nothing() {
    let policies = shared(vec![Policy { mode: Mode::Shadow, ..burst("watched", 1) }, burst("enforced", 2)]);
    run(async {
        let limiter = limiter(Backend::Memory);
        let mut denied = vec![];
        for _ in 0..3 {
            denied.push(is_denied(limiter.check(&policies, None, &request().facts()).await.outcome));
        }
        assert_eq!(denied, [false, false, true]);
        assert_eq!(limiter.stats.decisions.at(0)[DecisionKind::ShadowDeny as usize].value(), 2);
    });
}

#[test]
fn a_held_request_waits_for_its_turn_and_gives_its_place_back() {
    let policies = shared(vec![leaky("l", "20/s", 10)]);
    run(async {
        let limiter = limiter(Backend::Memory);
        let held = || limiter.stats.held.load(Ordering::Relaxed);
        let started = Instant::now();
        let mut first = limiter.check(&policies, None, &request().facts()).await;
        let mut second = limiter.check(&policies, None, &request().facts()).await;
        let third = limiter.check(&policies, None, &request().facts()).await;
        assert_eq!(held(), 2);
        first.wait().await;
        second.wait().await;
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert_eq!(held(), 1);
        drop(third);
        assert_eq!(held(), 0);
        assert_eq!(limiter.stats.decisions.at(0)[DecisionKind::Delay as usize].value(), 2);
    });
}

#[test]
fn without_a_place_to_wait_nothing_is_asked() {
    let policies = shared(vec![leaky("l", "1/d", 1)]);
    run(async {
        let limiter = limiter(Backend::Memory);
        let places: Vec<_> = std::iter::from_fn(|| limiter.holds.reserve(&policies[0].name)).collect();
        assert_eq!(places.len(), HELD / 2);
        assert_eq!(limiter.check(&policies, None, &request().facts()).await.outcome, Outcome::Overflow);
        assert!(limiter.memory.is_empty());
        drop(places);
        assert_eq!(limiter.check(&policies, None, &request().facts()).await.outcome, PASS);
    });
}

#[test]
fn what_costs_nothing_needs_no_place_to_wait() {
    let free = Cost { by_method: vec![(Method::HEAD, 0)], ..Cost::fixed(1) };
    let policies = shared(vec![Policy { cost: free, ..leaky("l", "1/d", 1) }]);
    run(async {
        let limiter = limiter(Backend::Memory);
        let _places: Vec<_> = std::iter::from_fn(|| limiter.holds.reserve(&policies[0].name)).collect();
        let head = Request { method: Method::HEAD, ..request() };
        assert_eq!(limiter.check(&policies, None, &head.facts()).await.outcome, PASS);
    });
}

#[test]
fn of_several_remembered_denials_the_longest_is_told_and_never_is_longer() {
    let policies = shared(vec![burst("a", 1), burst("b", 1), burst("c", 1)]);
    run(async {
        let (limiter, request) = (limiter(Backend::Memory), request());
        let plan = Plan::new(
            &policies,
            &request.facts(),
            Situation { hashing: &Hashing::Raw, overrides: None, clock: Clock::Wall, control: None },
        )
        .unwrap();
        let told = |retries: [i64; 3]| {
            let answer = |retry_us| Answer { allowed: false, remaining: 0, retry_us, reset_us: 1 };
            let answers: Vec<_> = retries.into_iter().map(answer).enumerate().collect();
            limiter.deny_again(&plan, &answers).outcome
        };
        let after = |us| Outcome::Denied { retry_after: Some(Duration::from_micros(us)) };
        assert_eq!([told([5, 9, 2]), told([9, 1, 1])], [after(9), after(9)]);
        assert_eq!(told([5, -1, 2]), Outcome::Denied { retry_after: None });
    });
}

#[test]
fn without_redis_each_limit_does_what_it_says() {
    let with = |allowing: OnStoreError, mode| {
        let policies = shared(vec![burst("local", 1), Policy { on_store_error: allowing, mode, ..burst("other", 1) }]);
        run(async {
            let limiter = limiter(absent_redis());
            let mut said = vec![];
            for _ in 0..2 {
                let verdict = limiter.check(&policies, None, &request().facts()).await;
                said.push((
                    verdict.outcome,
                    verdict.decisions.iter().map(|d| (d.allowed, d.source)).collect::<Vec<_>>(),
                ));
            }
            said
        })
    };
    let said = with(OnStoreError::Allow, Mode::Enforce);
    assert_eq!(said[0], (PASS, vec![(true, Source::Local), (true, Source::AllowedOnError)]));
    assert!(is_denied(said[1].0));
    assert_eq!(said[1].1, [(false, Source::Local), (true, Source::AllowedOnError)]);

    let said = with(OnStoreError::Deny, Mode::Enforce);
    assert_eq!(said[0], (Outcome::Unavailable, vec![(false, Source::DeniedOnError)]));
    assert_eq!(said[0], said[1]);

    let said = with(OnStoreError::Deny, Mode::Shadow);
    assert_eq!(said[0].0, PASS);
    assert!(is_denied(said[1].0));
}

#[test]
fn a_forbidden_key_is_denied_even_without_redis() {
    let policies = shared(vec![policy("l", "client_ip", Terms::Deny)]);
    let verdict = run(async { limiter(absent_redis()).check(&policies, None, &request().facts()).await.outcome });
    assert_eq!(verdict, Outcome::Denied { retry_after: None });
}
