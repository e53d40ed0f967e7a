//! Overrides of the file: other terms for the keys that they name.

use super::Check;
use super::terms::{Place, Stated};
use crate::config::file;
use crate::config::shape::Spanned;
use crate::config::values::{OverrideKey, network};
use crate::limit::key::{self, Key, KeyPart};
use crate::limit::policy::{Missing, Override, OverrideMatch};

/// What an override of a limit can name.
struct Nameable {
    /// The parts of its key that have values.
    parts: Vec<KeyPart>,
    /// Whether it may count by address.
    by_address: bool,
}

impl Check<'_> {
    pub(super) fn overrides(&mut self, place: Place<'_>, key: Option<&Key>, missing: Missing) -> Option<Vec<Override>> {
        let Place { limit, state_id: name, .. } = place;
        let nameable = key.map(|key| Nameable::of(key, missing));
        let listed = limit.overrides.get().map(|list| list.0.as_slice()).unwrap_or_default();
        let mut overrides = Vec::new();
        for (position, given) in listed.iter().enumerate() {
            if given.key.is_absent() {
                self.error(given.span, "this override has no key", "write `key: VALUE` or a list of values");
            }
            if given.rate.is_absent() && given.in_flight.is_absent() {
                self.error(given.span, "this override has no rate", "write a rate, `0/s` or `unlimited`");
            }
            let id = format!("{name}@{}", position + 1);
            let stated = Stated { rate: &given.rate, burst: &given.burst, in_flight: &given.in_flight };
            let terms = self.terms_of(stated, Place { state_id: &id, ..place });
            let matches = nameable.as_ref().map(|nameable| self.override_keys(given, nameable)).unwrap_or_default();
            overrides.push(terms.map(|terms| Override { matches, terms }));
        }
        overrides.into_iter().collect()
    }

    fn override_keys(&mut self, given: &Spanned<file::Override>, nameable: &Nameable) -> Vec<OverrideMatch> {
        let keys = given.key.get().into_iter().flat_map(|list| &list.0);
        keys.filter_map(|key| self.override_key(key, nameable)).collect()
    }

    /// What an override's key stands for: an address or a block where the limit may count by address, else the
    /// value of one part. Never both: whoever writes an address into a field would pass for its owner.
    fn override_key(&mut self, key: &Spanned<OverrideKey>, nameable: &Nameable) -> Option<OverrideMatch> {
        let Nameable { parts, by_address } = nameable;
        let text = key.text.as_str();
        let block = key.network.or_else(|| network(text.strip_prefix(key::CLIENT_IP)?));
        if let (Some(block), true) = (block, by_address) {
            return Some(OverrideMatch::Network(block));
        }
        if let Some((part, begin)) = key::part_of(parts, text.as_bytes()) {
            return Some(OverrideMatch::Value { part: part.clone(), value: text[begin..].into() });
        }
        let (message, help) = match (parts.as_slice(), by_address) {
            ([], true) => (
                format!("`{text}` is not an address, and this limit counts by client address"),
                "write addresses or blocks, such as 10.20.0.0/16".to_owned(),
            ),
            ([], false) => {
                ("all requests are one key here".to_owned(), "change the limit's own rate instead".to_owned())
            }
            _ => (
                format!("`{text}` could be the value of several parts of this limit's key"),
                format!("say of which part: write {}", key::spellings(parts, text)),
            ),
        };
        self.error(key.span, message, help);
        None
    }
}

impl Nameable {
    fn of(key: &Key, missing: Missing) -> Self {
        let own = key.parts.iter().flatten().any(|part| matches!(part, KeyPart::ClientIp { .. }));
        let for_want_of_a_key = matches!(missing, Missing::ClientIp { .. }) && key.may_be_missing();
        Self { parts: key.named_parts(), by_address: own || for_want_of_a_key }
    }
}
