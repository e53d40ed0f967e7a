use smallvec::SmallVec;

use super::*;
use crate::limit::decision::{Allowed, Source};
use crate::limit::limiter::tests;
use crate::limit::policy::{Mode, Policy, Terms};
use crate::limit::store::Answer;

fn policy(name: &str, rate: &str, burst: u64) -> Policy {
    tests::policy(name, "global", tests::terms(name, rate, burst))
}

fn decision(policy: &Policy, remaining: u64, retry_us: i64) -> Decision<'_> {
    let Terms::Limited(limit) = &policy.terms else { panic!("counted") };
    let answer = Answer { allowed: retry_us == 0, remaining, retry_us, reset_us: 4_000_001 };
    Decision::of(policy, &limit[0], 1, &answer, Source::Store)
}

const ALLOWED: Outcome = Outcome::Allowed { wait: Duration::ZERO };

fn written(outcome: Outcome, decisions: &[Decision<'_>], style: HeaderStyle) -> Vec<String> {
    written_after(HeaderMap::new(), outcome, decisions, style)
}

fn written_after(
    mut headers: HeaderMap,
    outcome: Outcome,
    decisions: &[Decision<'_>],
    style: HeaderStyle,
) -> Vec<String> {
    Verdict::new(outcome, decisions.iter().cloned().collect::<SmallVec<_>>()).write_headers(style, &mut headers);
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    lines.sort_by_key(|&(name, _)| name);
    lines.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

#[test]
fn each_enforced_limit_has_an_item() {
    let (a, b) = (policy("per-key", "1000/m", 200), policy("glo\"bal\\", "3/s", 10));
    let lines = written(ALLOWED, &[decision(&a, 49, 0), decision(&b, 0, 0)], HeaderStyle::Draft);
    assert_eq!(
        lines,
        [
            r#"ratelimit: "per-key";r=49;t=3, "glo\"bal\\";r=0;t=2"#,
            r#"ratelimit-policy: "per-key";q=200;w=12, "glo\"bal\\";q=10;w=4"#,
        ]
    );
}

#[test]
fn a_denial_says_when_to_come_back_in_whole_seconds() {
    let limit = policy("l", "1/s", 5);
    for (retry_us, seconds) in [(1, 1), (1_000_000, 1), (1_000_001, 2)] {
        let outcome = Outcome::Denied { retry_after: Some(Duration::from_micros(retry_us)) };
        let lines = written(outcome, &[decision(&limit, 0, retry_us.cast_signed())], HeaderStyle::Draft);
        assert_eq!(lines[0], format!("ratelimit: \"l\";r=0;t={seconds}"));
        assert_eq!(lines[2], format!("retry-after: {seconds}"));
    }
}

#[test]
fn never_has_no_retry_after() {
    let limit = policy("l", "1/s", 5);
    let lines = written(Outcome::Denied { retry_after: None }, &[decision(&limit, 5, -1)], HeaderStyle::Draft);
    assert_eq!(lines, ["ratelimit: \"l\";r=5", "ratelimit-policy: \"l\";q=5;w=5"]);
    let forbidden = Decision::uncounted(&limit, None, Allowed::No, Source::Store);
    assert!(written(Outcome::Denied { retry_after: None }, &[forbidden], HeaderStyle::Both).is_empty());
}

#[test]
fn what_nobody_counted_is_not_shown_and_unavailable_says_one_second() {
    let limit = policy("l", "1/s", 5);
    let Terms::Limited(terms) = &limit.terms else { panic!("counted") };
    let terms = &terms[0];
    let passed = Decision::uncounted(&limit, Some(terms), Allowed::Yes, Source::AllowedOnError);
    assert!(written(ALLOWED, &[passed], HeaderStyle::Both).is_empty());
    assert_eq!(written(Outcome::Unavailable, &[], HeaderStyle::None), ["retry-after: 1"]);
    assert_eq!(written(Outcome::Overflow, &[], HeaderStyle::None), ["retry-after: 1"]);
}

#[test]
fn shadow_limits_show_only_when_told_to() {
    let mut limit = policy("l", "1/s", 5);
    limit.mode = Mode::Shadow;
    assert!(written(ALLOWED, &[decision(&limit, 3, 0)], HeaderStyle::Both).is_empty());
    limit.shadow_headers = true;
    let lines = written(ALLOWED, &[decision(&limit, 3, 0)], HeaderStyle::Both);
    assert_eq!(lines, ["ratelimit: \"l\";r=3;t=3", "ratelimit-policy: \"l\";q=5;w=5"]);
}

#[test]
fn upstreams_items_stay_before_ours() {
    let limit = policy("l", "1/s", 5);
    let mut upstreams = HeaderMap::new();
    upstreams.append("ratelimit", HeaderValue::from_static("\"theirs\";r=1;t=1"));
    let lines = written_after(upstreams, ALLOWED, &[decision(&limit, 3, 0)], HeaderStyle::Draft);
    assert_eq!(lines[..2], ["ratelimit: \"theirs\";r=1;t=1", "ratelimit: \"l\";r=3;t=3"]);
}

#[test]
fn legacy_fields_tell_of_the_tightest_and_never_loosen_upstreams() {
    let (wide, narrow) = (policy("wide", "100/s", 100), policy("narrow", "1/s", 4));
    let decisions = [decision(&wide, 49, 0), decision(&narrow, 2, 0)];
    let ours = ["x-ratelimit-limit: 100", "x-ratelimit-remaining: 49", "x-ratelimit-reset: 5"];
    assert_eq!(written(ALLOWED, &decisions, HeaderStyle::Legacy), ours);
    for (theirs, stays) in [("48", true), ("49", false), ("5000", false), ("-1", true), ("0.5", true), ("9, 3", true)] {
        let mut upstreams = HeaderMap::new();
        upstreams.insert("x-ratelimit-limit", HeaderValue::from_static("60"));
        upstreams.insert("x-ratelimit-remaining", HeaderValue::from_static(theirs));
        let lines = written_after(upstreams, ALLOWED, &decisions, HeaderStyle::Legacy);
        assert_eq!(lines.contains(&format!("x-ratelimit-remaining: {theirs}")), stays || theirs == "49", "{theirs}");
        assert_eq!(lines == ours, !stays, "{theirs}");
    }
    let mut twice = HeaderMap::new();
    twice.append("x-ratelimit-remaining", HeaderValue::from_static("5000"));
    twice.append("x-ratelimit-remaining", HeaderValue::from_static("3"));
    let lines = written_after(twice, ALLOWED, &decisions, HeaderStyle::Legacy);
    assert_eq!(lines, ["x-ratelimit-remaining: 5000", "x-ratelimit-remaining: 3"]);
}

#[test]
fn what_remains_over_its_time_never_exceeds_the_rate() {
    for (rate, burst) in [("100/s", 200_u64), ("3/s", 10), ("7/13s", 40), ("5/m", 5), ("1000003/30d", 1_000_003)] {
        let limit = policy("l", rate, burst);
        let Terms::Limited(terms) = &limit.terms else { panic!("counted") };
        let terms = &terms[0];
        let bucket = terms.algorithm.bucket().unwrap();
        for remaining in (0..=burst).step_by(1 + usize::try_from(burst / 50).unwrap()) {
            let time = u128::from(time_of(&decision(&limit, remaining, 0)).unwrap());
            let earned = time * 1_000_000 * u128::from(bucket.rate);
            let spent = u128::from(remaining) * u128::from(bucket.period) * u128::from(bucket.tick);
            assert!(spent <= earned, "{remaining} in {time} s at {rate}");
        }
    }
}
