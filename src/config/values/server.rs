//! The addresses of an upstream's servers.

use std::path::Path;

use rustls::pki_types::ServerName;
use serde_json::{Value as Json, json};

use crate::config::shape::{Problem, Word};
use crate::route::target::canonical_host;
use crate::upstream::Address;

/// One server of an upstream: `http://host:port`, `https://host:port`, `unix:/path` or `echo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Server {
    pub(in crate::config) address: Address,
    pub(in crate::config) scheme: Scheme,
    /// `host:port` as Host is written: without the default port.
    pub(in crate::config) host: String,
    /// For logs and metrics.
    pub(in crate::config) label: String,
}

/// Whether TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Scheme {
    Http,
    Https,
}

const SERVER: &str =
    "write http://host:port or https://host:port, such as http://127.0.0.1:3000; unix:/path; or `echo`";

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// With what follows it.
    pub(in crate::config) fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }
}

impl Server {
    /// As it is written in the file.
    pub(in crate::config) fn text(address: &Address, label: &str, scheme: Scheme) -> String {
        match address {
            Address::Tcp { .. } => format!("{}{label}", scheme.prefix()),
            Address::Srv(name) => format!("srv+{}{name}", scheme.prefix()),
            Address::Unix(_) | Address::Echo => label.to_owned(),
        }
    }

    fn of_unix_socket(text: &str, path: &str) -> Result<Self, Problem> {
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(Problem::new(format!("`{text}` names no socket"), "write its whole path: unix:/run/app.sock"));
        }
        let address = Address::Unix(Path::new(path).into());
        Ok(Self { address, scheme: Scheme::Http, host: "localhost".into(), label: format!("unix:{path}") })
    }

    /// `name` is such as `_http._tcp.api.example`; the server is called as what comes behind the underscores.
    fn of_records(text: &str, name: &str, scheme: Scheme) -> Result<Self, Problem> {
        let host: Vec<_> = name.split('.').skip_while(|label| label.starts_with('_')).collect();
        let host = host.join(".");
        let host = canonical_host(&host).ok().filter(|host| host.port.is_none() && !host.name.is_empty());
        let underscored = name.split('.').take_while(|label| label.starts_with('_') && label.len() > 1).count();
        match host {
            Some(host) if underscored <= 2 => Ok(Self {
                address: Address::Srv(name.to_ascii_lowercase().into()),
                scheme,
                host: host.name.to_string(),
                label: format!("srv:{}", name.to_ascii_lowercase()),
            }),
            _ => Err(Problem::new(
                format!("`{text}` names no SRV records"),
                "write srv+http:// and their name, such as srv+http://_http._tcp.api.example",
            )),
        }
    }

    fn of_authority(text: &str, authority: &str, scheme: Scheme) -> Result<Self, Problem> {
        let wrong = |what: &str| Problem::new(format!("`{text}` {what}"), SERVER);
        if authority.contains('@') {
            return Err(wrong("carries credentials, which a server's address cannot"));
        }
        if authority.contains(['/', '?', '#']) {
            return Err(with_path(text, authority, scheme));
        }
        let host = canonical_host(authority).map_err(|_| wrong("has no valid host and port"))?;
        if host.name.is_empty() || host.port == Some(0) || authority.ends_with(':') {
            return Err(wrong("has no valid host and port"));
        }
        let port = host.port.unwrap_or(scheme.default_port());
        let is_default = port == scheme.default_port();
        Ok(Self {
            address: Address::Tcp { host: host.name.trim_matches(['[', ']']).into(), port },
            scheme,
            host: if is_default { host.name.to_string() } else { format!("{}:{port}", host.name) },
            label: format!("{}:{port}", host.name),
        })
    }
}

impl Word for Server {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "echo" {
            let (host, label) = ("echo".into(), "echo".into());
            return Ok(Self { address: Address::Echo, scheme: Scheme::Http, host, label });
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::of_unix_socket(text, path);
        }
        let (records, address) = text.strip_prefix("srv+").map_or((false, text), |address| (true, address));
        let schemes = [Scheme::Http, Scheme::Https];
        let found = schemes.into_iter().find_map(|scheme| Some((scheme, address.strip_prefix(scheme.prefix())?)));
        let Some((scheme, rest)) = found else { return Err(no_scheme(text)) };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(path) = rest.strip_prefix("unix:") {
            // nginx writes the path of requests behind another colon.
            let socket = path.split(':').next().unwrap_or(path);
            let message = format!("`{text}`: a socket's address has no scheme");
            return Err(Problem::new(message, format!("did you mean `unix:{socket}`?")));
        }
        if records { Self::of_records(text, rest, scheme) } else { Self::of_authority(text, rest, scheme) }
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(echo|(srv\\+)?https?://.*|unix:/.*|.*\\$\\{.*)$" })
    }
}

