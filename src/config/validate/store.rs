//! Where limiter state lives.

use std::time::Duration;

use super::Check;
use crate::config::file::{self, File};
use crate::config::shape::Short;
use crate::limit::key::Hashing;
use crate::limit::store::settings::{Backend, RedisSettings, RedisTls, Secret, StoreSettings};

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
        if redis.url.is_absent()
            && let Some(key) = file.store.key()
        {
            self.error(key, "`redis` has no `url`", "write `url: redis://127.0.0.1:6379/0` below it");
        }
        let tls = self.redis_tls(redis);
        let password = self.password(redis);
        let timeout = self.time(&redis.timeout, Duration::from_millis(25));
        let url = redis.url.spanned()?;
        if let Some(key) = redis.tls.key()
            && !url.tls
        {
            self.error(key, "`tls` is given, but the address begins with redis://", "write rediss:// in `url`");
        }
        Some(RedisSettings {
            host: url.host.clone(),
            port: url.port,
            database: url.database,
            tls: url.tls.then_some(tls),
            username: redis.username.get().cloned().or_else(|| url.username.clone()),
            password,
            key_prefix: redis.key_prefix.get().map_or("tollgate", |prefix| prefix.0.as_str()).into(),
            timeout,
            hashing,
        })
    }

    /// The password, of which there may be one only.
    fn password(&mut self, redis: &file::Redis) -> Option<Secret> {
        let in_url = redis.url.spanned().filter(|url| url.password.is_some());
        let places = [redis.password_file.key(), redis.password.key(), in_url.map(|url| url.span)];
        let mut given = places.into_iter().flatten();
        if let (Some(_), Some(second)) = (given.next(), given.next()) {
            self.error(second, "the password is given twice", "keep `password_file`, `password` or the one in `url`");
        }
        for (span, what) in [
            (redis.password.spanned().map(|password| password.span), "`password`"),
            (in_url.map(|url| url.span), "the password in `url`"),
        ] {
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
        self.secret_file(&redis.password_file)
            .or_else(|| {
                redis.password.get().filter(|password| !password.is_empty()).map(|password| Secret::new(password))
            })
            .or_else(|| in_url.and_then(|url| url.password.as_deref()).map(Secret::new))
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
