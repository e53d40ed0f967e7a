//! Which limits are asked together, in which order, and what their replies come to.

use super::*;
use crate::limit::key::Subject;
use crate::limit::store::settings::HashTags;

const BUCKET: Algorithm = Algorithm::TokenBucket(Bucket { capacity: 10, rate: 1, period: 1_000_000, tick: 1, debt: 0 });

fn ask<'a>(state_id: &'a str, subject: &'a Subject, shadow: bool) -> Ask<'a> {
    Ask { shadow: u8::from(shadow), ..Ask::new(state_id, &BUCKET, subject, 2) }
}

fn subjects<const N: usize>(texts: [&str; N]) -> [Subject; N] {
    texts.map(|text| Subject::from_slice(text.as_bytes()))
}

fn order(asks: &[Ask<'_>], form: KeyForm<'_>) -> Vec<Vec<usize>> {
    by_slot(asks, form).into_iter().map(|group| group.places.to_vec()).collect()
}

#[test]
fn limits_of_one_subject_are_one_group_and_the_narrowest_is_first() {
    let [client, route, everybody, key, both] = subjects([
        "ip=192.0.2.1",
        "route=orders",
        "global",
        "header:x-api-key=#00112233445566778899aabbccddeeff",
        "12:ip=192.0.2.112:route=orders",
    ]);
    let asks = [
        ask("a", &everybody, false),
        ask("b", &client, false),
        ask("c", &route, false),
        ask("d", &client, false),
        ask("e", &both, false),
        ask("f", &key, true),
    ];
    assert_eq!(order(&asks, "p".into()), [vec![4], vec![1, 3], vec![2], vec![0], vec![5]]);
}

#[test]
fn a_route_as_the_tag_makes_one_group_of_its_limits_and_leaves_the_others() {
    let [client, everybody] = subjects(["ip=192.0.2.1", "global"]);
    let asks = [ask("site", &client, false), ask("a@gold", &client, false), ask("b~2", &everybody, false)];
    let routes = [("a", "orders"), ("b", "orders")].map(|(limit, route)| (limit.into(), route.into()));
    let tags = HashTags::Route(std::sync::Arc::new(routes.into_iter().collect()));
    let form = KeyForm { prefix: "p", tags: Some(&tags) };
    assert_eq!(order(&asks, form), [vec![0], vec![1, 2]]);
    assert_eq!(form.slot(&asks[1]), super::super::super::keys::slot_of(b"orders"));
}

#[test]
fn a_veto_shares_the_slot_of_what_it_stands_beside() {
    let [client] = subjects(["ip=192.0.2.1"]);
    let tags = HashTags::Route(std::sync::Arc::new([("a".into(), "orders".into())].into_iter().collect()));
    let form = KeyForm { prefix: "p", tags: Some(&tags) };
    let beside = ask("a@gold", &client, true);
    let id = veto_id(&beside);
    let veto = veto(&beside, &id);
    assert_eq!(form.slot(&veto), form.slot(&beside));
    assert!(!veto.is_shadow() && !veto.algorithm.bucket().unwrap().admits(0, veto.cost));
}

#[test]
fn a_slot_in_two_places_is_asked_state_by_state() {
    let [client] = subjects(["ip=192.0.2.1"]);
    let asks = [ask("w", &client, true), ask("a", &client, false), ask("b", &client, false), ask("a", &client, false)];
    let groups = by_slot(&asks, "p".into());
    let states: Vec<_> = groups[0].by_state().into_iter().map(|group| group.places.to_vec()).collect();
    assert_eq!(states, [vec![1, 3], vec![2], vec![0]]);
}

#[test]
fn wide_and_narrow_are_told_by_the_kinds_of_the_parts() {
    let narrow_to_wide = [
        "3:a=b16:path:tenant=acme12:route=orders",
        "12:ip=192.0.2.112:route=orders",
        "ip=192.0.2.1",
        "12:route=orders10:method=GET",
        "route=orders",
        "host=example.com",
        "method=GET",
        "global",
    ];
    let ranks: Vec<_> = narrow_to_wide.iter().map(|subject| breadth(subject.as_bytes())).collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    for odd in ["", "192.0.2.7", "3:ab", "99999999999999999999:a", "1:", ":"] {
        assert_eq!(breadth(odd.as_bytes()).0, 0, "{odd:?}");
    }
}

fn reply(answers: &[Answer], wait_us: u64) -> Reply {
    let granted = answers.iter().all(|answer| answer.allowed);
    Reply {
        granted,
        now_us: 1_700_000_000_000_001,
        wait_us,
        retry_us: 0,
        answers: answers.iter().copied().collect(),
        instants: SmallVec::new(),
    }
}

fn answer(remaining: u64, retry_us: i64) -> Answer {
    Answer { allowed: retry_us == 0, remaining, retry_us, reset_us: 5 }
}

#[test]
fn replies_are_merged_in_the_order_of_the_asks() {
    let [client, everybody] = subjects(["ip=192.0.2.1", "global"]);
    let asks = [ask("a", &everybody, false), ask("b", &client, false), ask("c", &client, true)];
    let groups = by_slot(&asks, "p".into());
    let mut merged = Merged::new(3);
    merged.add(&groups[0], &reply(&[answer(1, 0), answer(2, -1)], 30));
    merged.add(&groups[1], &reply(&[answer(3, 0)], 20));
    let merged = merged.into_reply();
    assert!(merged.granted, "what only watches decides nothing");
    assert_eq!((merged.wait_us, merged.retry_us), (30, 0));
    assert_eq!(merged.answers.to_vec(), [answer(3, 0), answer(1, 0), answer(2, -1)]);
    assert_eq!(merged.now_us, 1_700_000_000_999_999);
}

#[test]
fn a_denial_waits_for_the_longest_and_gives_back_what_was_charged() {
    let [client, route, everybody] = subjects(["ip=192.0.2.1", "route=r", "global"]);
    let asks = [ask("a", &client, false), ask("b", &route, false), ask("c", &everybody, false)];
    let groups = by_slot(&asks, "p".into());
    let merge = |last: i64| {
        let mut merged = Merged::new(3);
        merged.add(&groups[0], &reply(&[answer(1, 0)], 30));
        merged.add(&groups[1], &reply(&[answer(0, 7)], 0));
        merged.give_back(&groups[0]);
        // With the answer to the veto at the end.
        merged.add(&groups[2], &reply(&[answer(0, last), answer(0, -1)], 0));
        merged.into_reply()
    };
    let denied = merge(9);
    assert!(!denied.granted);
    assert_eq!((denied.wait_us, denied.retry_us), (0, 9));
    assert_eq!(denied.answers[0], answer(3, 0), "2 more than after its charge");
    assert_eq!(merge(0).retry_us, 7);
    assert_eq!(merge(-1).retry_us, -1);
}
