use super::*;
use crate::limit::algorithm::{Algorithm, Bucket};
use crate::limit::key::Subject;

fn tokens(rate: &str, capacity: u64) -> Algorithm {
    Algorithm::TokenBucket(Bucket::new(rate.parse().unwrap(), capacity).unwrap())
}

fn subject(text: &str) -> Subject {
    Subject::from_slice(text.as_bytes())
}

fn ask<'a>(state_id: &'a str, algorithm: &'a Algorithm, subject: &'a Subject, cost: u64) -> Ask<'a> {
    Ask::new(state_id, algorithm, subject, cost)
}

const NOW: i64 = 1_700_000_000_000_000;

#[test]
fn a_denied_request_changes_nothing_anywhere() {
    let (store, key) = (MemoryStore::new(1000), subject("ip=1.2.3.4"));
    let (wide, narrow) = (tokens("10/s", 10), tokens("1/s", 1));
    let both = [ask("wide", &wide, &key, 1), ask("narrow", &narrow, &key, 1)];
    assert!(store.decide_at(NOW, &both).granted);
    for _ in 0..100 {
        let reply = store.decide_at(NOW, &both);
        assert!(!reply.granted && reply.answers[0].allowed && !reply.answers[1].allowed);
        assert_eq!((reply.answers[0].remaining, reply.retry_us), (9, 1_000_000));
    }
    assert!(store.decide_at(NOW + 1_000_000, &both).granted);
}

#[test]
fn an_idle_key_has_its_full_burst_again_and_never_more() {
    let (store, key, limit) = (MemoryStore::new(1000), subject("global"), tokens("7/13s", 5));
    let one = [ask("l", &limit, &key, 1)];
    let admitted = |now| (0..50).filter(|_| store.decide_at(now, &one).granted).count();
    assert_eq!(admitted(NOW), 5);
    let fill = 13_000_000 * 5 / 7 + 1;
    assert_eq!(admitted(NOW + fill), 5);
    assert_eq!(admitted(NOW + fill + 1000 * fill), 5);
}

#[test]
fn a_state_is_gone_at_the_instant_it_equals_never_seen() {
    let (store, key, limit) = (MemoryStore::new(1000), subject("global"), tokens("3/s", 5));
    let reply = store.decide_at(NOW, &[ask("l", &limit, &key, 2)]);
    let reset = reply.answers[0].reset_us.cast_signed();
    assert_eq!(reset, 666_667);
    assert_eq!(store.len_at(NOW + reset - 1), 1);
    assert_eq!(store.len_at(NOW + reset), 0);
}

#[test]
fn a_look_and_a_denial_leave_no_state() {
    let (store, key, limit) = (MemoryStore::new(1000), subject("global"), tokens("3/s", 5));
    assert!(store.decide_at(NOW, &[ask("l", &limit, &key, 0)]).granted);
    assert!(!store.decide_at(NOW, &[ask("l", &limit, &key, 6)]).granted);
    assert_eq!(store.len_at(NOW), 0);
}

#[test]
fn a_state_named_twice_in_one_decision_is_not_spent_twice() {
    let (store, key, limit) = (MemoryStore::new(1000), subject("global"), tokens("1/s", 5));
    let twice = [ask("l", &limit, &key, 2), ask("l", &limit, &key, 2)];
    assert!(store.decide_at(NOW, &twice).granted);
    let reply = store.decide_at(NOW, &twice);
    assert!(!reply.granted);
    assert_eq!(reply.answers[0].remaining, 1);
    let reply = store.decide_at(NOW + 1_000_000, &twice);
    assert_eq!((reply.granted, reply.answers[0].allowed, reply.retry_us), (false, true, 2_000_000));
    assert!(store.decide_at(NOW + 3_000_000, &twice).granted);
    let thrice = [1, 2, 2].map(|cost| ask("thrice", &limit, &key, cost));
    let reply = store.decide_at(NOW, &thrice);
    let left: Vec<_> = reply.answers.iter().map(|answer| answer.remaining).collect();
    assert_eq!((reply.granted, left), (true, vec![4, 2, 0]), "each is read as the one before left it");
}

