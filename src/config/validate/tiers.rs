//! Tiers: other terms by plan or by any other part of a key.

use super::terms::{Place, Stated};
use super::{Check, Reported};
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{OneOrMany, Setting, Short, Spanned, Word};
use crate::config::values::{Allowance, KeyChoice, LimitName};
use crate::limit::key::KeyPart;
use crate::limit::policy::{Terms, Tier, Tiers};

/// One tier as written.
type Written = Setting<Short<OneOrMany<Allowance>, file::TierTerms>>;

impl Check<'_> {
    /// The tiers of a limit, if it has any.
    pub(super) fn tiers(&mut self, place: Place<'_>, ipv6_prefix: u8) -> Result<Option<Tiers>, Reported> {
        match &place.limit.tiers {
            Setting::Absent => Ok(None),
            Setting::Invalid => Err(Reported),
            Setting::Given { value, key } => {
                self.given_tiers(&value.value, *key, place, ipv6_prefix).map(Some).ok_or(Reported)
            }
        }
    }

    fn given_tiers(&mut self, given: &file::Tiers, key: Span, place: Place<'_>, ipv6_prefix: u8) -> Option<Tiers> {
        let by = self.tier_key(given, key, place);
        let named = given.values.get().map(|named| named.0.as_slice()).unwrap_or_default();
        if named.is_empty() && !matches!(given.values, Setting::Invalid) {
            let span = given.values.key().unwrap_or(key);
            self.error(span, "there is no tier", "write `values: { pro: 5000/m, partner: unlimited }`, for example");
        }
        let mut values = Vec::new();
        for (name, tier) in named {
            values.push(self.tier(name, tier, place));
        }
        let by = by?.value.live(ipv6_prefix);
        Some(Tiers { by, values: values.into_iter().collect::<Option<_>>()? })
    }

    /// What tells tiers apart.
    fn tier_key<'t>(&mut self, given: &'t file::Tiers, key: Span, place: Place<'_>) -> Option<&'t Spanned<KeyChoice>> {
        if given.by.is_absent() {
            self.error(key, "nothing says what these tiers go by", "write `by: header:x-plan`, for example");
        }
        let by = given.by.spanned()?;
        for part in &by.value.0 {
            self.key_part(part, by.span, place.scope);
            if matches!(part, KeyPart::ClientIp { .. } | KeyPart::Global) {
                self.error(
                    by.span,
                    format!("`{part}` has no value that a tier could be named after"),
                    "write overrides for addresses; tiers go by a field, a cookie, a parameter, the host or the method",
                );
            }
        }
        Some(by)
    }

    fn tier(&mut self, name: &Spanned<String>, written: &Written, place: Place<'_>) -> Option<Tier> {
        if let Err(problem) = <LimitName as Word>::parse(&name.value) {
            self.reader.error(name.span, problem);
            return None;
        }
        // Overrides are numbered behind one `@`; no name holds another.
        let state_id = format!("{}@@{}", place.state_id, name.value);
        let terms = self.tier_terms(name, written, Place { state_id: &state_id, ..place })?;
        Some(Tier { name: name.value.as_str().into(), terms })
    }

    fn tier_terms(&mut self, name: &Spanned<String>, written: &Written, place: Place<'_>) -> Option<Terms> {
        let no_rate = |check: &mut Self| {
            let message = format!("the tier `{}` has no rate", name.value);
            check.error(name.span, message, "write a rate, `0/s` or `unlimited`");
            None
        };
        match written {
            Setting::Invalid => None,
            Setting::Absent => no_rate(self),
            Setting::Given { value, key } => match &value.value {
                Short::Short(rates) => {
                    let rate = Spanned { value: rates.clone(), span: value.span };
                    let rate = Setting::Given { value: rate, key: *key };
                    let none = Setting::Absent;
                    self.terms_of(Stated { rate: &rate, burst: &none, in_flight: &none }, place)
                }
                Short::Long(tier) if tier.rate.is_absent() && tier.in_flight.is_absent() => no_rate(self),
                Short::Long(tier) => {
                    let stated = Stated { rate: &tier.rate, burst: &tier.burst, in_flight: &tier.in_flight };
                    self.terms_of(stated, place)
                }
            },
        }
    }
}
