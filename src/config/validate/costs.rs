//! What requests cost, and which answers change that.

use http::{HeaderName, Method};

use super::Check;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Problem, Setting, Short, Spanned, Word};
use crate::config::values::{CostText, StatusRange};
use crate::limit::policy::{Cost, LARGEST_COST, Settling, Statuses};
use crate::units::Size;

/// The keys of a cost that are no methods.
const KEYS: [&str; 5] = ["default", "header", "body", "response_header", "max"];

impl Check<'_> {
    pub(super) fn cost(&mut self, limit: &Spanned<file::Limit>) -> Cost {
        let mut cost = Cost::fixed(1);
        let Some(given) = limit.cost.spanned() else { return cost };
        match &given.value {
            Short::Short(number) => cost.default = self.one_cost(*number, given.span),
            Short::Long(named) => {
                for (name, value) in &named.0 {
                    if let Some(value) = value.spanned() {
                        self.cost_of(&mut cost, name, value);
                    }
                }
            }
        }
        cost
    }

    /// One entry of a cost.
    fn cost_of(&mut self, cost: &mut Cost, name: &Spanned<String>, value: &Spanned<CostText>) {
        let text = &value.0;
        match name.value.as_str() {
            "default" => cost.default = self.cost_number(value).unwrap_or(1),
            "max" => cost.most = self.cost_number(value).unwrap_or(LARGEST_COST),
            "header" => cost.header = self.worded::<HeaderName>(text, value.span),
            "response_header" => cost.response_header = self.worded::<HeaderName>(text, value.span),
            "body" => {
                let part = self.worded::<Size>(text, value.span);
                if part == Some(Size(0)) {
                    self.error(value.span, "a part of 0 bytes has no cost", "write a size such as 64KiB");
                }
                cost.body = part.map(|part| part.0.max(1));
            }
            method => match <Method as Word>::parse(method) {
                Ok(method) => {
                    self.warn_about_method(&method, name.span);
                    cost.by_method.extend(self.cost_number(value).map(|number| (method, number)));
                }
                Err(mut problem) => {
                    if let Some(near) = crate::config::shape::nearest(method, KEYS.into_iter()) {
                        problem.help = Some(format!("did you mean `{near}`?"));
                    }
                    self.reader.error(name.span, problem);
                }
            },
        }
    }

    fn cost_number(&mut self, value: &Spanned<CostText>) -> Option<u64> {
        let number = self.worded::<u64>(&value.0, value.span)?;
        Some(self.one_cost(number, value.span))
    }

    /// A text of a kind that its key decides.
    fn worded<T: Word>(&mut self, text: &str, span: Span) -> Option<T> {
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.reader.error(span, problem);
                None
            }
        }
    }

    fn one_cost(&mut self, cost: u64, span: Span) -> u64 {
        if cost > LARGEST_COST {
            self.error(span, format!("a cost of {cost} is too large"), format!("write 0 to {LARGEST_COST}"));
        }
        cost.min(LARGEST_COST)
    }

    /// Which answers give a charge back.
    pub(super) fn settling(&mut self, limit: &Spanned<file::Limit>, cost: &Cost) -> Settling {
        let settling = Settling {
            count: limit.count.get().map(|count| ranges(&count.status)),
            refund: limit.refund.get().map(|refund| ranges(&refund.status)).unwrap_or_default(),
            refund_failures: limit.refund.get().is_some_and(|refund| refund.upstream_failure.or(false)),
        };
        self.some_answer(limit, &settling);
        self.warn_about_uncounted(limit, &settling);
        if !limit.in_flight.is_absent() {
            for (key, name) in [(limit.count.key(), "count"), (limit.refund.key(), "refund")] {
                if let Some(key) = key {
                    let message = format!("`{name}` has no meaning for requests in flight");
                    self.error(key, message, "leave it out: a place is given back when the request ends");
                }
            }
            if cost.is_dynamic()
                && let Some(key) = limit.cost.key()
            {
                self.error(key, "each request in flight takes one place", "write costs of 0 or 1");
            }
        }
        self.warn_about_debt(limit, cost);
        settling
    }

    /// Rules for answers must name some. A status that could not be read was reported already.
    fn some_answer(&mut self, limit: &Spanned<file::Limit>, settling: &Settling) {
        let is_wrong = |status: &Setting<_>| matches!(status, Setting::Invalid);
        let count = limit.count.get().is_some_and(|count| !is_wrong(&count.status));
        let refund = limit.refund.get().is_some_and(|refund| !is_wrong(&refund.status)) && !settling.refund_failures;
        for (key, list, name) in [
            (limit.count.key().filter(|_| count), settling.count.as_deref().unwrap_or_default(), "count"),
            (limit.refund.key().filter(|_| refund), settling.refund.as_slice(), "refund"),
        ] {
            if let (Some(key), []) = (key, list) {
                self.error(key, format!("`{name}` names no answer"), "write `status: [401, 403]`, for example");
            }
        }
    }

    /// Answers that count only to be given back.
    fn warn_about_uncounted(&mut self, limit: &Spanned<file::Limit>, settling: &Settling) {
        let refunded = |status: u16| settling.refund.iter().any(|range| (range.first..=range.last).contains(&status));
        let mut counted = settling.count.iter().flatten().flat_map(|range| range.first..=range.last).peekable();
        if let (Some(key), Some(_)) = (limit.refund.key(), counted.peek())
            && counted.all(refunded)
        {
            self.warn(
                key,
                "no answer of the upstream counts: `refund` gives back all that `count` names",
                "name the answers to count in `count` alone, or those to give back in `refund` alone",
            );
        }
    }

    /// A method of nobody's that reads like one of HTTP's (RFC 9110, section 9, and RFC 5789).
    pub(super) fn warn_about_method(&mut self, method: &Method, span: Span) {
        const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
        let near = crate::config::shape::nearest(method.as_str(), KNOWN.into_iter());
        if let Some(near) = near.filter(|_| !KNOWN.contains(&method.as_str())) {
            let message = format!("HTTP knows no method `{method}`: only requests that are called so have it");
            self.warn(span, message, format!("did you mean `{near}`?"));
        }
    }

    fn warn_about_debt(&mut self, limit: &Spanned<file::Limit>, cost: &Cost) {
        if let Some(key) = limit.max_debt.key()
            && !cost.may_grow()
        {
            let help = "leave it out, or add `response_header` or `body` to the `cost`";
            self.error(key, "`max_debt` belongs to a cost that is known only afterwards", help);
        }
    }

    /// How far charges after the answer may go below empty: the whole capacity, unless the file says otherwise.
    pub(super) fn debt(limit: &Spanned<file::Limit>, cost: &Cost, capacity: u64) -> u64 {
        if cost.may_grow() { limit.max_debt.or(capacity) } else { 0 }
    }
}

fn ranges(setting: &Setting<crate::config::shape::OneOrMany<StatusRange>>) -> Vec<Statuses> {
    setting.get().iter().flat_map(|list| &list.0).map(|item| item.value.0).collect()
}

impl Word for CostText {
    fn parse(text: &str) -> Result<Self, Problem> {
        Ok(Self(text.to_owned()))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": ["integer", "string"], "minimum": 0 })
    }
}
