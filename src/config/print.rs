//! The expanded configuration: every default written out, in the file's own format, without secrets.

mod cost;
mod extras;
mod limit;
mod listeners;
mod matching;
mod process;
mod routes;
mod store;
mod terms;
mod trials;
mod upstreams;
mod variants;

use std::fmt::Write as _;

use super::{ClientIpSource, Config};
use crate::jwt::settings::KeySource;
use crate::limit::headers::HeaderStyle;
use crate::limit::store::settings::Backend;
use crate::units::DurationText;

/// The configuration as YAML with nothing left to defaults. Secrets show as `"***"`.
#[must_use]
pub fn expanded(config: &Config) -> String {
    let mut out = Lines::default();
    listeners::listeners(&mut out, &config.listeners);
    clients(&mut out, config);
    extras::access(&mut out, 0, &config.access);
    upstreams::upstreams(&mut out, &config.upstreams);
    upstreams::dns(&mut out, &config.dns);
    routes::routes(&mut out, config);
    out.pair(
        0,
        "rate_limit_headers",
        match config.rate_limit_headers {
            HeaderStyle::Draft => "draft",
            HeaderStyle::Legacy => "legacy",
            HeaderStyle::Both => "both",
            HeaderStyle::None => "none",
        },
    );
    store(&mut out, config);
    jwt(&mut out, config);
    process::process(&mut out, config);
    trials::trials(&mut out, &config.trials);
    out.0
}

/// YAML, line by line.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, indent: usize, text: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{:indent$}{text}", "");
    }

    fn pair(&mut self, indent: usize, key: &str, value: impl std::fmt::Display) {
        self.line(indent, format_args!("{key}: {value}"));
    }

    fn list(&mut self, indent: usize, key: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<_> = values.into_iter().map(|value| quoted(&value)).collect();
        if !values.is_empty() {
            self.pair(indent, key, format_args!("[{}]", values.join(", ")));
        }
    }
}

/// A double-quoted scalar (JSON's escapes are YAML's). `${` is doubled, so that it is read as it stands.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

fn clients(out: &mut Lines, config: &Config) {
    let networks = config.trusted_proxies.iter().map(ToString::to_string);
    let unix = config.trusts_unix.then(|| "unix".to_owned());
    out.list(0, "trusted_proxies", networks.chain(unix));
    out.line(0, "client_ip:");
    if !config.trusted_proxies.is_empty() || config.trusts_unix {
        out.pair(
            2,
            "header",
            match &config.client_ip.source {
                ClientIpSource::XForwardedFor => "x-forwarded-for",
                ClientIpSource::Forwarded => "forwarded",
                ClientIpSource::Header(name) => name.as_str(),
            },
        );
    }
    out.pair(2, "ipv6_prefix", config.client_ip.ipv6_prefix);
}

fn store(out: &mut Lines, config: &Config) {
    out.line(0, "store:");
    if let Backend::Redis(settings) = &config.store.backend {
        store::redis(out, settings);
    }
    out.pair(2, "max_keys", config.store.max_keys);
}

fn jwt(out: &mut Lines, config: &Config) {
    let Some(jwt) = &config.jwt else { return };
    out.line(0, "jwt:");
    match &jwt.source {
        KeySource::Url(url) => {
            out.pair(2, "jwks_url", quoted(&url.text));
            if let Some(ca) = &url.ca {
                out.pair(2, "jwks_ca", quoted(&ca.to_string_lossy()));
            }
            out.pair(2, "refresh", DurationText(jwt.refresh));
        }
        KeySource::File(path) => out.pair(2, "jwks_file", quoted(&path.to_string_lossy())),
        KeySource::Pem(path) => out.pair(2, "public_key_file", quoted(&path.to_string_lossy())),
    }
    out.list(2, "audience", jwt.audience.iter().map(ToString::to_string));
    out.list(2, "issuer", jwt.issuer.iter().map(ToString::to_string));
    out.list(2, "algorithms", jwt.algorithms.iter().map(|algorithm| format!("{algorithm:?}")));
    out.pair(2, "header", jwt.header.as_str());
    out.pair(2, "leeway", DurationText(jwt.leeway));
}
