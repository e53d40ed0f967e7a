//! From the names of servers to the addresses that they have at present, again and again, as their DNS
//! records expire. An address that stays keeps what is known of it; while a name cannot be resolved, what
//! it was last holds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use super::{Address, Endpoint, Endpoints, Server, Upstream};

/// The shortest time between two questions, whatever a TTL says.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST: Duration = Duration::from_mins(5);
/// After a failure it is asked again so soon.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What the system's resolver says holds for so long: it tells no TTL.
const OF_SYSTEM: Duration = Duration::from_secs(10);

/// Who is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Name servers; empty: those of the system.
    pub nameservers: Vec<SocketAddr>,
}

/// Asks for names.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// DNS, unless it cannot be asked.
    dns: Option<TokioResolver>,
    /// Whether the system is asked for what DNS does not know: it may know names by other means. Where name
    /// servers are configured, only they are believed.
    asks_system: bool,
}

/// One address that a name has.
struct Found {
    address: Address,
    weight: u32,
    backup: bool,
}

/// Addresses, and until when they hold.
struct Answer {
    found: Vec<Found>,
    until: Instant,
}

impl Address {
    /// Whether only DNS tells where this is.
    #[must_use]
    pub fn is_name(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => host.parse::<IpAddr>().is_err(),
            Self::Srv(_) => true,
            Self::Unix(_) | Self::Echo => false,
        }
    }
}

impl Resolver {
    /// As configured.
    #[must_use]
    pub fn new(settings: &DnsSettings) -> Self {
        let dns = dns(settings).inspect_err(|error| {
            tracing::warn!(error, "names are resolved by the system alone: DNS cannot be asked");
        });
        Self { dns: dns.ok(), asks_system: settings.nameservers.is_empty() }
    }

    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Instant), String> {
        let error = match &self.dns {
            Some(dns) => match dns.lookup_ip(host).await {
                Ok(lookup) => return Ok((lookup.iter().collect(), lookup.valid_until())),
                Err(error) => error.to_string(),
            },
            None => "DNS cannot be asked".to_owned(),
        };
        if !self.asks_system {
            return Err(error);
        }
        let found = tokio::net::lookup_host((host, 0)).await.map_err(|_| error)?;
        Ok((found.map(|address| address.ip()).collect(), Instant::now() + OF_SYSTEM))
    }

    async fn records(&self, name: &str) -> Result<Lookup, String> {
        let dns = self.dns.as_ref().ok_or("DNS cannot be asked")?;
        dns.srv_lookup(name).await.map_err(|error| error.to_string())
    }
}

/// Fails when the system's configuration cannot be read.
fn dns(settings: &DnsSettings) -> Result<TokioResolver, String> {
    let builder = if settings.nameservers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| error.to_string())?
    } else {
        let servers = settings.nameservers.iter().map(|&address| name_server(address)).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let mut builder = builder;
    let options = builder.options_mut();
    // What is kept is kept here.
    options.cache_size = 0;
    // A server that listens on one of both is reached, and not every second time.
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    builder.build().map_err(|error| error.to_string())
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())])
}

/// Keeps the endpoints of one server with a name up to date, for ever.
pub async fn keep(upstream: Arc<Upstream>, server: Arc<Server>, resolver: Resolver) {
    let mut failing = false;
    loop {
        let until = match ask(&server, &resolver).await {
            Ok(answer) => {
                let before = of_server(&upstream.endpoints(), &server);
                let found = answer.found.into_iter().map(|found| known_or_new(found, &server, &before));
                change(&upstream, &server, &found.collect());
                server.lookup.succeeded();
                tell_found(&upstream, &server, &mut failing);
                answer.until
            }
            Err(error) => {
                tell_failed(&upstream, &server, &mut failing, &error);
                Instant::now() + AFTER_FAILURE
            }
        };
        let pause = until.saturating_duration_since(Instant::now()).clamp(SHORTEST, LONGEST);
        tokio::time::sleep(pause).await;
    }
}

fn of_server(endpoints: &Endpoints, server: &Arc<Server>) -> Endpoints {
    endpoints.iter().filter(|endpoint| Arc::ptr_eq(&endpoint.server, server)).map(Arc::clone).collect()
}

async fn ask(server: &Server, resolver: &Resolver) -> Result<Answer, String> {
    match &server.address {
        Address::Srv(name) => ask_records(name, server, resolver).await,
        Address::Tcp { host, port } => ask_addresses(host, *port, server, resolver).await,
        Address::Unix(_) | Address::Echo => Err("it has no name".to_owned()),
    }
}

