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
        let texts = self.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(&**text) } else { None });
        texts.filter_map(|text| nginx(text).or_else(|| envoy(text))).next()
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
    // Two percent signs enclose each piece but the first and the last.
    let pieces: Vec<_> = text.split('%').collect();
    let enclosed = pieces.get(1..pieces.len().saturating_sub(1)).unwrap_or_default();
    enclosed.iter().find_map(|piece| {
        let (operator, arguments) = match piece.strip_suffix(')').and_then(|piece| piece.split_once('(')) {
            Some((operator, arguments)) => (operator, Some(arguments)),
            None => (*piece, None),
        };
        let is_operator = operator.len() > 2
            && operator.starts_with(|first: char| first.is_ascii_uppercase())
            && operator.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        // An operator without arguments may be a word between two percentages, unless we know it.
        let meant = meant(operator, arguments);
        (is_operator && (arguments.is_some() || meant.is_some())).then(|| (format!("%{piece}%"), meant))
    })
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
            ("{path} %START_TIME(%s)%", "", None),
            ("%START_TIME(s)%", "%START_TIME(s)%", None),
        ] {
            let expected = (!written.is_empty()).then(|| (written.to_owned(), meant.map(str::to_owned)));
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn percent_and_dollar_signs_of_other_texts_are_nothing() {
        for text in ["", "%", "%%", "50% OFF 20%", "100%OFF%", "%C3%A4", "%()%", "%REQ", "$5", "US$", "a%b%c"] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
