use super::*;
use crate::limit::algorithm::{Algorithm, Bucket};
use crate::limit::key::Subject;
use crate::limit::store::memory::MemoryStore;

const LENGTH: Duration = Duration::from_millis(50);
const PROXIES: usize = 8;
const START_US: i64 = 1_700_000_000_000_000;

/// One simulated proxy: its lease, and the call it has under way.
#[derive(Default)]
struct Proxy {
    lease: Option<Lease>,
    call: Option<Call>,
    /// Costs of the requests that wait.
    waiting: u64,
}

/// Sent, then decided by the store, then answered (µs).
struct Call {
    sent: u64,
    decided: u64,
    answered: u64,
    asked: u64,
    waiting: u64,
    brought: Option<(u64, Answer)>,
}

/// A limit of C and R per second, as the store counts it (with its capacity less the lease, or not).
struct Model {
    burst: u64,
    rate: u64,
    algorithm: Algorithm,
}

fn model(burst: u64, rate: u64, less: u64) -> Model {
    let bucket = Bucket::new(format!("{rate}/s").parse().unwrap(), burst - less).unwrap();
    Model { burst, rate, algorithm: Algorithm::TokenBucket(bucket) }
}

/// A run: the instants (µs) at which units were admitted, in order, and how many calls and requests there were.
fn run(model: &Model, random: &mut fastrand::Rng) -> (Vec<u64>, u64, u64) {
    let (store, subject) = (MemoryStore::new(100), Subject::from_slice(b"all"));
    let base = Instant::now();
    let at = |us: u64| base + Duration::from_micros(us);
    let mut proxies: Vec<Proxy> = (0..PROXIES).map(|_| Proxy::default()).collect();
    let (mut admitted, mut calls, mut requests, mut now) = (Vec::new(), 0, 0, 0);
    // Load: from far below the rate to far above it, in phases.
    let mut gap = 1_000_000 / model.rate;
    while now < 800_000 {
        if random.u32(..300) == 0 {
            gap = (1_000_000 / model.rate * random.u64(1..40) / 20).max(1);
            now += random.u64(..100_000) * u64::from(random.bool());
        }
        now += random.u64(..=2 * gap);
        for proxy in &mut proxies {
            advance(proxy, now, (&store, &subject, model), &mut admitted, at);
        }
        let proxy = &mut proxies[random.usize(..PROXIES)];
        requests += 1;
        if proxy.lease.as_mut().and_then(|lease| lease.spend(1, at(now))).is_some() {
            admitted.push(now);
        } else {
            proxy.waiting += 1;
        }
        if proxy.waiting > 0 && proxy.call.is_none() {
            let waiting = std::mem::take(&mut proxy.waiting);
            let spare = proxy.lease.map_or(0, |lease| lease.worth(waiting, at(now), LENGTH));
            let slow = [300, 10_000, 40_000][random.usize(..3)];
            let decided = now + random.u64(..slow);
            let answered = decided + random.u64(..slow);
            proxy.call = Some(Call { sent: now, decided, answered, asked: waiting + spare, waiting, brought: None });
            calls += 1;
        }
    }
    admitted.sort_unstable();
    (admitted, calls, requests)
}

/// What has come of a proxy's call by now. The store sees calls a little out of order, as clocks do.
fn advance(
    proxy: &mut Proxy,
    now: u64,
    (store, subject, model): (&MemoryStore, &Subject, &Model),
    admitted: &mut Vec<u64>,
    at: impl Fn(u64) -> Instant,
) {
    let Some(call) = &mut proxy.call else { return };
    if call.brought.is_none() && call.decided <= now {
        call.decided = now;
        let ask = [Ask::new("limit", &model.algorithm, subject, 1)];
        let replies = (0..call.asked).map(|_| store.decide_at(START_US + now.cast_signed(), &ask));
        let granted = replies.take_while(|reply| reply.granted).count() as u64;
        let left = store.decide_at(START_US + now.cast_signed(), &[Ask { cost: 0, ..ask.into_iter().next().unwrap() }]);
        call.brought = Some((granted, left.answers[0]));
        // The waiting ones are admitted at the store's instant.
        admitted.extend(std::iter::repeat_n(now, usize::try_from(granted.min(call.waiting)).unwrap()));
    }
    if let Some((taken, next)) = call.brought
        && call.answered <= now
    {
        let brought = Brought { spare: taken.saturating_sub(call.waiting), taken, next, sent: at(call.sent) };
        proxy.lease = Some(Lease::new(&brought, LENGTH));
        proxy.call = None;
    }
}

/// By how much T1 is exceeded at worst, over all pairs of admissions.
fn excess(admitted: &[u64], model: &Model) -> f64 {
    // Over all windows the count less R·Δ: the least of what came before, seen from each end.
    let (mut least, mut worst) = (f64::MAX, f64::MIN);
    for (index, &at) in admitted.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (earned, index, burst) = (at as f64 * model.rate as f64 / 1e6, index as f64, model.burst as f64);
        least = least.min(index - earned);
        worst = worst.max(index + 1.0 - earned - least - burst);
    }
    worst
}