async fn ask_addresses(host: &str, port: u16, server: &Server, resolver: &Resolver) -> Result<Answer, String> {
    let (addresses, until) = resolver.addresses(host).await?;
    let address = |ip: IpAddr| Address::Tcp { host: ip.to_string().into(), port };
    let (weight, backup) = (server.weight, server.backup);
    let mut found: Vec<_> = addresses.into_iter().map(|ip| Found { address: address(ip), weight, backup }).collect();
    // The order of records means nothing, and changes from answer to answer.
    found.sort_by_key(|found| found.address.to_string());
    found.dedup_by(|one, other| one.address == other.address);
    if found.is_empty() {
        return Err("the name has no address".to_owned());
    }
    Ok(Answer { found, until })
}

/// Records of the lowest priority are asked, the others are backups (RFC 2782: a weight of 0 is a small one).
async fn ask_records(name: &str, server: &Server, resolver: &Resolver) -> Result<Answer, String> {
    let lookup = resolver.records(name).await?;
    let records: Vec<_> = lookup
        .answers()
        .iter()
        .filter_map(|record| if let RData::SRV(record) = &record.data { Some(record.clone()) } else { None })
        .collect();
    let first = records.iter().map(|record| record.priority).min().ok_or("the name has no SRV record")?;
    let (mut found, mut until) = (Vec::new(), lookup.valid_until());
    for record in records {
        let host = record.target.to_utf8();
        let Ok(answer) = ask_addresses(host.trim_end_matches('.'), record.port, server, resolver).await else {
            continue;
        };
        until = until.min(answer.until);
        let (weight, backup) = (u32::from(record.weight).max(1), server.backup || record.priority > first);
        found.extend(answer.found.into_iter().map(|found| Found { weight, backup, ..found }));
    }
    if found.is_empty() {
        Err("no target of its SRV records has an address".to_owned())
    } else {
        Ok(Answer { found, until })
    }
}

/// The endpoint that is there already, or a new one.
fn known_or_new(found: Found, server: &Arc<Server>, before: &[Arc<Endpoint>]) -> Arc<Endpoint> {
    let Found { address, weight, backup } = found;
    let same = |one: &&Arc<Endpoint>| one.address == address && one.weight == weight && one.backup == backup;
    match before.iter().find(same) {
        Some(known) => Arc::clone(known),
        None => Arc::new(Endpoint { weight, backup, ..Endpoint::new(server, address) }),
    }
}

/// Sets the endpoints of one server, if they are others than before; those of the others stay. All names of
/// a process are kept on one thread.
fn change(upstream: &Upstream, server: &Arc<Server>, found: &Endpoints) {
    let ids = |endpoints: &[Arc<Endpoint>]| endpoints.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>();
    let before = upstream.endpoints();
    if ids(&of_server(&before, server)) == ids(found) {
        return;
    }
    let addresses: Vec<_> = found.iter().map(|endpoint| endpoint.address.to_string()).collect();
    let (name, label) = (&*upstream.name, &*server.label);
    tracing::info!(upstream = name, server = label, addresses = addresses.join(" "), "upstream addresses changed");
    let of = |one: &Arc<Server>| if Arc::ptr_eq(one, server) { found.clone() } else { of_server(&before, one) };
    upstream.set_endpoints(upstream.servers.iter().flat_map(of).collect());
}

fn tell_failed(upstream: &Upstream, server: &Server, failing: &mut bool, error: &str) {
    let never = server.lookup.failed(error);
    if std::mem::replace(failing, true) {
        return;
    }
    let (upstream, server) = (&*upstream.name, &*server.label);
    if never {
        tracing::warn!(
            upstream,
            server,
            error,
            "upstream name cannot be resolved; it is not asked until it has an address"
        );
    } else {
        tracing::warn!(upstream, server, error, "upstream name cannot be resolved; its last addresses are used");
    }
}

fn tell_found(upstream: &Upstream, server: &Server, failing: &mut bool) {
    if std::mem::replace(failing, false) {
        tracing::info!(upstream = &*upstream.name, server = &*server.label, "upstream name is resolved again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_is_asked_unless_name_servers_are_configured() {
        let mut resolver = Resolver { dns: None, asks_system: true };
        let (found, until) = resolver.addresses("localhost").await.expect("every system knows it");
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
        assert!(until > Instant::now());
        resolver.asks_system = false;
        assert!(resolver.addresses("localhost").await.is_err());
    }
}
