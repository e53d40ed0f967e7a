//! What a newcomer reads at the start: what runs where, what the limits mean, what to try.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::config::{Config, ListenAddress, ProxyProtocol, sentences};
use crate::limit::store::settings::Backend;
use crate::route::{HostPattern, Match, PathMatch, Wanted};
use crate::telemetry::logging::{self, Look};

/// Limits that are spelled out; the rest are counted.
const SHOWN: usize = 12;

/// Tells what runs: as text for people, or as one event for machines.
pub(super) fn greet(config: &Config, addresses: &[(Arc<str>, ListenAddress)], look: Look) {
    let hints = hints(config, addresses);
    if look.json {
        tracing::info!(store = store(config), hint = hints.first().map(String::as_str), "ready");
    } else {
        logging::print(&text(config, addresses, &hints));
    }
}

/// The block for people.
fn text(config: &Config, addresses: &[(Arc<str>, ListenAddress)], hints: &[String]) -> String {
    let mut text = String::from("\n");
    for (name, address) in addresses {
        let more =
            if is_admin(name) { format!("  (/healthz, /readyz, {})", config.metrics_path) } else { String::new() };
        let _ = writeln!(text, "  {name:<8} {}{more}", origin(config, name, address));
    }
    let _ = writeln!(text, "  store    {}", store(config));
    for (index, policy) in config.policies.iter().take(SHOWN).enumerate() {
        let title = if index == 0 { "limits" } else { "" };
        let _ = writeln!(text, "  {title:<8} {}: {}", policy.name, sentences::sentence(policy));
    }
    if config.policies.len() > SHOWN {
        let _ = writeln!(text, "           and {} more (`tollgate check` lists all)", config.policies.len() - SHOWN);
    }
    for (index, hint) in hints.iter().enumerate() {
        let title = if index == 0 { "try" } else { "" };
        let _ = writeln!(text, "  {title:<8} {hint}");
    }
    text.push('\n');
    text
}

/// Two commands that show something at once: a limited request, and what was counted.
fn hints(config: &Config, addresses: &[(Arc<str>, ListenAddress)]) -> Vec<String> {
    let web = addresses.iter().find(|(name, _)| serves(config, name)).map(|(name, address)| {
        let first = config.router.routes().find(|route| !route.is_unmatched());
        let matches = first.map(|route| &route.matches);
        match address {
            ListenAddress::Tcp(_) => request(&origin(config, name, address), matches),
            ListenAddress::Unix(path) => {
                let command = request(&format!("{}://localhost", scheme(config, name)), matches);
                command.replacen(" -i", &format!(" --unix-socket {} -i", path.display()), 1)
            }
        }
    });
    let token = config.admin.as_ref().is_some_and(|admin| admin.token.is_some());
    let admin = addresses.iter().find(|(name, _)| is_admin(name)).map(|(_, address)| {
        let origin = origin(config, "admin", address);
        if token {
            format!("curl -i {origin}/readyz")
        } else {
            format!("curl -s {origin}{} | grep tollgate_limit_decisions", config.metrics_path)
        }
    });
    web.into_iter().chain(admin).collect()
}

/// A request that the route with these conditions takes.
fn request(origin: &str, matches: Option<&Match>) -> String {
    // A certificate is hardly for the address of this machine.
    let mut command = String::from(if origin.starts_with("https:") { "curl -ik" } else { "curl -i" });
    let mut path = "/";
    if let Some(matches) = matches {
        if let Some(method) = matches.methods.first().filter(|method| *method != http::Method::GET) {
            let _ = write!(command, " -X {method}");
        }
        match matches.hosts.first() {
            Some(HostPattern::Exact(host)) => drop(write!(command, " -H 'Host: {host}'")),
            Some(HostPattern::Wildcard(suffix)) => drop(write!(command, " -H 'Host: www{suffix}'")),
            None => {}
        }
        for (name, wanted) in &matches.headers {
            if let Wanted::Exactly(value) = wanted {
                let _ = write!(command, " -H '{name}: {}'", String::from_utf8_lossy(value));
            }
        }
        path = matches.paths.first().map_or("/", PathMatch::text);
    }
    let path = path.trim_end_matches('*');
    // Braces of a path parameter would be read by the shell and by curl.
    let path = path.replace(['{', '}'], "");
    let _ = write!(command, " {origin}{path}");
    command
}

/// Where limiter state lives, in words.
fn store(config: &Config) -> String {
    match &config.store.backend {
        Backend::Memory => "memory, in this process".to_owned(),
        Backend::Redis(redis) => redis.display(),
    }
}

/// What a URL of a listener begins with, or where its socket is.
fn origin(config: &Config, name: &str, address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => format!("{}://{}", scheme(config, name), reachable(*address)),
        ListenAddress::Unix(_) => address.to_string(),
    }
}

/// What a listener of this name speaks; the admin listener is none of the configuration's.
fn scheme(config: &Config, name: &str) -> &'static str {
    let secured = config.listeners.iter().any(|listener| &*listener.name == name && listener.tls.is_some());
    if secured { "https" } else { "http" }
}

/// Whether a request to a listener of this name is routed as it is: not sent to https, and not waited for behind a
/// header that only load balancers send.
fn serves(config: &Config, name: &str) -> bool {
    let listener = config.listeners.iter().find(|listener| &*listener.name == name);
    listener.is_some_and(|one| one.redirect_to_https.is_none() && one.proxy_protocol != ProxyProtocol::Required)
}

/// Whether an address is the admin listener's.
fn is_admin(name: &str) -> bool {
    name == "admin"
}

/// An address to connect to, where the listener takes any; `[::]` takes IPv4 too, and brackets are
/// no pleasure in a shell.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    SocketAddr::new(ip, address.port())
}
