//! Overrides of the file: other terms for single keys and address blocks.

use super::Check;
use super::terms::{Place, Stated};
use crate::config::file;
use crate::config::shape::Spanned;
use crate::config::values::{OverrideKey, network, without_host_bits};
use crate::limit::key::{self, Key, KeyPart};
use crate::limit::policy::{Missing, Override, OverrideMatch};

/// What the keys of overrides may stand for under a limit.
struct Naming {
    /// Values of these parts.
    parts: Vec<KeyPart>,
    /// Address blocks, where it counts by address or may do so for want of a key.
    by_address: bool,
}

impl Check<'_> {
    /// The overrides of a limit; none stands for anything where the limit's key could not be read.
    pub(super) fn overrides(&mut self, place: Place<'_>, key: Option<&Key>, missing: Missing) -> Option<Vec<Override>> {
        let Place { limit, state_id: name, .. } = place;
        let naming = key.map(|key| Naming::of(key, missing));
        let listed = limit.overrides.get().map(|list| list.0.as_slice()).unwrap_or_default();
        let mut overrides = Vec::new();
        let mut taken = Vec::new();
        for (position, given) in listed.iter().enumerate() {
            self.is_complete(given);
            let id = format!("{name}@{}", position + 1);
            let stated = Stated { rate: &given.rate, burst: &given.burst, in_flight: &given.in_flight };
            let terms = self.terms_of(stated, Place { state_id: &id, ..place });
            let matches = naming.as_ref().map(|naming| self.override_keys(given, naming, &taken)).unwrap_or_default();
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
        naming: &Naming,
        taken: &[OverrideMatch],
    ) -> Vec<OverrideMatch> {
        let mut matches = Vec::new();
        for key in given.key.get().into_iter().flat_map(|list| &list.0) {
            let Some(of_key) = self.override_key(key, naming) else { continue };
            if taken.iter().any(|other| covers(other, &of_key)) {
                self.warn(
                    key.span,
                    format!("`{}` never gets as far as here: an override above has it already", key.text),
                    "the first that matches wins: put the narrower one first",
                );
            }
            matches.push(of_key);
        }
        matches
    }

    /// An address or a block where the limit may count by address, else the value of one part. Never both:
    /// whoever writes an address into a field would pass for its owner.
    fn override_key(&mut self, key: &Spanned<OverrideKey>, naming: &Naming) -> Option<OverrideMatch> {
        let text = key.text.as_str();
        let block = key.network.or_else(|| network(text.strip_prefix(key::CLIENT_IP)?));
        if let (Some(block), true) = (block, naming.by_address) {
            if let Err(problem) = without_host_bits(block) {
                self.reader.error(key.span, problem);
            }
            return Some(OverrideMatch::Network(block));
        }
        if let Some((part, begin)) = key::part_of(&naming.parts, naming.by_address, text.as_bytes()) {
            return Some(OverrideMatch::Value { part: part.clone(), value: text[begin..].into() });
        }
        let (message, help) = naming.problem(text);
        self.error(key.span, message, help);
        None
    }
}

impl Naming {
    fn of(key: &Key, missing: Missing) -> Self {
        let own = key.parts.iter().flatten().any(|part| matches!(part, KeyPart::ClientIp { .. }));
        let for_want_of_a_key = matches!(missing, Missing::ClientIp { .. }) && key.may_be_missing();
        Self { parts: key.named_parts(), by_address: own || for_want_of_a_key }
    }

    /// What is wrong with a text that stands for nothing here, and the cure.
    fn problem(&self, text: &str) -> (String, String) {
        let (message, help) = match (self.parts.as_slice(), self.by_address) {
            ([], true) => (
                format!("`{text}` is not an address, and this limit counts by client address"),
                "write addresses or blocks, such as 10.20.0.0/16",
            ),
            ([], false) => (
                "all requests are one key here, and no override names it".to_owned(),
                "leave `overrides` out, or count by a key that tells requests apart",
            ),
            ([only], _) => {
                let help =
                    format!("write `{only}={text}` if it is one, else an address or a block such as 10.20.0.0/16");
                return (format!("`{text}` does not look like a value of `{only}`"), help);
            }
            (parts, _) => {
                let help = format!("say of which part: write {}", key::spellings(parts, text));
                return (format!("`{text}` could be the value of several parts of this limit's key"), help);
            }
        };
        (message, help.to_owned())
    }
}

/// Whether one entry matches whatever another does.
fn covers(wide: &OverrideMatch, narrow: &OverrideMatch) -> bool {
    match (wide, narrow) {
        (OverrideMatch::Network(wide), OverrideMatch::Network(narrow)) => wide.contains(narrow),
        (wide, narrow) => wide == narrow,
    }
}
