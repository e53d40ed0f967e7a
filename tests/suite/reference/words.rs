//! What the schema says of a value, in words: which form it has, whether it is required, and its default.

use serde_json::{Value as Json, json};

/// A form of values that has a name, the beginning of its pattern in the schema, what it is, and examples.
pub(super) struct Form {
    pub(super) name: &'static str,
    pattern: &'static str,
    /// Explained in the introduction.
    pub(super) explained: Option<(&'static str, &'static [&'static str])>,
}

const fn explained(
    name: &'static str,
    pattern: &'static str,
    text: &'static str,
    examples: &'static [&'static str],
) -> Form {
    Form { name, pattern, explained: Some((text, examples)) }
}

const fn plain(name: &'static str, pattern: &'static str) -> Form {
    Form { name, pattern, explained: None }
}

pub(super) const FORMS: &[Form] = &[
    explained(
        "duration",
        "^(([0-9]+(us|",
        "numbers with the units `us`, `ms`, `s`, `m`, `h` and `d`, at most 366d together",
        &["250ms", "30s", "1m30s", "2h", "7d"],
    ),
    explained(
        "size",
        "^([0-9]+ ?(B|",
        "bytes, with `B`, `KiB`, `MiB`, `GiB` (1024) or `kB`, `MB`, `GB` (1000)",
        &["512B", "64KiB", "10MiB", "2GB"],
    ),
    explained(
        "rate",
        "^(unlimited|",
        "a count per unit of time or per duration; `0/s` is never, `unlimited` no limit at all",
        &["100/s", "5/10s", "1000/m", "50000/d", "0/s", "unlimited"],
    ),
    explained("share", "^([0-9.]+ ?%", "a percentage, from 0 % to 100 %", &["1%", "0.5%", "80%"]),
    explained("number", "^([0-9]+|", "digits only", &["0", "200", "20000"]),
    explained(
        "key part",
        "^ *(client_ip|",
        "what requests are told apart by; of several with `|` the first that is present ([keys.md](keys.md))",
        &["client_ip", "header:x-api-key | client_ip", "jwt:sub"],
    ),
    explained("time of day", "^([0-9]{1,2}:", "hours and minutes by the wall clock", &["06:00", "22:30", "24:00"]),
    explained("days", "^((mon|", "a day of the week, or from one to another", &["sun", "mon-fri"]),
    plain("`never`, or seconds as a [duration](#forms-of-values)", "^(never|"),
    plain("path", "^(/.*|"),
    plain("path", "^(/|.*"),
    plain("path or address", "^(/|https?:"),
    plain("address of a server", "^(echo|"),
    plain("address of a Redis", "^(rediss?:"),
    plain("`host:port`", "^([^/@]+:"),
    plain("`http://` or `https://` address", "^(https?:"),
    plain("`auto`", "^(auto|"),
];

/// The form of a value, in words; `below` tells where a structure is described.
pub(super) fn form(schema: &Json, below: &dyn Fn(&str) -> String) -> String {
    if let Some(name) = super::name_of(schema) {
        return format!("[keys]({})", below(name));
    }
    if let Some(words) = schema["enum"].as_array() {
        return either(coded(words));
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        return forms(alternatives, below);
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        return by_pattern(pattern);
    }
    if let Some(title) = schema["title"].as_str() {
        return title.to_lowercase();
    }
    if let Some(examples) = schema["examples"].as_array() {
        return format!("such as {}", either(coded(examples)));
    }
    if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        return format!("{least} to {most}");
    }
    match &schema["type"] {
        Json::String(one) if one == "array" => format!("list of: {}", form(&schema["items"], below)),
        Json::String(one) if one == "object" && schema["additionalProperties"].is_object() => {
            format!("names, each with: {}", form(&schema["additionalProperties"], below))
        }
        Json::String(one) if one == "object" => "names and values".to_owned(),
        Json::String(one) => by_type(&[one.as_str()]),
        Json::Array(several) => by_type(&several.iter().filter_map(Json::as_str).collect::<Vec<_>>()),
        other => panic!("no words for the type {other}"),
    }
}

/// Several forms; `null` is none, and one with a list of the same is said once.
fn forms(alternatives: &[Json], below: &dyn Fn(&str) -> String) -> String {
    let is_null = |schema: &Json| schema["type"] == json!("null");
    let list = alternatives.iter().find(|schema| schema["type"] == json!("array"));
    if let Some(list) = list.filter(|list| alternatives.contains(&list["items"])) {
        let one = form(&list["items"], below);
        return format!("{one}{} or a list", if one.contains(" or ") { ";" } else { "," });
    }
    let has_words = alternatives.iter().any(|schema| schema["enum"].is_array());
    // A text beside words is what the environment fills in.
    let only_filled_in = |schema: &Json| has_words && *schema == json!({ "type": "string" });
    let mut all: Vec<_> = alternatives
        .iter()
        .filter(|schema| !is_null(schema) && !only_filled_in(schema))
        .map(|schema| form(schema, below))
        .collect();
    all.dedup();
    either(all)
}

