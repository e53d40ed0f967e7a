//! What requests cost and which answers change that, expanded.

use super::Lines;
use crate::limit::policy::{LARGEST_COST, Policy, Statuses, Terms};
use crate::units::Size;

pub(super) fn costs(out: &mut Lines, indent: usize, policy: &Policy) {
    let cost = &policy.cost;
    if cost.by_method.is_empty() && !cost.is_dynamic() {
        out.pair(indent, "cost", cost.default);
    } else {
        out.line(indent, "cost:");
        out.pair(indent + 2, "default", cost.default);
        for (method, cost) in &cost.by_method {
            out.pair(indent + 2, method.as_str(), cost);
        }
        for (key, name) in [("header", &cost.header), ("response_header", &cost.response_header)] {
            if let Some(name) = name {
                out.pair(indent + 2, key, name);
            }
        }
        if let Some(part) = cost.body {
            out.pair(indent + 2, "body", Size(part));
        }
        // Without one, no cost is cut.
        if cost.most < LARGEST_COST {
            out.pair(indent + 2, "max", cost.most);
        }
    }
    settling(out, indent, policy);
}

fn settling(out: &mut Lines, indent: usize, policy: &Policy) {
    let list = |ranges: &[Statuses]| ranges.iter().copied().map(statuses).collect::<Vec<_>>();
    if let Some(count) = &policy.settling.count {
        out.line(indent, "count:");
        out.list(indent + 2, "status", list(count));
    }
    if !policy.settling.refund.is_empty() || policy.settling.refund_failures {
        out.line(indent, "refund:");
        out.list(indent + 2, "status", list(&policy.settling.refund));
        out.pair(indent + 2, "upstream_failure", policy.settling.refund_failures);
    }
    let debts = if let Terms::Limited(limits) = &policy.terms { limits.as_slice() } else { &[] };
    if let (true, Some(limit)) = (policy.cost.may_grow(), debts.first()) {
        out.pair(indent, "max_debt", limit.algorithm.debt());
    }
}

/// `401`, `5xx` or `500-503`.
fn statuses(range: Statuses) -> String {
    match range {
        Statuses { first, last } if first == last => first.to_string(),
        Statuses { first, last } if first % 100 == 0 && last == first + 99 => format!("{}xx", first / 100),
        Statuses { first, last } => format!("{first}-{last}"),
    }
}
