//! Overrides: other terms for single keys and address blocks.

use super::Check;
use super::terms::{Place, Stated};
use crate::config::file;
use crate::config::shape::Spanned;
use crate::config::values::{KeyChoice, OverrideKey, without_host_bits};
use crate::limit::key::KeyPart;
use crate::limit::policy::{Override, OverrideMatch};

/// What the keys of overrides may stand for under a limit.
#[derive(Clone, Copy)]
struct Naming {
    /// Values, where the limit counts by anything but addresses.
    by_value: bool,
    /// Address blocks, where it counts by address or may do so for want of a key.
    by_address: bool,
    /// Nothing, where all requests are one key.
    of_nothing: bool,
    /// Nothing that is known: the limit's key could not be read.
    unknown: bool,
}

impl Check<'_> {
    pub(super) fn overrides(&mut self, place: Place<'_>) -> Option<Vec<Override>> {
        let Place { limit, state_id: name, .. } = place;
        let listed = limit.overrides.get().map(|list| list.0.as_slice()).unwrap_or_default();
        let naming = Naming::of(limit);
        if let (true, Some(key), [_, ..]) = (naming.of_nothing, limit.overrides.key(), listed) {
            let help = "leave `overrides` out, or count by a key that tells requests apart";
            self.warn(key, "all requests are one key here, and no override names it", help);
        }
        let mut overrides = Vec::new();
        let mut taken = Vec::new();
        for (position, given) in listed.iter().enumerate() {
            self.is_complete(given);
            let id = format!("{name}@{}", position + 1);
            let stated = Stated { rate: &given.rate, burst: &given.burst, in_flight: &given.in_flight };
            let terms = self.terms_of(stated, Place { state_id: &id, ..place });
            let matches = self.override_keys(given, naming, &taken);
            taken.extend(matches.iter().cloned());
            overrides.push(terms.map(|terms| Override { matches, terms }));
        }
        overrides.into_iter().collect()
    }

    fn is_complete(&mut self, given: &Spanned<file::Override>) {
        if given.key.is_absent() {
            self.error(given.span, "this override has no key", "write `key: VALUE` or a list of values");
        }
        if given.rate.is_absent() && given.in_flight.is_absent() {
            self.error(given.span, "this override has no rate", "write a rate, `0/s` or `unlimited`");
        }
    }

    /// What an override's keys stand for. `taken` are those of the overrides above it, which come first.
    fn override_keys(
        &mut self,
        given: &Spanned<file::Override>,
        naming: Naming,
        taken: &[OverrideMatch],
    ) -> Vec<OverrideMatch> {
        let mut matches = Vec::new();
        for key in given.key.get().into_iter().flat_map(|list| &list.0) {
            let of_key = self.override_key(key, naming);
            if !of_key.is_empty() && of_key.iter().all(|one| taken.iter().any(|other| covers(other, one))) {
                self.warn(
                    key.span,
                    format!("`{}` never gets as far as here: an override above has it already", key.text),
                    "the first that matches wins: put the narrower one first",
                );
            }
            matches.extend(of_key);
        }
        matches
    }

    fn override_key(&mut self, key: &Spanned<OverrideKey>, naming: Naming) -> Vec<OverrideMatch> {
        if !naming.by_value && key.network.is_none() && !naming.unknown {
            self.error(
                key.span,
                format!("`{}` is not an address, and this limit counts by client address", key.text),
                "write addresses or blocks, such as 10.20.0.0/16",
            );
        }
        let block = key.network.filter(|_| naming.by_address);
        if let Some(Err(problem)) = block.map(without_host_bits) {
            self.reader.error(key.span, problem);
        }
        let value = naming.by_value.then(|| OverrideMatch::Value(key.text.as_str().into()));
        block.map(OverrideMatch::Network).into_iter().chain(value).collect()
    }
}

impl Naming {
    fn of(limit: &file::Limit) -> Self {
        let choices = || limit.key.get().into_iter().flat_map(|key| &key.0).map(|choice| &choice.value);
        let parts = || choices().flat_map(|choice| &choice.0);
        let is_address = |part: &KeyPart| matches!(part, KeyPart::ClientIp { .. });
        let missing = limit.missing.or(file::Missing::ClientIp) == file::Missing::ClientIp;
        let unknown = parts().next().is_none();
        Self {
            by_value: !parts().all(is_address),
            by_address: parts().any(is_address) || (missing && choices().any(KeyChoice::may_be_missing)),
            of_nothing: !unknown && parts().all(|part| *part == KeyPart::Global),
            unknown,
        }
    }
}

/// Whether one entry matches whatever another does.
fn covers(wide: &OverrideMatch, narrow: &OverrideMatch) -> bool {
    match (wide, narrow) {
        (OverrideMatch::Network(wide), OverrideMatch::Network(narrow)) => wide.contains(narrow),
        (wide, narrow) => wide == narrow,
    }
}
