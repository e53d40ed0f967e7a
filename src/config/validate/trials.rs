//! Tests of the limits: from the file's words to what can be run.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};

use super::Check;
use super::routes::Places;
use crate::config::file::{self, File};
use crate::config::shape::{Named, OneOrMany, Setting, Spanned, Word, nearest};
use crate::config::trial::{Answer, Expectation, RetryAfter, Sending, Trial};
use crate::config::values;

/// The most requests of one test.
const LARGEST: u64 = 1_000_000;

impl Check<'_> {
    /// Every test that is complete.
    pub(super) fn trials(&mut self, file: &File, places: &Places) -> Vec<Trial> {
        let mut trials: Vec<Trial> = Vec::new();
        for given in file.tests.get().iter().flat_map(|list| &list.0) {
            if let Some(trial) = self.trial(given, places) {
                if trials.iter().any(|other| other.name == trial.name) {
                    let span = given.name.spanned().map_or(given.span, |name| name.span);
                    self.error(span, format!("there is a test `{}` already", trial.name), "give each its own name");
                }
                trials.push(trial);
            }
        }
        trials
    }

    fn trial(&mut self, given: &Spanned<file::Trial>, places: &Places) -> Option<Trial> {
        for (absent, what, help) in [
            (given.name.is_absent(), "name", "write `name: what it shows`"),
            (given.send.is_absent(), "`send`", "write `send: { count: 20, url: /login }`, for example"),
            (given.expect.is_absent(), "`expect`", "write `expect: { allowed: 5 }`, for example"),
        ] {
            if absent {
                self.error(given.span, format!("this test has no {what}"), help);
            }
        }
        let sends = self.sends(&given.send);
        let total = sends.iter().map(|send| send.count).fold(0, u64::saturating_add);
        let expect = self.expectation(&given.expect, places, total);
        Some(Trial { name: given.name.get()?.as_str().into(), sends, expect: expect? })
    }

    fn sends(&mut self, setting: &Setting<OneOrMany<file::Sending>>) -> Vec<Sending> {
        let listed = setting.get().map(|list| list.0.as_slice()).unwrap_or_default();
        if let (Some(key), []) = (setting.key(), listed) {
            self.error(key, "this test sends nothing", "write `send: { count: 20, url: /login }`, for example");
        }
        let sends: Vec<_> = listed.iter().map(|given| self.sending(given)).collect();
        let total = sends.iter().map(|send| send.count).fold(0, u64::saturating_add);
        if let (true, Some(key)) = (total > LARGEST, setting.key()) {
            self.error(key, format!("{total} requests are too many for a test"), format!("send up to {LARGEST}"));
        }
        sends
    }

    fn sending(&mut self, given: &file::Sending) -> Sending {
        let count = self.number(&given.count, 1, 1..=LARGEST);
        Sending {
            count: count as u64,
            method: given.method.get().cloned().unwrap_or(Method::GET),
            uri: given.url.get().map_or(Uri::from_static("/"), |url| url.0.clone()),
            client: given.from.or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            headers: self.fields(&given.headers),
            claims: given.jwt_claims.get().map(|claims| claims.0.clone()).unwrap_or_default(),
            tls_subject: given.tls_subject.get().map(|subject| subject.as_str().into()),
            at: given.at.or(Duration::ZERO),
            every: given.every.or(Duration::ZERO),
            answer: self.answer(&given.respond),
        }
    }

    /// What is known of the upstream's answer.
    fn answer(&mut self, setting: &Setting<file::Answer>) -> Option<Answer> {
        let given = setting.get()?;
        if let (true, true, Some(key)) = (given.status.is_absent(), given.headers.is_absent(), setting.key()) {
            self.error(key, "this answer says nothing", "write `status: 401`, for example");
        }
        Some(Answer {
            status: given.status.get().map_or(StatusCode::OK, |status| status.0),
            headers: self.fields(&given.headers),
        })
    }

    fn fields(&mut self, setting: &Setting<Named<values::HeaderText>>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in setting.get().iter().flat_map(|named| &named.0) {
            match <HeaderName as Word>::parse(&name.value) {
                Ok(field) => drop(value.get().map(|value| headers.append(field, value.0.clone()))),
                Err(problem) => self.reader.error(name.span, problem),
            }
        }
        headers
    }

    fn expectation(
        &mut self,
        setting: &Setting<file::Expectation>,
        places: &Places,
        total: u64,
    ) -> Option<Expectation> {
        let given = setting.get()?;
        let expect = Expectation {
            allowed: given.allowed.get().copied(),
            denied: given.denied.get().copied(),
            retry_after: given.retry_after.get().map(|retry| match retry {
                values::RetryAfter::Seconds(seconds) => RetryAfter::Seconds(*seconds),
                values::RetryAfter::Never => RetryAfter::Never,
            }),
            denied_by: self.denying(&given.denied_by, places),
            remaining: given.remaining.get().copied(),
            longest_wait: given.longest_wait.get().copied(),
        };
        let empty = given.allowed.is_absent()
            && given.denied.is_absent()
            && given.retry_after.is_absent()
            && given.denied_by.is_absent()
            && given.remaining.is_absent()
            && given.longest_wait.is_absent();
        if let (true, Some(key)) = (empty, setting.key()) {
            self.error(key, "this test expects nothing, and cannot fail", "write `allowed: 5`, for example");
        }
        self.sums(given, total);
        Some(expect)
    }

    /// Numbers that no outcome can have.
    fn sums(&mut self, given: &file::Expectation, total: u64) {
        for setting in [&given.allowed, &given.denied] {
            if let Some(number) = setting.spanned()
                && number.value > total
            {
                let help = format!("write 0 to {total}, or a larger `count`");
                self.error(number.span, format!("the test sends only {total}"), help);
                return;
            }
        }
        if let (Some(allowed), Some(denied)) = (given.allowed.spanned(), given.denied.spanned())
            && allowed.value + denied.value != total
        {
            self.error(
                denied.span,
                format!("{} allowed and {} denied are not the {total} that are sent", allowed.value, denied.value),
                format!("write `denied: {}`", total - allowed.value),
            );
        }
    }

    /// The limits that may deny; each must exist.
    fn denying(&mut self, setting: &Setting<OneOrMany<String>>, places: &Places) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for given in setting.get().iter().flat_map(|list| &list.0) {
            if places.policy(&given.value).is_some() {
                names.push(given.value.as_str().into());
                continue;
            }
            let known = places.policies();
            let help = nearest(&given.value, known.iter().copied()).map_or_else(
                || format!("the limits are: {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.error(given.span, format!("there is no limit `{}`", given.value), help);
        }
        names
    }
}
