//! One test binary (linking is slow), a module per behaviour. Everything here runs the real program
//! and talks to it through sockets; what a test needs beside it (Redis, upstreams) it starts itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test that cannot go on must fail")]

#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;

mod access;
mod access_log;
mod admin_api;
mod admin_commands;
mod answers;
mod balancing;
mod blame;
mod bounds;
mod clock_skew;
mod coalescing;
mod command_line;
mod configuration;
mod contract;
mod cors;
mod cut;
mod dashboard;
mod defaults;
mod denials;
mod departed;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod deploy;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod deploy_metrics;
mod differential;
mod examples;
mod flood;
mod foreign;
mod forwarding;
mod forwarding_http2;
mod fuzz;
mod grpc;
mod held;
mod http2_attacks;
mod http2_conformance;
mod https_redirect;
mod identity;
mod in_flight;
mod inbound;
mod jwt;
mod keys;
mod layering;
mod leases;
mod limit_metrics;
mod lost_servers;
mod memory;
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
mod proxy_protocol;
mod recipes;
mod redis_cluster;
mod redis_cluster_changes;
mod redis_replies;
mod redis_sentinel;
mod redis_store;
mod regressions;
mod reload;
mod replies;
mod retries;
mod retry_spread;
mod rewriting;
mod routing;
mod schedules;
mod server_health;
mod server_names;
mod settlement;
mod shadow_share;
mod simulate;
mod slow;
mod smuggling;
mod start;
mod status;
mod store_failure;
mod store_links;
mod store_shares;
mod store_signs;
mod streaming;
mod tiers;
mod tls;
mod tls_clients;
mod tls_hello;
mod tls_reload;
mod told;
mod tools;
mod traces;
mod trials;
mod unix_sockets;
mod upgrade;
mod upstream_http2;
mod upstream_tls;