/// What stands behind a host and a port belongs to the requests of a route.
fn with_path(text: &str, authority: &str, scheme: Scheme) -> Problem {
    let message = format!("`{text}` has a path, and a server has only a host and a port");
    let help = match authority.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.contains(['?', '#']) => {
            let server = format!("{}{host}", scheme.prefix());
            format!("write `{server}`, and on the routes that lead there `rewrite: {{ add_prefix: /{path} }}`")
        }
        _ => SERVER.to_owned(),
    };
    Problem::new(message, help)
}

fn no_scheme(text: &str) -> Problem {
    if text.starts_with("h2c://") {
        let meant = text.replacen("h2c", "http", 1);
        return Problem::new(
            format!("`{text}`: a protocol is no scheme"),
            format!("write `{meant}`, and `protocol: h2` beside `servers`"),
        );
    }
    if !text.contains("://") && text.contains([':', '.']) {
        return Problem::new(format!("`{text}` has no scheme"), format!("did you mean `http://{text}`?"));
    }
    Problem::new(format!("`{text}` is not the address of a server"), SERVER)
}

/// The name in a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct ServerNameText(pub(in crate::config) ServerName<'static>);

impl Word for ServerNameText {
    fn parse(text: &str) -> Result<Self, Problem> {
        let name = ServerName::try_from(text.to_owned());
        name.map(Self).map_err(|_| {
            Problem::new(
                format!("`{text}` is no name that a certificate could have"),
                "write a host, such as api.example.com",
            )
        })
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_from_its_address() {
        for (text, label, host) in [
            ("http://10.0.0.1", "10.0.0.1:80", "10.0.0.1"),
            ("https://API.example/", "api.example:443", "api.example"),
            ("https://api.example:8443", "api.example:8443", "api.example:8443"),
            ("http://[::1]:3000", "[::1]:3000", "[::1]:3000"),
            ("unix:/run/app.sock", "unix:/run/app.sock", "localhost"),
            ("srv+https://_https._tcp.Api.example", "srv:_https._tcp.api.example", "api.example"),
            ("srv+http://orders.service.consul", "srv:orders.service.consul", "orders.service.consul"),
            ("echo", "echo", "echo"),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!((&*server.label, &*server.host), (label, host), "{text}");
            let again = Server::parse(&Server::text(&server.address, &server.label, server.scheme)).unwrap();
            assert_eq!(again, server, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_write() {
        for (text, says, help) in [
            ("127.0.0.1:3000", "no scheme", "http://127.0.0.1:3000"),
            ("h2c://a:1", "no scheme", "protocol: h2"),
            ("ftp://a", "not the address", "http://host:port"),
            (
                "http://a/b",
                "has a path",
                "write `http://a`, and on the routes that lead there `rewrite: { add_prefix: /b }`",
            ),
            ("https://a:1/b/c/", "has a path", "`https://a:1`"),
            ("http://a?b", "has a path", "http://host:port"),
            ("http://unix:/run/app.sock", "no scheme", "`unix:/run/app.sock`"),
            ("http://unix:/run/app.sock:/v1/", "no scheme", "`unix:/run/app.sock`"),
            ("https://u:p@a", "credentials", "http://host:port"),
            ("http://:80", "no valid host", "http://host:port"),
            ("unix:app.sock", "names no socket", "unix:/run"),
            ("unix:", "names no socket", "unix:/run"),
            ("srv+http://_http._tcp", "names no SRV records", "_http._tcp.api"),
            ("srv+http://a:80", "names no SRV records", "_http._tcp.api"),
        ] {
            let problem = Server::parse(text).unwrap_err();
            assert!(problem.message.contains(says), "{}", problem.message);
            assert!(problem.help.as_ref().unwrap().contains(help), "{:?}", problem.help);
        }
    }
}
