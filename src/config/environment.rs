//! `${NAME}`, `${NAME:-default}` and `${NAME:?message}`: values from the environment, filled into
//! the scalars of the document after it was parsed, so that a value can never change its structure.

use super::document::{Node, Scalar, Value};
use super::frames::{Diagnostic, Severity};

/// Fills in every reference of the document; a missing variable is a diagnostic at its scalar.
pub(super) fn fill(node: &mut Node, env: &dyn Fn(&str) -> Option<String>, diagnostics: &mut Vec<Diagnostic>) {
    match &mut node.value {
        Value::Null | Value::Unfilled => {}
        Value::List(items) => items.iter_mut().for_each(|item| fill(item, env, diagnostics)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| fill(&mut entry.node, env, diagnostics)),
        Value::Scalar(scalar) => match expand(&scalar.text, env) {
            Ok(None) => {}
            Ok(Some(text)) => {
                let template = std::mem::take(&mut scalar.text);
                *scalar = Scalar { text, plain: false, template: Some(template) };
            }
            Err((message, help)) => {
                diagnostics.push(Diagnostic { severity: Severity::Error, message, span: Some(node.span), help });
                node.value = Value::Unfilled;
            }
        },
    }
}

/// A sentence and, where there is one, its cure.
type Failure = (String, Option<String>);

/// The text with its references replaced; `None` when it has none. `$${` stands for a literal `${`.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Failure> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let (reference, tail) = rest[at + 2..].split_once('}').ok_or_else(|| {
            (format!("`{}` has no closing brace", &rest[at..]), Some("write ${NAME}, or $${ for a literal ${".into()))
        })?;
        out.push_str(&value_of(reference, env)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// What one reference stands for.
fn value_of(reference: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let (name, operator, word) = match reference.find(':') {
        Some(at) => (&reference[..at], reference.get(at..at + 2).unwrap_or(":"), reference.get(at + 2..).unwrap_or("")),
        None => (reference, "", ""),
    };
    let valid = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !valid || !matches!(operator, "" | ":-" | ":?") {
        return Err((
            format!("`${{{reference}}}` is not a reference to an environment variable"),
            Some("write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ stands for a literal ${".into()),
        ));
    }
    let value = env(name);
    match operator {
        ":-" => Ok(value.filter(|value| !value.is_empty()).unwrap_or_else(|| word.to_owned())),
        ":?" => value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| (format!("the environment variable `{name}` is needed: {word}"), None)),
        _ => value.ok_or_else(|| {
            (
                format!("the environment variable `{name}` is not set"),
                Some(format!("set it, or give a default: ${{{name}:-default}}")),
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_and_everything_else_is_kept() {
        for (text, expanded) in [
            ("x ${A} y ${A}", "x one y one"),
            ("${NO:-two}", "two"),
            ("${EMPTY:-two}", "two"),
            ("${EMPTY}", ""),
            ("${A:?must}", "one"),
            ("$${A}", "${A}"),
            ("$A ${A}", "$A one"),
            ("${NO:-redis://h:1/0}", "redis://h:1/0"),
        ] {
            assert_eq!(expand(text, &env).unwrap().unwrap(), expanded, "{text}");
        }
        assert_eq!(expand("plain {x}", &env).unwrap(), None);
    }

    #[test]
    fn a_missing_variable_is_named_with_its_cure() {
        assert!(expand("${NO}", &env).unwrap_err().0.contains("`NO` is not set"));
        assert!(expand("${EMPTY:?give one}", &env).unwrap_err().0.contains("give one"));
        for text in ["${", "${}", "${1A}", "${A-x}", "${A:+x}", "${A:"] {
            assert!(expand(text, &env).is_err(), "{text}");
        }
    }
}
