//! Requests and refusals over time, in a bounded number of steps that grow with the log, and their chart.

use std::fmt::Write as _;

use crate::cli::text;

/// Steps that are kept.
const STEPS: i64 = 1_024;

/// The first length of a step, microseconds.
const SHORTEST_US: i64 = 1_000;

/// Columns of a chart.
const COLUMNS: usize = 72;

/// Eighths of a character cell, from nothing to full.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Counts over time.
#[derive(Debug)]
pub(super) struct Timeline {
    /// When the first step begins.
    start_us: i64,
    step_us: i64,
    steps: Vec<Step>,
}

/// Counts of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) requests: u64,
    pub(super) limited: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { start_us: 0, step_us: SHORTEST_US, steps: Vec::new() }
    }
}

impl Timeline {
    /// One request; never earlier than the first.
    pub(super) fn add(&mut self, at_us: i64, limited: bool) {
        if self.steps.is_empty() {
            self.start_us = at_us.div_euclid(SHORTEST_US).saturating_mul(SHORTEST_US);
        }
        let since = at_us.saturating_sub(self.start_us).max(0);
        while since / self.step_us >= STEPS {
            self.coarsen();
        }
        let index = usize::try_from(since / self.step_us).unwrap_or(0);
        if index >= self.steps.len() {
            self.steps.resize(index + 1, Step::default());
        }
        self.steps[index].requests += 1;
        self.steps[index].limited += u64::from(limited);
    }

    /// Makes one step of two.
    fn coarsen(&mut self) {
        self.step_us = self.step_us.saturating_mul(2);
        self.steps = self.steps.chunks(2).map(Step::sum).collect();
    }

    /// Columns of a chart: when the first begins, how long each is, and what they hold.
    pub(super) fn columns(&self) -> (i64, i64, Vec<Step>) {
        let group = self.steps.len().div_ceil(COLUMNS).max(1);
        let length = self.step_us.saturating_mul(i64::try_from(group).unwrap_or(1));
        (self.start_us, length, self.steps.chunks(group).map(Step::sum).collect())
    }

    /// Two charts above one axis; nothing for a log of less than two columns.
    pub(super) fn chart(&self) -> String {
        let (start_us, length_us, columns) = self.columns();
        if columns.len() < 2 {
            return String::new();
        }
        let mut out = String::new();
        let requests: Vec<u64> = columns.iter().map(|step| step.requests).collect();
        let limited: Vec<u64> = columns.iter().map(|step| step.limited).collect();
        bars(&mut out, "requests", &requests, (5, "\x1b[36m"));
        if limited.iter().any(|count| *count > 0) {
            bars(&mut out, "limited", &limited, (3, "\x1b[31m"));
        }
        let end_us = start_us.saturating_add(length_us.saturating_mul(i64::try_from(columns.len()).unwrap_or(0)));
        let form = axis_form(end_us - start_us);
        let (from, to) = (text::zoned(start_us, form), text::zoned(end_us, form));
        let room = columns.len().saturating_sub(from.len() + to.len()).max(1);
        let each = text::span(length_us.unsigned_abs());
        let _ = writeln!(out, "{:>17} {from}{:room$}{to} UTC, one column each {each}", "", "");
        out
    }
}

/// How instants are written below a chart of this length.
fn axis_form(span_us: i64) -> &'static str {
    match span_us {
        ..600_000_000 => "%H:%M:%S",
        600_000_000..86_400_000_000 => "%H:%M",
        _ => "%d %b %H:%M",
    }
}

/// A bar chart of so many rows, in this colour, its highest value beside it.
fn bars(out: &mut String, title: &str, values: &[u64], (rows, colour): (u64, &str)) {
    let highest = values.iter().copied().max().unwrap_or(0).max(1);
    // Whatever is not nothing shows.
    let eighths = |value: u64| {
        let exact = u128::from(value) * u128::from(rows) * 8 / u128::from(highest);
        u64::try_from(exact).unwrap_or(0).max(u64::from(value > 0))
    };
    for row in (0..rows).rev() {
        let (name, value) = match row {
            top if top + 1 == rows => (title, text::number(highest)),
            0 => ("", "0".to_owned()),
            _ => ("", String::new()),
        };
        let _ = write!(out, "{name:<9}{value:>7} \x1b[2m┤\x1b[0m{colour}");
        out.extend(values.iter().map(|value| {
            let filled = eighths(*value).saturating_sub(row * 8).min(8);
            BLOCKS[usize::try_from(filled).unwrap_or(0)]
        }));
        out.push_str("\x1b[0m\n");
    }
}

impl Step {
    fn sum(steps: &[Self]) -> Self {
        steps.iter().fold(Self::default(), |sum, step| Self {
            requests: sum.requests + step.requests,
            limited: sum.limited + step.limited,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_with_the_log_and_lose_nothing() {
        let mut timeline = Timeline::default();
        for second in 0..100_000_i64 {
            timeline.add(1_700_000_000_000_000 + second * 1_000_000, second % 10 == 0);
        }
        assert!(timeline.steps.len() <= 1_024, "{}", timeline.steps.len());
        let (_, length, columns) = timeline.columns();
        assert!(columns.len() <= COLUMNS && length > 0);
        assert_eq!(Step::sum(&columns), Step { requests: 100_000, limited: 10_000 });
    }

    #[test]
    fn a_leap_of_a_century_is_drawn_too() {
        let mut timeline = Timeline::default();
        timeline.add(0, false);
        timeline.add(3_155_760_000_000_000, true);
        let chart = timeline.chart();
        assert!(chart.lines().count() == 9 && chart.contains("requests"), "{chart}");
    }
}
