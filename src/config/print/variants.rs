//! What else may hold for a limit's keys, in the file's own format.

use super::{Lines, key_choice, only_terms, quoted};
use crate::limit::policy::Policy;

pub(super) fn tiers(out: &mut Lines, indent: usize, policy: &Policy) {
    let Some(tiers) = &policy.tiers else { return };
    out.line(indent, "tiers:");
    out.pair(indent + 2, "by", quoted(&key_choice(&tiers.by)));
    out.line(indent + 2, "values:");
    for tier in &tiers.values {
        out.line(indent + 4, format_args!("{}:", quoted(&tier.name)));
        only_terms(out, indent + 6, &tier.terms);
    }
}
