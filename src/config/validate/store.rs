//! Where limiter state lives.

use std::path::PathBuf;
use std::time::Duration;

use super::Check;
use crate::config::file::{self, File};
use crate::config::frames::Span;
use crate::config::shape::{Setting, Short};
use crate::limit::key::Hashing;
use crate::limit::store::settings::{Backend, HashTags, RedisSettings, RedisTls, Secret, StoreSettings};

/// The context of the key-secret derivation; a change of it changes every hashed key.
const KEY_CONTEXT: &str = "tollgate 2026 key_secret_file";

impl Check<'_> {
    pub(super) fn store(&mut self, file: &File) -> StoreSettings {
        let memory = StoreSettings { backend: Backend::Memory, max_keys: 1_000_000 };
        let Some(Short::Long(store)) = file.store.get() else { return memory };
        let max_keys = self.number(&store.max_keys, 1_000_000, 1_000..=1_000_000_000);
        let hashing = self.hashing(store);
        let backend = store.redis.get().and_then(|redis| self.redis(redis, hashing, file));
        StoreSettings { backend: backend.map_or(Backend::Memory, |redis| Backend::Redis(Box::new(redis))), max_keys }
    }

    fn hashing(&mut self, store: &file::Store) -> Hashing {
        let Some(secret) = self.contents(&store.key_secret_file) else { return Hashing::Hashed(None) };
        if let Some(given) = store.key_secret_file.spanned()
            && secret.len() < 32
        {
            self.error(
                given.span,
                format!("this secret has {} bytes; it needs at least 32", secret.len()),
                "make one: `head -c 32 /dev/urandom > FILE`, the same file on all proxies",
            );
        }
        Hashing::Hashed(Some(Box::new(blake3::derive_key(KEY_CONTEXT, &secret))))
    }

    fn redis(&mut self, redis: &file::Redis, hashing: Hashing, file: &File) -> Option<RedisSettings> {
        let tls = self.redis_tls(redis);
        let in_url = redis.url.spanned().and_then(|url| Some((url.password.as_deref()?, url.span)));
        let password = self.password(&redis.password_file, &redis.password, in_url);
        let timeout = self.time(&redis.timeout, Duration::from_millis(25));
        self.hash_tag(redis);
        let servers = self.redis_servers(redis, file)?;
        let url = redis.url.get();
        let wants_tls = url.map_or(!redis.tls.is_absent(), |url| url.tls);
        Some(RedisSettings {
            servers,
            tls: wants_tls.then_some(tls),
            username: redis.username.get().cloned().or_else(|| url.and_then(|url| url.username.clone())),
            password,
            key_prefix: redis.key_prefix.get().map_or("tollgate", |prefix| prefix.0.as_str()).into(),
            hash_tags: HashTags::Subject,
            timeout,
            hashing,
        })
    }

    /// The password, of which there may be one only.
    pub(super) fn password(
        &mut self,
        file: &Setting<PathBuf>,
        text: &Setting<String>,
        in_url: Option<(&str, Span)>,
    ) -> Option<Secret> {
        let mut given = [file.key(), text.key(), in_url.map(|(_, span)| span)].into_iter().flatten();
        if let (Some(_), Some(second)) = (given.next(), given.next()) {
            self.error(second, "the password is given twice", "keep `password_file`, `password` or the one in `url`");
        }
        let places = [
            (text.spanned().map(|password| password.span), "`password`"),
            (in_url.map(|(_, span)| span), "the password in `url`"),
        ];
        for (span, what) in places {
            if let Some(span) = span
                && !self.is_from_environment(span)
            {
                self.warn(
                    span,
                    format!("{what} is a secret written in the file"),
                    "use `password_file`, or ${NAME} from the environment",
                );
            }
        }
        self.secret_file(file)
            .or_else(|| text.get().filter(|password| !password.is_empty()).map(|password| Secret::new(password)))
            .or_else(|| in_url.map(|(password, _)| Secret::new(password)))
    }

    fn redis_tls(&mut self, redis: &file::Redis) -> RedisTls {
        let Some(tls) = redis.tls.get() else { return RedisTls { ca: None, client: None } };
        let (ca, cert, key) = (self.readable(&tls.ca), self.readable(&tls.cert), self.readable(&tls.key));
        if tls.cert.is_absent() != tls.key.is_absent()
            && let Some(span) = tls.cert.key().or_else(|| tls.key.key())
        {
            self.error(
                span,
                "a client's certificate needs its key, and a key its certificate",
                "give `cert` and `key`",
            );
        }
        RedisTls { ca, client: cert.zip(key) }
    }
}
