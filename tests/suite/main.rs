//! One test binary (linking is slow), a module per behaviour. Everything here runs the real program
//! and talks to it through sockets; what a test needs beside it (Redis, upstreams) it starts itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test that cannot go on must fail")]

#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod clock_skew;
mod coalescing;
mod command_line;
mod configuration;
mod contract;
mod denials;
mod differential;
mod examples;
mod flood;
mod forwarding;
mod forwarding_http2;
mod fuzz;
mod held;
mod http2_attacks;
mod http2_conformance;
mod identity;
mod in_flight;
mod inbound;
mod jwt;
mod keys;
mod layering;
mod leases;
mod limit_metrics;
mod must_refuse;
mod networks;
mod nginx;
mod nonces;
mod observability;
mod oracle;
mod override_parts;
mod overrides_api;
mod parsers;
mod penalties;
mod picture;
mod recipes;
mod redis_cluster;
mod redis_cluster_changes;
mod redis_replies;
mod redis_sentinel;
mod redis_store;
mod regressions;
mod replies;
mod retry_spread;
mod schedules;
mod settlement;
mod shadow_share;
mod simulate;
mod slow;
mod smuggling;
mod start;
mod store_failure;
mod store_links;
mod store_shares;
mod store_signs;
mod streaming;
mod tiers;
mod tls;
mod tls_clients;
mod trials;
mod upgrade;