fn coded(words: &[Json]) -> Vec<String> {
    words.iter().map(|word| format!("`{}`", word.as_str().map_or_else(|| word.to_string(), str::to_owned))).collect()
}

fn by_pattern(pattern: &str) -> String {
    let form = FORMS.iter().find(|form| pattern.starts_with(form.pattern));
    let Form { name, explained, .. } = form.unwrap_or_else(|| panic!("no words for the pattern {pattern}"));
    if explained.is_some() { format!("[{name}](#forms-of-values)") } else { (*name).to_owned() }
}

fn by_type(types: &[&str]) -> String {
    match types {
        ["string"] | ["string", "integer"] | ["string", "number", "boolean"] => "text",
        ["integer"] => "[number](#forms-of-values)",
        ["boolean", "string"] => "`true` or `false`",
        ["boolean", "integer", "string"] => "`true`, `false` or a number",
        ["integer", "string"] => "number or text",
        other => panic!("no words for the types {other:?}"),
    }
    .to_owned()
}

fn either(mut words: Vec<String>) -> String {
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} or {last}", words.join(", ")) }
}

/// What a description says, in its parts.
pub(super) struct Description {
    /// Without what the other two say.
    pub(super) text: String,
    /// What holds when the key is not there.
    pub(super) default: Option<String>,
    /// `required`, and when.
    pub(super) required: Option<String>,
}

impl Description {
    pub(super) fn of(schema: &Json) -> Self {
        let (mut default, mut required) = (None, None);
        let mut text = Vec::new();
        for sentence in sentences(schema["description"].as_str().unwrap_or_default()) {
            if let Some(value) = sentence.strip_prefix("Default: ") {
                default = Some(as_value(value.trim_end_matches('.')));
            } else if let Some(when) = sentence.strip_prefix("Required") {
                required = Some(format!("required{}", when.trim_end_matches('.')));
            } else {
                text.push(sentence);
            }
        }
        let text = text.join(" ");
        let in_brackets = || text.split_once("` (default").and_then(|(before, _)| before.rsplit('`').next());
        let default = default.or_else(|| in_brackets().map(|word| format!("`{word}`")));
        Self { text, default, required }
    }
}

/// A text in its sentences: they end where a dot is followed by a capital or by code.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut rest = text.trim();
    while let Some(end) = rest
        .match_indices(". ")
        .map(|(at, _)| at + 1)
        .find(|&at| rest[at + 1..].starts_with(|c: char| c.is_uppercase() || c == '`'))
    {
        sentences.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    sentences.push(rest);
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// A default, its value as code; some are prose.
fn as_value(text: &str) -> String {
    const PROSE: [&str; 7] = ["nobody", "none", "everybody", "everything", "off", "both", "all"];
    let (value, rest) = text.split_at(text.find([',', ' ']).unwrap_or(text.len()));
    let is_value = rest.is_empty() || rest.starts_with(',') && value.starts_with(|c: char| c.is_ascii_digit());
    // Both parts of `text/plain; charset=utf-8` are the value.
    if value.ends_with(';') {
        return format!("`{text}`");
    }
    if !is_value || PROSE.contains(&value) || text.contains('`') { text.to_owned() } else { format!("`{value}`{rest}") }
}

#[test]
fn each_form_of_values_that_is_explained_is_one() {
    let schema = tollgate::config::schema::schema().to_string();
    for form in FORMS {
        let written = Json::String(form.pattern.to_owned()).to_string();
        assert!(schema.contains(written.trim_matches('"')), "no value has the form {}", form.name);
    }
    let patterns = super::patterns(&tollgate::config::schema::schema());
    for Form { name, pattern, explained } in FORMS {
        let whole = patterns.iter().find(|whole| whole.starts_with(pattern)).unwrap();
        let validator = jsonschema::validator_for(&json!({ "pattern": whole })).unwrap();
        for example in explained.map_or(&[][..], |(_, examples)| examples) {
            assert!(validator.is_valid(&json!(example)), "`{example}` is no {name}");
        }
        assert!(!validator.is_valid(&json!("nonsense of any kind")), "{name}");
    }
}

#[test]
fn a_description_is_taken_apart() {
    let described = |text: &str| Description::of(&json!({ "description": text }));
    let first = described("Most requests that wait. Default: 1024.");
    assert_eq!((first.text.as_str(), first.default.as_deref()), ("Most requests that wait.", Some("`1024`")));
    let address = described("Its address; anything but loopback needs a token. Default: 127.0.0.1:9901.");
    assert_eq!(address.default.as_deref(), Some("`127.0.0.1:9901`"));
    let word = described("`h1` or `auto` (default: both).");
    assert_eq!((word.text.as_str(), word.default.as_deref()), ("`h1` or `auto` (default: both).", Some("`auto`")));
    let needed = described("The most at once. Required, unless `in_flight` is given.");
    assert_eq!(needed.required.as_deref(), Some("required, unless `in_flight` is given"));
}
