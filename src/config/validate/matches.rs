//! What a route matches.

use http::{HeaderName, HeaderValue};

use super::Check;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Named, OneOrMany, Setting, Short, Spanned, Word};
use crate::config::values::PlainText;
use crate::route::{Match, PathMatch, Wanted};

/// Conditions by name, as they are written.
type Conditions = Setting<Named<Short<PlainText, file::Condition>>>;

impl Check<'_> {
    pub(super) fn matches(&mut self, setting: &Setting<file::Match>) -> Match {
        let Some(given) = setting.get() else { return Match::default() };
        for method in given.method.get().into_iter().flat_map(|list| &list.0) {
            self.warn_about_method(&method.value, method.span);
        }
        let paths = given.path.get().map(|list| list.0.as_slice()).unwrap_or_default();
        Match {
            hosts: values(&given.host),
            paths: paths.iter().filter_map(|path| self.path_condition(path)).collect(),
            methods: values(&given.method),
            headers: self.headers(&given.headers),
            query: self.query(&given.query),
        }
    }

    fn path_condition(
        &mut self,
        path: &Spanned<Short<crate::route::PathTemplate, file::PathKeys>>,
    ) -> Option<PathMatch> {
        match &path.value {
            Short::Short(template) => {
                self.warn_about_colon(&template.text, path.span);
                Some(PathMatch::Template(template.clone()))
            }
            Short::Long(keys) => {
                if keys.regex.is_absent() {
                    self.error(path.span, "this path says nothing", "write `regex: '/v[0-9]+/…'`, or a path");
                }
                keys.regex.get().map(|regex| PathMatch::Regex(regex.0.clone()))
            }
        }
    }

    /// Frameworks write `:id` for a parameter.
    fn warn_about_colon(&mut self, template: &str, span: Span) {
        let named = |segment: &&str| {
            segment.strip_prefix(':').is_some_and(|name| name.starts_with(|first: char| first.is_ascii_alphabetic()))
        };
        if let Some(segment) = template.split('/').find(named) {
            let meant = template.split('/').map(|segment| match segment.strip_prefix(':') {
                Some(name) if named(&segment) => format!("{{{name}}}"),
                _ => segment.to_owned(),
            });
            let meant = meant.collect::<Vec<_>>().join("/");
            let message = format!("only requests with the text `{segment}` in this place fit: parameters have braces");
            self.warn(span, message, format!("did you mean `{meant}`?"));
        }
    }

    fn headers(&mut self, conditions: &Conditions) -> Vec<(HeaderName, Wanted)> {
        let mut fields = Vec::new();
        for (name, condition) in conditions.get().iter().flat_map(|named| &named.0) {
            let wanted = self.wanted(name, condition);
            let text = condition.get().and_then(|one| if let Short::Short(text) = one { Some(&text.0) } else { None });
            if let Some(span) = condition.spanned().map(|given| given.span)
                && text.is_some_and(|text| HeaderValue::from_str(text).is_err())
            {
                let message = "a field's value cannot hold control characters or line ends";
                self.error(span, message, "write it on one line");
            }
            match <HeaderName as Word>::parse(&name.value) {
                Ok(field) => fields.extend(wanted.map(|wanted| (field, wanted))),
                Err(problem) => self.reader.error(name.span, problem),
            }
        }
        fields
    }

    fn query(&mut self, conditions: &Conditions) -> Vec<(Box<str>, Wanted)> {
        let named = conditions.get().map(|named| named.0.as_slice()).unwrap_or_default();
        let each = named.iter();
        each.filter_map(|(name, condition)| Some((name.value.as_str().into(), self.wanted(name, condition)?))).collect()
    }

    /// What one condition says.
    fn wanted(
        &mut self,
        name: &Spanned<String>,
        condition: &Setting<Short<PlainText, file::Condition>>,
    ) -> Option<Wanted> {
        let keys = match condition {
            Setting::Given { value, .. } => match &value.value {
                Short::Short(text) => return Some(Wanted::Exactly(text.0.as_bytes().into())),
                Short::Long(keys) => keys,
            },
            Setting::Invalid => return None,
            Setting::Absent => {
                let message = format!("`{}` has no value to compare with", name.value);
                self.error(name.span, message, "write `x-api-version: \"2\"`, or `{ present: true }`");
                return None;
            }
        };
        match (&keys.present, &keys.regex) {
            (Setting::Given { value, .. }, Setting::Absent) if value.value => Some(Wanted::Present),
            (Setting::Given { .. }, Setting::Absent) => Some(Wanted::Absent),
            (Setting::Absent, Setting::Given { value, .. }) => Some(Wanted::Fits(value.value.0.clone())),
            (Setting::Invalid, _) | (_, Setting::Invalid) => None,
            _ => {
                let message = format!("of `present` and `regex` one must stand below `{}`", name.value);
                self.error(name.span, message, "a value that fits a regular expression is present");
                None
            }
        }
    }
}

/// The values of a list, without their places.
fn values<T: Clone>(setting: &Setting<OneOrMany<T>>) -> Vec<T> {
    setting.get().iter().flat_map(|list| &list.0).map(|item| item.value.clone()).collect()
}
