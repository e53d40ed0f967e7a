//! Whose tokens are believed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;

use super::Check;
use crate::config::Config;
use crate::config::file::{File, Jwt};
use crate::config::frames::Span;
use crate::config::shape::{OneOrMany, Problem, Setting};
use crate::config::values::Signature;
use crate::jwt::key_set::KeySet;
use crate::jwt::settings::{ALGORITHMS, Algorithm, JwtSettings, KeySource};
use crate::limit::key::KeyPart;

/// Clocks that are further apart than this should be set.
const LARGEST_LEEWAY: Duration = Duration::from_mins(10);

impl Check<'_> {
    pub(super) fn jwt(&mut self, file: &File) -> Option<Arc<JwtSettings>> {
        let jwt = file.jwt.get()?;
        let algorithms = algorithms(&jwt.algorithms);
        let (audience, issuer) = (self.names(&jwt.audience), self.names(&jwt.issuer));
        let leeway = jwt.leeway.or(Duration::from_mins(1));
        if let Some(given) = jwt.leeway.spanned()
            && leeway > LARGEST_LEEWAY
        {
            self.error(given.span, "this lets expired tokens live too long", "write 10m or less, and set the clocks");
        }
        let refresh = self.refresh(jwt);
        let source = self.key_source(jwt, file)?;
        let first_keys = self.first_keys(jwt, &source, &algorithms)?;
        let header = jwt.header.get().cloned().unwrap_or(AUTHORIZATION);
        Some(Arc::new(JwtSettings { source, first_keys, algorithms, audience, issuer, header, leeway, refresh }))
    }

    /// The one place where the keys are.
    fn key_source(&mut self, jwt: &Jwt, file: &File) -> Option<KeySource> {
        let places = [jwt.jwks_url.key(), jwt.jwks_file.key(), jwt.public_key_file.key()];
        let mut given = places.into_iter().flatten();
        if let (Some(_), Some(second)) = (given.next(), given.next()) {
            let help = "keep one of `jwks_url`, `jwks_file` and `public_key_file`";
            self.error(second, "the keys of tokens are given twice", help);
            return None;
        }
        let absent = jwt.jwks_url.is_absent() && jwt.jwks_file.is_absent() && jwt.public_key_file.is_absent();
        if let Some(key) = file.jwt.key().filter(|_| absent) {
            let help = "write `jwks_url: https://…`, `jwks_file: …` or `public_key_file: …` below it";
            self.error(key, "`jwt` does not say where the keys are", help);
        }
        let ca = self.jwks_authorities(jwt);
        if let Some(url) = jwt.jwks_url.get() {
            let mut url = url.0.clone();
            url.ca = ca;
            return Some(KeySource::Url(url));
        }
        let file = jwt.jwks_file.get().map(|path| KeySource::File(self.path(path)));
        file.or_else(|| jwt.public_key_file.get().map(|path| KeySource::Pem(self.path(path))))
    }

    fn jwks_authorities(&mut self, jwt: &Jwt) -> Option<PathBuf> {
        let secure = jwt.jwks_url.get().is_some_and(|url| url.0.tls) || matches!(jwt.jwks_url, Setting::Invalid);
        if let Some(key) = jwt.jwks_ca.key().filter(|_| !secure) {
            self.error(key, "`jwks_ca` has no meaning without TLS", "leave it out, or write https:// in `jwks_url`");
            return None;
        }
        self.readable(&jwt.jwks_ca)
    }

    fn refresh(&mut self, jwt: &Jwt) -> Duration {
        let refresh = self.time(&jwt.refresh, Duration::from_mins(5));
        let by_file = !jwt.jwks_file.is_absent() || !jwt.public_key_file.is_absent();
        if let Some(key) = jwt.refresh.key()
            && by_file
        {
            self.error(key, "`refresh` belongs to `jwks_url`", "leave it out: files are read again when they change");
        } else if let Some(given) = jwt.refresh.spanned()
            && (1..1_000_000).contains(&refresh.as_micros())
        {
            self.error(given.span, "keys are not fetched more than once a second", "write 5m, for example");
        }
        refresh
    }

    /// What a file holds now. A URL is asked when the proxy runs.
    fn first_keys(&mut self, jwt: &Jwt, source: &KeySource, algorithms: &[Algorithm]) -> Option<Arc<KeySet>> {
        let setting = match source {
            KeySource::Url(_) => return Some(Arc::default()),
            KeySource::File(_) => &jwt.jwks_file,
            KeySource::Pem(_) => &jwt.public_key_file,
        };
        let contents = self.contents(setting)?;
        let span = setting.spanned()?.span;
        match source.read(&contents, algorithms) {
            Ok(keys) => {
                if !keys.ignored().is_empty() {
                    let message = format!("some keys are not used: {}", keys.ignored().join(", "));
                    self.warn(span, message, "take them out of the file");
                }
                Some(Arc::new(keys))
            }
            Err(error) => {
                let Problem { message, help } = Problem::from(error);
                let message = format!("no key can be taken from `{source}`: {message}");
                self.reader.error(span, Problem { message, help });
                None
            }
        }
    }

    fn names(&mut self, setting: &Setting<OneOrMany<String>>) -> Vec<Box<str>> {
        let given = setting.get().map(|list| list.0.as_slice()).unwrap_or_default();
        if let Some(key) = setting.key().filter(|_| given.iter().all(|name| name.value.is_empty())) {
            self.error(key, "this names nobody, so that no token is accepted", "write a name, or leave it out");
        }
        given.iter().map(|name| name.value.as_str().into()).collect()
    }

    /// A claim can only be told of tokens that can be verified.
    pub(super) fn claim(&mut self, part: &KeyPart, span: Span) {
        if let KeyPart::Jwt(path) = part
            && !self.believes_tokens
        {
            let help = "add `jwt: { jwks_url: https://… }` at the top, or `jwks_file`, or `public_key_file`";
            self.error(span, format!("`jwt:{path}` cannot be told: no token can be verified without keys"), help);
        }
    }

    pub(super) fn warn_about_unused_tokens(&mut self, file: &File, config: &Config) {
        let mut parts = config.policies.iter().flat_map(|policy| policy.asked_parts());
        let extras = config.router.routes().filter_map(|route| route.extras.as_ref());
        let mut templates = extras.flat_map(|extras| extras.templates());
        let in_template = templates.any(|template| template.asks_for(|part| matches!(part, KeyPart::Jwt(_))));
        if let Some(key) = file.jwt.key()
            && !in_template
            && !parts.any(|part| matches!(part, KeyPart::Jwt(_)))
        {
            self.warn(
                key,
                "no limit asks for a claim and no field holds one, so no token is looked at",
                "use it: `key: jwt:sub`",
            );
        }
    }

    /// Tests whose requests carry a token: it counts as none, as nobody verifies it there.
    pub(super) fn warn_about_tokens_in_tests(&mut self, file: &File, config: &Config) {
        let Some(jwt) = &config.jwt else { return };
        let trials = file.tests.get().into_iter().flat_map(|list| &list.0);
        let sends = trials.filter_map(|trial| trial.send.get()).flat_map(|sends| &sends.0);
        for send in sends.filter(|send| send.jwt_claims.is_absent()) {
            let fields = send.headers.get().into_iter().flat_map(|named| &named.0).map(|(name, _)| name);
            for name in fields.filter(|name| name.eq_ignore_ascii_case(jwt.header.as_str())) {
                let help = "write what it says: `jwt_claims: { sub: ann }`";
                self.warn(name.span, "a token in a field is not verified in a test, and counts as none", help);
            }
        }
    }
}

/// Those given, or all.
fn algorithms(setting: &Setting<OneOrMany<Signature>>) -> Vec<Algorithm> {
    match setting.get() {
        Some(given) if !given.0.is_empty() => given.0.iter().map(|signature| signature.value.0).collect(),
        _ => ALGORITHMS.map(|(_, algorithm)| algorithm).to_vec(),
    }
}