#[test]
fn t1_holds_over_eight_proxies_with_leases() {
    let (mut calls, mut requests, mut worst) = (0, 0, f64::MIN);
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let rate = [1_000_u64, 3_000, 10_000][random.usize(..3)];
        let less = (rate * 50).div_ceil(1_000);
        let model = model(less + random.u64(1..2_000), rate, less);
        let (admitted, called, asked) = run(&model, &mut random);
        let excess = excess(&admitted, &model);
        assert!(excess <= 1e-6, "run {seed}: {excess} more than C + R·Δ/P");
        calls += called;
        requests += asked;
        worst = worst.max(excess);
    }
    println!("{calls} calls for {requests} requests; nearest to the bound: {worst}");
}

/// Why the store's bucket is smaller: a lease is taken, the bucket fills up again behind it, and at one instant the
/// whole bucket and the whole lease are spent.
#[test]
fn the_lease_is_paid_for_out_of_the_capacity() {
    let at_once = |less: u64| {
        let model = model(100, 1_000, less);
        let (store, subject, base) = (MemoryStore::new(10), Subject::from_slice(b"all"), Instant::now());
        let ask = [Ask::new("limit", &model.algorithm, &subject, 1)];
        let take = |now_us: i64, most: usize| {
            (0..most).take_while(|_| store.decide_at(START_US + now_us, &ask).granted).count() as u64
        };
        let brought = Brought { spare: take(0, 45), taken: 45, next: answer(50), sent: base };
        let mut lease = Lease::new(&brought, LENGTH);
        let spent = take(49_000, 1_000);
        let leased = (0..100).take_while(|_| lease.spend(1, base + Duration::from_millis(49)).is_some()).count();
        spent + leased as u64
    };
    assert_eq!(at_once(0), 145, "the bound would be exceeded");
    assert_eq!(at_once(50), 95, "at most 100 at once");
}

fn answer(remaining: u64) -> Answer {
    Answer { allowed: true, remaining, retry_us: 0, reset_us: 1_000_000 }
}

#[test]
fn a_lease_ends_at_its_length_after_the_sending_and_not_after_the_answer() {
    let sent = Instant::now();
    let brought = Brought { spare: 5, taken: 6, next: answer(100), sent };
    let mut lease = Lease::new(&brought, LENGTH);
    assert_eq!(lease.spend(2, sent + Duration::from_micros(49_999)).unwrap().remaining, 103);
    assert_eq!(lease.spend(4, sent), None, "three are left");
    assert_eq!(lease.spend(1, sent + LENGTH), None);
}

#[test]
fn what_is_worth_taking_follows_demand_and_shrinks_to_nothing_near_empty() {
    let sent = Instant::now();
    let worth = |spent, after_ms, remaining| {
        let lease =
            Lease { spent, ..Lease::new(&Brought { spare: 0, taken: 40, next: answer(remaining), sent }, LENGTH) };
        lease.worth(1, sent + Duration::from_millis(after_ms), LENGTH)
    };
    assert_eq!(worth(40, 50, 10_000), 49, "a little more than last time");
    assert_eq!(worth(40, 10, 10_000), 80, "used up early: twice as many");
    assert_eq!(worth(40, 500, 10_000), 4);
    assert_eq!(worth(40, 50, 80), 10);
    assert_eq!(worth(40, 50, 7), 0);
}

#[test]
fn a_token_goes_back_to_its_own_lease_and_to_no_later_one() {
    let (leases, sent) = (Leases::new(), Instant::now());
    let brought = Brought { spare: 2, taken: 3, next: answer(10), sent };
    leases.keep(1, &brought, LENGTH);
    let left = || leases.by_state.borrow()[&1].left;
    let (token, _) = leases.spend(1, 1, sent).unwrap();
    assert_eq!(left(), 1);
    drop(token);
    assert_eq!(left(), 2);
    leases.spend(1, 1, sent).unwrap().0.keep();
    assert_eq!(left(), 1);
    let (token, _) = leases.spend(1, 1, sent).unwrap();
    leases.keep(1, &Brought { sent: sent + LENGTH, ..brought }, LENGTH);
    drop(token);
    assert_eq!(left(), 2);
}

#[test]
fn leases_keep_to_their_bound() {
    let (leases, sent) = (Leases::new(), Instant::now());
    for name in 0..20_000 {
        leases.keep(name, &Brought { spare: 2, taken: 3, next: answer(10), sent }, LENGTH);
    }
    assert_eq!(leases.by_state.borrow().len(), MOST_LEASES);
    let later = Brought { spare: 2, taken: 3, next: answer(10), sent: sent + 3 * LENGTH };
    leases.keep(99_999, &later, LENGTH);
    assert_eq!(leases.by_state.borrow().len(), 1, "those that ended long ago have gone");
}