#[test]
fn a_shadow_limit_never_denies_and_is_charged_only_when_it_would_admit() {
    let (store, key) = (MemoryStore::new(1000), subject("global"));
    let (enforced, watched) = (tokens("1/h", 3), tokens("1/h", 2));
    let both = [ask("e", &enforced, &key, 1), Ask { shadow: 1, ..ask("s", &watched, &key, 1) }];
    let replies: Vec<Reply> = (0..4).map(|_| store.decide_at(NOW, &both)).collect();
    let seen: Vec<_> = replies.iter().map(|r| (r.granted, r.answers[1].allowed, r.answers[1].remaining)).collect();
    assert_eq!(seen, [(true, true, 1), (true, true, 0), (true, false, 0), (false, false, 0)]);
    assert_eq!(replies[2].retry_us, 0);
}

#[test]
fn another_algorithm_starts_afresh() {
    let (store, key, limit) = (MemoryStore::new(1000), subject("global"), tokens("1/h", 1));
    let leaky = Algorithm::LeakyBucket { bucket: *limit.bucket().unwrap(), delay_after: 1 };
    assert!(store.decide_at(NOW, &[ask("l", &limit, &key, 1)]).granted);
    assert!(store.decide_at(NOW, &[ask("l", &leaky, &key, 1)]).granted);
    assert!(!store.decide_at(NOW, &[ask("l", &leaky, &key, 1)]).granted);
}

#[test]
fn the_bound_holds_and_memory_per_state_is_small() {
    let (store, limit) = (MemoryStore::new(100_000), tokens("1/h", 1));
    let mut most_per_key = 0;
    for n in 0..200_000_usize {
        let key = subject(&format!("ip={n}"));
        assert!(store.decide_at(NOW, &[ask("l", &limit, &key, 1)]).granted);
        if n > 10_000 && n % 5_000 == 0 {
            most_per_key = most_per_key.max(store.bytes() / store.len_at(NOW));
        }
    }
    let len = store.len_at(NOW);
    assert!((99_000..=100_000).contains(&len), "{len}");
    assert_eq!(store.evictions() + len as u64, 200_000);
    assert!(most_per_key <= 120, "{most_per_key} bytes per key");
}

#[test]
fn memory_is_given_back_by_those_who_decide() {
    let (store, short, long) = (MemoryStore::new(100_000), tokens("1/ms", 1), tokens("1/s", 1_000_000_000));
    for n in 0..50_000 {
        store.decide(&[ask("l", &short, &subject(&format!("ip={n}")), 1)]);
    }
    let full = store.bytes();
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    let mut n = 0;
    while store.bytes() > 64 * SHARDS * 32 {
        assert!(Instant::now() < deadline, "{} of {full} bytes left", store.bytes());
        n += 1;
        store.decide(&[ask("l", &long, &subject(&format!("ip={}", n % 500)), 1)]);
    }
}

#[test]
fn many_threads_admit_exactly_the_burst_and_what_was_earned() {
    let (store, key) = (MemoryStore::new(1000), subject("global"));
    let (limit, other) = (tokens("1000/s", 500), tokens("1000000/s", 1_000_000));
    let until = store.now_us() + 300_000;
    let times: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (store, key, limit, other) = (&store, &key, &limit, &other);
                scope.spawn(move || {
                    let mut asks = vec![ask("l", limit, key, 1), ask("other", other, key, 1)];
                    asks.rotate_left(n % 2);
                    let mut times = vec![];
                    loop {
                        let reply = store.decide(&asks);
                        if reply.granted {
                            times.push(reply.now_us);
                        }
                        // What was earned while no thread ran is spent first.
                        if reply.now_us > until && !reply.granted {
                            return times;
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    let earned = u64::try_from((last - first) / 1000).unwrap();
    let admitted = times.len() as u64;
    assert!(admitted.abs_diff(500 + earned) <= 1, "{admitted} admitted, 500 + {earned} earned");
}
