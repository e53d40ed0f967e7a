use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::super::breaker::Breaker;
use super::super::health::HealthPolicy;
use super::super::load::{Bounds, Queue};
use super::super::lookup::Lookup;
use super::super::selection::{Nobody, Selection, Wish};
use super::super::{Address, Protocol, Server, Settings, Upstream};
use super::*;

fn upstream(balance: Balance, weights: &[u32]) -> Upstream {
    let server = |(index, &weight): (usize, &u32)| {
        let address = Address::Tcp { host: format!("10.0.0.{index}").into(), port: 80 };
        Server {
            ordinal: index,
            lookup: Arc::new(Lookup::of(&address)),
            address,
            security: None,
            label: index.to_string().into(),
            host: HeaderValue::from_static("server"),
            weight,
            backup: weight == 7,
            draining: Arc::default(),
        }
    };
    let settings = Settings {
        balance,
        sticky: None,
        health: HealthPolicy::default(),
        protocol: Protocol::Auto,
        tls: None,
        proxy_protocol: None,
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(30),
        max_idle_connections: 8,
        idle_timeout: Duration::from_secs(4),
        max_connection_age: Duration::from_hours(1),
        queue: Arc::new(Queue::new(Bounds { requests: Some(3), connections: None }, 1, Duration::ZERO)),
        breaker: None::<Breaker>,
    };
    Upstream::new("web".into(), weights.iter().enumerate().map(server).collect(), settings)
}

/// The servers that so many requests go to; each ends at once.
fn visits(upstream: &Upstream, requests: u64, wish: impl Fn(u64) -> Wish) -> Vec<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let one = |number| {
        let slot = runtime.block_on(Selection::new(upstream, wish(number)).next()).unwrap();
        slot.endpoint.server.ordinal
    };
    (0..requests).map(one).collect()
}

fn counts(visits: &[usize]) -> HashMap<usize, usize> {
    visits.iter().fold(HashMap::new(), |mut counts, &server| {
        *counts.entry(server).or_default() += 1;
        counts
    })
}

fn any(_: u64) -> Wish {
    Wish::default()
}

#[test]
fn round_robin_takes_turns() {
    assert_eq!(visits(&upstream(Balance::RoundRobin, &[1, 1, 1]), 5, any), [0, 1, 2, 0, 1]);
}

#[test]
fn weights_are_kept_to_and_spread_evenly() {
    let visits = visits(&upstream(Balance::RoundRobin, &[5, 1, 2]), 800, any);
    let counts = counts(&visits);
    for (server, expected) in [(0, 500), (1, 100), (2, 200)] {
        assert!(counts[&server].abs_diff(expected) <= 4, "{counts:?}");
    }
    let longest = visits.chunk_by(|one, other| one == other).map(<[usize]>::len).max();
    assert!(longest <= Some(6), "{longest:?} in a row");
}

#[test]
fn by_lot_weights_are_kept_to_in_the_long_run() {
    let counts = counts(&visits(&upstream(Balance::Random, &[3, 1]), 8_000, any));
    assert!((5_500..6_500).contains(&counts[&0]), "{counts:?}");
}

#[test]
fn the_less_busy_one_is_taken() {
    let upstream = upstream(Balance::LeastRequests, &[1, 1]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let first = Selection::new(&upstream, Wish::default()).next().await.unwrap();
        let second = Selection::new(&upstream, Wish::default()).next().await.unwrap();
        assert_ne!(first.endpoint.id, second.endpoint.id);
    });
}

#[test]
fn a_value_keeps_its_server_and_only_those_of_a_lost_server_move() {
    let hashed = |number: u64| Wish { hash: Some(hash(&number.to_be_bytes())), stays_with: None };
    let upstream = upstream(Balance::Hash(Key { parts: vec![vec![]] }), &[1, 1, 1, 3]);
    let before = visits(&upstream, 3_000, hashed);
    assert_eq!(visits(&upstream, 3_000, hashed), before);
    let counts = counts(&before);
    assert!((1_350..1_650).contains(&counts[&3]) && (400..600).contains(&counts[&0]), "{counts:?}");
    let fewer: Vec<_> = upstream.endpoints().iter().filter(|one| one.server.ordinal != 1).map(Arc::clone).collect();
    upstream.set_endpoints(fewer);
    let after = visits(&upstream, 3_000, hashed);
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == 1));
}

#[test]
fn backups_wait_and_everybody_is_tried_once() {
    // Of weight 7 are the backups.
    let upstream = upstream(Balance::RoundRobin, &[7, 1]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut selection = Selection::new(&upstream, Wish::default());
        assert_eq!(selection.next().await.unwrap().endpoint.server.ordinal, 1);
        assert_eq!(selection.next().await.unwrap().endpoint.server.ordinal, 0);
        assert_eq!(selection.next().await.unwrap_err(), Nobody::Left);
        selection.start_over();
        assert_eq!(selection.next().await.unwrap().endpoint.server.ordinal, 1);
    });
}

#[test]
fn nobody_gets_more_than_allowed() {
    let upstream = upstream(Balance::RoundRobin, &[1]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut slots = Vec::new();
        for _ in 0..3 {
            slots.push(Selection::new(&upstream, Wish::default()).next().await.unwrap());
        }
        assert_eq!(Selection::new(&upstream, Wish::default()).next().await.unwrap_err(), Nobody::Busy);
        slots.pop();
        assert!(Selection::new(&upstream, Wish::default()).next().await.is_ok());
    });
}
