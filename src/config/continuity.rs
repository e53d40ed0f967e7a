//! What of a configuration can take the place of another one while the process runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Config;
use crate::limit::dynamic::Rules;

impl Config {
    /// What another configuration says otherwise that takes effect only at a start; in the words of its file.
    #[must_use]
    pub fn needs_restart(&self, next: &Self) -> Vec<&'static str> {
        let jwt = match (&self.jwt, &next.jwt) {
            (Some(one), Some(another)) => one.is_like(another),
            (one, another) => one.is_none() && another.is_none(),
        };
        let same = [
            ("workers", self.workers == next.workers),
            ("admin", self.admin == next.admin),
            ("store", self.store == next.store),
            ("jwt", jwt),
            ("log", self.log == next.log),
            ("access_log", self.access_log == next.access_log),
            ("tracing", self.tracing == next.tracing),
            ("memory", self.max_memory == next.max_memory),
            ("dynamic_overrides", self.dynamic_rules() == next.dynamic_rules()),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    fn dynamic_rules(&self) -> BTreeMap<&Arc<str>, &Rules> {
        let rules = self.policies.iter().filter_map(|policy| Some((&policy.name, policy.dynamic.as_ref()?)));
        rules.collect()
    }
}
