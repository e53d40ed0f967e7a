//! An account as text for people.

use std::fmt::Write as _;

use crate::cli::text::span;
use crate::explain::account::{Account, LimitAccount};

/// Routes passed over that are listed; the rest are counted.
const SHOWN: usize = 20;

/// The whole account.
pub(super) fn text(account: &Account) -> String {
    let Account { method, host, path, client, .. } = account;
    let mut text = format!("request   {method} {host}{path} from {client}\n");
    route(account, &mut text);
    for (index, limit) in account.limits.iter().enumerate() {
        text.push_str(if index == 0 { "limits    " } else { "          " });
        describe(limit, &mut text);
    }
    if account.limits.is_empty() && account.route.is_some() {
        text.push_str("limits    none\n");
    }
    match &account.refused {
        Some(refused) => drop(writeln!(text, "answer    {}: {}", refused.status, refused.reason)),
        None => text.push_str("\nNothing was sent or counted.\n"),
    }
    text
}

/// The route, where it leads, and the routes passed over.
fn route(account: &Account, text: &mut String) {
    if let Some(route) = &account.route {
        let _ = writeln!(text, "route     {} ({})", route.name, route.conditions);
        for (name, value) in &route.params {
            let _ = writeln!(text, "          {{{name}}} = {value}");
        }
        if let Some(upstream) = &route.upstream {
            let _ = writeln!(text, "upstream  {upstream} ({})", route.servers.join(", "));
        }
        for (title, effect) in route.effects.lines() {
            let _ = writeln!(text, "{title:<9} {effect}");
        }
    }
    for (index, other) in account.others.iter().take(SHOWN).enumerate() {
        let title = if index == 0 { "not" } else { "" };
        let _ = writeln!(text, "{title:<9} {} ({}): {}", other.name, other.conditions, other.reason);
    }
    if account.others.len() > SHOWN {
        let _ = writeln!(text, "          and {} more (all with --format json)", account.others.len() - SHOWN);
    }
}

/// One limit, on two or three lines.
fn describe(limit: &LimitAccount, text: &mut String) {
    let _ = writeln!(text, "{}: {}", limit.name, limit.meaning);
    let _ = write!(text, "            {}", limit.effect);
    if let Some(key) = &limit.key {
        let _ = write!(text, " under {key}");
    }
    if let Some(cost) = limit.cost {
        let _ = write!(text, " at cost {cost}");
    }
    if let Some(because) = &limit.because {
        let _ = write!(text, "; {because}");
    }
    text.push('\n');
    for left in &limit.now {
        let rate = left.rate.as_deref().map(|rate| format!(" ({rate})")).unwrap_or_default();
        let _ = write!(text, "            now: {} of {} left{rate}", left.remaining, left.burst);
        match left.reset_ms {
            0 => text.push('\n'),
            ms => drop(writeln!(text, ", full again in {}", span(ms.saturating_mul(1000)))),
        }
    }
    for note in &limit.notes {
        let _ = writeln!(text, "            note: {note}");
    }
}
