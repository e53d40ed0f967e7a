//! What other proxies write for a variable: `$host` (nginx), `%REQ(X-User)%` (Envoy).

use super::{ALIASES, PLAIN, Part, Template};

/// Envoy's operators without arguments, and what they are here.
const OPERATORS: [(&str, &str); 8] = [
    ("DOWNSTREAM_REMOTE_ADDRESS", "client_ip"),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "client_ip"),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "client_ip"),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "client_ip"),
    ("DOWNSTREAM_PEER_SUBJECT", "tls.subject"),
    ("REQUESTED_SERVER_NAME", "host"),
    ("ROUTE_NAME", "route"),
    ("STREAM_ID", "request_id"),
];

/// Fields of a request that are variables of their own.
const FIELDS: [(&str, &str); 6] = [
    (":authority", "host"),
    (":method", "method"),
    (":path", "path"),
    (":scheme", "scheme"),
    ("host", "host"),
    ("x-request-id", "request_id"),
];

impl Template {
    /// Something that other proxies write for a variable, such as `$host`, and what it is here, where it is anything.
    #[must_use]
    pub fn foreign_variable(&self) -> Option<(String, Option<String>)> {
        let mut texts =
            self.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(&**text) } else { None });
        texts.find_map(|text| nginx(text).or_else(|| envoy(text)))
    }
}

/// `$name`, where the name is one that we know.
fn nginx(text: &str) -> Option<(String, Option<String>)> {
    let mut names = text.split('$').skip(1).map(|after| {
        let end = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        &after[..end]
    });
    let plain = PLAIN.iter().map(|(name, _)| (*name, *name));
    let known: Vec<_> = plain.chain(ALIASES).collect();
    let found = names.find_map(|name| known.iter().find(|(foreign, _)| *foreign == name));
    found.map(|(foreign, meant)| (format!("${foreign}"), Some(format!("{{{meant}}}"))))
}

/// `%OPERATOR%` or `%OPERATOR(arguments)%`.
fn envoy(text: &str) -> Option<(String, Option<String>)> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        rest = after;
        let end = after.bytes().take_while(|byte| byte.is_ascii_uppercase() || *byte == b'_').count();
        let (operator, behind) = after.split_at(end);
        let arguments = behind.strip_prefix('(').and_then(|behind| behind.split_once(")%")).map(|(inner, _)| inner);
        if operator.len() < 3 || (arguments.is_none() && !behind.starts_with('%')) {
            continue;
        }
        let meant = meant(operator, arguments);
        // Without arguments it may be a word between two percentages, unless we know it.
        if let Some(arguments) = arguments {
            return Some((format!("%{operator}({arguments})%"), meant));
        } else if meant.is_some() {
            return Some((format!("%{operator}%"), meant));
        }
    }
    None
}

fn meant(operator: &str, arguments: Option<&str>) -> Option<String> {
    if operator != "REQ" {
        let known = OPERATORS.iter().find(|(foreign, _)| *foreign == operator);
        return known.map(|(_, meant)| format!("{{{meant}}}"));
    }
    // `FIRST?OTHER:LENGTH`.
    let name = arguments?.split('?').next()?.to_ascii_lowercase();
    let name = name.get(1..).and_then(|rest| rest.find(':')).map_or(name.as_str(), |end| &name[..=end]);
    let own = FIELDS.iter().find(|(field, _)| *field == name).map(|(_, meant)| format!("{{{meant}}}"));
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    own.or_else(|| (!name.is_empty() && name.bytes().all(is_token)).then(|| format!("{{header.{name}}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, Option<String>)> {
        Template::parse(text).unwrap().foreign_variable()
    }

    #[test]
    fn variables_of_other_proxies_are_recognised() {
        for (text, written, meant) in [
            ("$host", "$host", Some("{host}")),
            ("a $remote_addr b", "$remote_addr", Some("{client_ip}")),
            ("%REQ(X-User)%", "%REQ(X-User)%", Some("{header.x-user}")),
            ("https://%REQ(:AUTHORITY)%/a", "%REQ(:AUTHORITY)%", Some("{host}")),
            (
                "%REQ(X-Forwarded-Host?:AUTHORITY)%",
                "%REQ(X-Forwarded-Host?:AUTHORITY)%",
                Some("{header.x-forwarded-host}"),
            ),
            ("%REQ(X-Long:10)%", "%REQ(X-Long:10)%", Some("{header.x-long}")),
            (
                "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                Some("{client_ip}"),
            ),
            ("{path} %START_TIME(%s)%", "%START_TIME(%s)%", None),
            ("5% or %ROUTE_NAME%", "%ROUTE_NAME%", Some("{route}")),
            ("%START_TIME(s)%", "%START_TIME(s)%", None),
        ] {
            assert_eq!(found(text), Some((written.to_owned(), meant.map(str::to_owned))), "{text}");
        }
    }

    #[test]
    fn percent_and_dollar_signs_of_other_texts_are_nothing() {
        for text in ["", "%", "%%", "50% OFF 20%", "100%OFF%", "%C3%A4", "%()%", "%REQ", "%REQ(X", "$5", "US$", "a%b%c"]
        {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
