//! What a route makes of the target of its requests.

use http::HeaderValue;

use super::Check;
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Problem, Setting};
use crate::config::values::TemplateText;
use crate::route::pattern::Segment;
use crate::route::rewrite::{HostRewrite, PathRewrite, QueryEdits};
use crate::route::target::{canonical_host, canonical_path, comparable};
use crate::route::{Match, PathMatch, Rewrite, Template};

impl Check<'_> {
    pub(super) fn rewrite(&mut self, setting: &Setting<file::Rewrite>, matches: &Match) -> Rewrite {
        let Setting::Given { value: given, key } = setting else { return Rewrite::default() };
        let rewrite = Rewrite {
            path: self.path_rewrite(given, matches),
            query: self.query_rewrite(&given.query, matches),
            host: self.host_rewrite(&given.host),
        };
        let absent = [
            given.strip_prefix.is_absent(),
            given.add_prefix.is_absent(),
            given.path.is_absent(),
            given.regex.is_absent(),
            given.query.is_absent(),
            given.host.is_absent(),
        ];
        if !absent.contains(&false) && self.is_sound() {
            self.error(*key, "this rewrites nothing", "write `strip_prefix: /v1`, for example");
        }
        rewrite
    }

    fn path_rewrite(&mut self, given: &file::Rewrite, matches: &Match) -> PathRewrite {
        let prefix = given.strip_prefix.key().or(given.add_prefix.key());
        let ways = [prefix, given.path.key(), given.regex.key()];
        if let Some(second) = ways.into_iter().flatten().nth(1) {
            let help = "keep one: `strip_prefix` and `add_prefix`, or `path`, or `regex`";
            self.error(second, "the path is rewritten in two ways", help);
        }
        if let Setting::Given { value, key } = &given.regex {
            return self.regex_rewrite(value, *key);
        }
        if let Some(template) = given.path.spanned() {
            self.variables(&template.value.0, template.span, matches);
            self.path_template(&template.value, template.span);
            return PathRewrite::Replace(template.value.0.clone());
        }
        let strip = given.strip_prefix.get().map(|prefix| Box::from(prefix.0.as_str()));
        let add = given.add_prefix.get().map(|prefix| Box::from(prefix.0.as_str()));
        if let (Some(prefix), Some(span)) = (&strip, given.strip_prefix.spanned().map(|prefix| prefix.span)) {
            self.warn_about_prefix(prefix, span, matches);
        }
        if strip.is_none() && add.is_none() { PathRewrite::Keep } else { PathRewrite::Prefix { strip, add } }
    }

    /// What stands around the variables must be canonical, or they would not stand where they seem to.
    fn path_template(&mut self, template: &TemplateText, span: Span) {
        let text = template.0.sample();
        if !template.0.text().starts_with('/') {
            self.error(span, "a path begins with a slash", "write `/v2/{path.rest}`, for example");
        } else if text.contains(['?', '#']) {
            self.error(span, "this is more than a path", "parameters are set with `query: { set: { name: value } }`");
        } else if let Err(error) = canonical_path(&text) {
            self.reader.error(span, Problem::from(error));
        } else if canonical_path(&text).is_ok_and(|canonical| canonical.text != text) {
            let help = "write it without `//`, dot segments and needless percent-encodings";
            self.error(span, "this path is not in its canonical form", help);
        }
    }

    fn regex_rewrite(&mut self, given: &file::RegexRewrite, key: Span) -> PathRewrite {
        for (absent, name) in [(given.r#match.is_absent(), "match"), (given.replace.is_absent(), "replace")] {
            if absent {
                self.error(
                    key,
                    format!("`regex` has no `{name}`"),
                    "write `{ match: '^/v1/(.*)', replace: '/v2/$1' }`",
                );
            }
        }
        let (Some(pattern), Some(replace)) = (given.r#match.get(), given.replace.spanned()) else {
            return PathRewrite::Keep;
        };
        if let Some(group) = pattern.0.unknown_group(&replace.value) {
            let groups: Vec<_> = pattern.0.group_names().iter().map(|name| format!("${name}")).collect();
            let help = match groups.as_slice() {
                [] => "it has none: put `( )` around what is meant".to_owned(),
                groups => format!("there are {}; a name ends where letters, digits and `_` end", groups.join(", ")),
            };
            self.error(replace.span, format!("the pattern has no group `{group}`"), help);
        }
        if !replace.value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\')) {
            let help = "percent-encode other characters; parameters are set with `query: { set: … }`";
            self.error(
                replace.span,
                "a path holds only visible ASCII characters, without `?`, `#` and backslash",
                help,
            );
        }
        PathRewrite::Regex { pattern: pattern.0.clone(), replace: replace.value.as_str().into() }
    }

    fn query_rewrite(&mut self, setting: &Setting<file::QueryRewrite>, matches: &Match) -> QueryEdits {
        let Some(given) = setting.get() else { return QueryEdits::default() };
        let mut set: Vec<(Box<str>, Template)> = Vec::new();
        for (name, value) in given.set.get().iter().flat_map(|named| &named.0) {
            if let Some(value) = value.spanned() {
                self.variables(&value.value.0, value.span, matches);
                set.push((name.value.as_str().into(), value.value.0.clone()));
            } else if value.is_absent() {
                let message = format!("`{}` gets no value", name.value);
                self.error(name.span, message, "write one, or list the parameter in `remove`");
            }
        }
        let removed = given.remove.get().map(|list| list.0.as_slice()).unwrap_or_default();
        QueryEdits { set, remove: removed.iter().map(|name| name.value.as_str().into()).collect() }
    }

    fn host_rewrite(&mut self, setting: &Setting<String>) -> HostRewrite {
        let Some(given) = setting.spanned() else { return HostRewrite::Keep };
        if given.value == "upstream" {
            return HostRewrite::Upstream;
        }
        let host = canonical_host(&given.value).ok().filter(|host| !host.name.is_empty() && host.port != Some(0));
        let written = host
            .filter(|_| !given.value.ends_with(':'))
            .map(|host| host.port.map_or_else(|| host.name.to_string(), |port| format!("{}:{port}", host.name)));
        if let Some(host) = written.and_then(|host| HeaderValue::try_from(host).ok()) {
            return HostRewrite::Name(host);
        }
        let help = "write `upstream` for the server's own, or a name such as `api.internal`";
        self.error(given.span, format!("`{}` is not a host", given.value), help);
        HostRewrite::Keep
    }

    fn warn_about_prefix(&mut self, prefix: &str, span: Span, matches: &Match) {
        if !matches.paths.is_empty() && !matches.paths.iter().any(|path| may_begin_with(path, prefix)) {
            let message = format!("no path of this route begins with `{prefix}`, so nothing is stripped");
            self.warn(span, message, "strip what the path in `match` begins with");
        }
    }
}

/// Whether a path that matches can begin with these segments.
fn may_begin_with(path: &PathMatch, prefix: &str) -> bool {
    let PathMatch::Template(template) = path else { return true };
    let mut segments = template.segments.iter();
    prefix.split('/').skip(1).all(|wanted| match segments.next() {
        Some(Segment::Static(text)) => **text == *comparable(wanted),
        Some(Segment::Param(_)) => true,
        None => template.rest,
    })
}
