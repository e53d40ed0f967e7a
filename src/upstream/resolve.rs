//! From the names of servers to the addresses that they have at present, again and again, as their DNS
//! records expire. An address that stays keeps what is known of it; while a name cannot be resolved, what
//! it was last holds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use super::{Address, Endpoint, Endpoints, Server, Upstream};

/// The shortest time between two questions, whatever a TTL says.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST: Duration = Duration::from_mins(5);
/// After a failure it is asked again so soon.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Who is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Name servers; empty: those of the system.
    pub nameservers: Vec<SocketAddr>,
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

/// A resolver as configured.
///
/// # Errors
/// When the system's configuration cannot be read.
pub fn resolver(settings: &DnsSettings) -> Result<TokioResolver, String> {
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
pub async fn keep(upstream: Arc<Upstream>, server: Arc<Server>, resolver: TokioResolver) {
    let mut failing = false;
    loop {
        let until = match ask(&server, &resolver).await {
            Ok(answer) => {
                let before = of_server(&upstream.endpoints(), &server);
                let found = answer.found.into_iter().map(|found| known_or_new(found, &server, &before));
                change(&upstream, &server, &found.collect());
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

async fn ask(server: &Server, resolver: &TokioResolver) -> Result<Answer, String> {
    match &server.address {
        Address::Srv(name) => ask_records(name, server, resolver).await,
        Address::Tcp { host, port } => ask_addresses(host, *port, server, resolver).await,
        Address::Unix(_) | Address::Echo => Err("it has no name".to_owned()),
    }
}

async fn ask_addresses(host: &str, port: u16, server: &Server, resolver: &TokioResolver) -> Result<Answer, String> {
    let lookup = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    let address = |ip: IpAddr| Address::Tcp { host: ip.to_string().into(), port };
    let (weight, backup) = (server.weight, server.backup);
    let mut found: Vec<_> = lookup.iter().map(|ip| Found { address: address(ip), weight, backup }).collect();
    // The order of records means nothing, and changes from answer to answer.
    found.sort_by_key(|found| found.address.to_string());
    found.dedup_by(|one, other| one.address == other.address);
    if found.is_empty() {
        return Err("the name has no address".to_owned());
    }
    Ok(Answer { found, until: lookup.valid_until() })
}

/// Records of the lowest priority are asked, the others are backups (RFC 2782: a weight of 0 is a small one).
async fn ask_records(name: &str, server: &Server, resolver: &TokioResolver) -> Result<Answer, String> {
    let lookup = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
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
    if !std::mem::replace(failing, true) {
        let (upstream, server) = (&*upstream.name, &*server.label);
        tracing::warn!(upstream, server, error, "upstream name cannot be resolved; its last addresses are used");
    }
}

fn tell_found(upstream: &Upstream, server: &Server, failing: &mut bool) {
    if std::mem::replace(failing, false) {
        tracing::info!(upstream = &*upstream.name, server = &*server.label, "upstream name is resolved again");
    }
}
