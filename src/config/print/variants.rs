//! What else may hold for a limit's keys, in the file's own format.

use super::limit::key_choice;
use super::{Lines, quoted, terms};
use crate::limit::policy::Policy;
use crate::limit::schedule::ClockText;
use crate::units::DurationText;

pub(super) fn tiers(out: &mut Lines, indent: usize, policy: &Policy) {
    let Some(tiers) = &policy.tiers else { return };
    out.line(indent, "tiers:");
    out.pair(indent + 2, "by", quoted(&key_choice(&tiers.by)));
    out.line(indent + 2, "values:");
    for tier in &tiers.values {
        out.line(indent + 4, format_args!("{}:", quoted(&tier.name)));
        terms::only(out, indent + 6, &tier.terms);
    }
}

pub(super) fn schedules(out: &mut Lines, indent: usize, policy: &Policy) {
    let Some(schedules) = &policy.schedules else { return };
    out.line(indent, "schedules:");
    for schedule in &schedules.list {
        let hours = &schedule.hours;
        out.line(indent + 2, format_args!("- name: {}", quoted(&schedule.name)));
        out.list(indent + 4, "days", hours.days.names().map(str::to_owned));
        out.pair(indent + 4, "from", quoted(&ClockText(hours.from).to_string()));
        out.pair(indent + 4, "to", quoted(&ClockText(hours.to).to_string()));
        out.pair(indent + 4, "timezone", quoted(schedules.zone.name()));
        terms::only(out, indent + 4, &schedule.terms);
    }
}

pub(super) fn dynamic_overrides(out: &mut Lines, indent: usize, policy: &Policy) {
    let Some(rules) = &policy.dynamic else { return };
    out.line(indent, "dynamic_overrides:");
    match rules.max_rate {
        Some(rate) => out.pair(indent + 2, "max_rate", rate),
        None => out.pair(indent + 2, "max_rate", "unlimited"),
    }
    if let Some(burst) = rules.max_burst {
        out.pair(indent + 2, "max_burst", burst);
    }
    out.pair(indent + 2, "max_ttl", DurationText(rules.max_ttl));
}
