//! Mappings with known keys and words from closed lists: declared once, read and described by the same
//! declaration.

use serde_json::{Value as Json, json};

use super::{Problem, nearest};

/// A mapping with known keys: a struct of [`Setting`]s that reads itself and describes itself, its
/// documentation being the schema's descriptions. Behind it may stand what to write instead of a single value.
macro_rules! keys {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $text:literal])+ $key:ident: $type:ty,)+ }
        $(instead of a value: $example:literal)?) => {
        $(#[doc = $doc])+
        #[allow(clippy::struct_field_names, reason = "they are the file's keys")]
        #[derive(Debug, Clone, Default)]
        pub(in crate::config) struct $name {
            $($(#[doc = $text])+ pub(in crate::config) $key: $crate::config::shape::Setting<$type>,)+
        }

        impl $name {
            /// The keys that exist.
            pub(in crate::config) const KNOWN: &[&str] = &[$($crate::config::shape::key_name(stringify!($key)),)+];
        }

        impl $crate::config::shape::Shape for $name {
            fn read(
                node: &$crate::config::document::Node,
                reader: &mut $crate::config::shape::Reader,
            ) -> Option<Self> {
                let example = [$($example,)? "keys that exist here: "].join("; ");
                let mut shape = Self::default();
                for entry in reader.entries(node, &format!("{example}{}", Self::KNOWN.join(", ")))? {
                    match entry.key.as_str() {
                        $(key if key == $crate::config::shape::key_name(stringify!($key)) => {
                            shape.$key = reader.setting(entry);
                        })+
                        _ => {
                            // The key that was meant is not missed as well.
                            let elsewhere = $crate::config::file::elsewhere(stringify!($name), &entry.key);
                            let meant = reader.unknown_key(entry, Self::KNOWN, elsewhere);
                            $(if meant == Some($crate::config::shape::key_name(stringify!($key)))
                                && shape.$key.is_absent()
                            {
                                shape.$key = $crate::config::shape::Setting::Invalid;
                            })+
                        }
                    }
                }
                Some(shape)
            }

            fn schema(definitions: &mut $crate::config::shape::Definitions) -> serde_json::Value {
                if !definitions.contains_key(stringify!($name)) {
                    definitions.insert(stringify!($name), serde_json::Value::Null);
                    let properties = [$((
                        $crate::config::shape::key_name(stringify!($key)),
                        [$($text),+].concat(),
                        <$type as $crate::config::shape::Shape>::schema(definitions),
                    ),)+];
                    let schema = $crate::config::shape::object(&[$($doc),+].concat(), properties);
                    definitions.insert(stringify!($name), schema);
                }
                serde_json::json!({ "$ref": concat!("#/$defs/", stringify!($name)) })
            }
        }
    };
}

/// A word from a closed list, and what to write instead of some that are not in it.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $word:literal,)+ }
        $(instead of $wrong:literal: $help:literal)*) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::config) enum $name {
            $($(#[doc = $text])+ $variant,)+
        }

        impl $crate::config::shape::Word for $name {
            fn parse(text: &str) -> Result<Self, $crate::config::shape::Problem> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    $($wrong => {
                        let message = format!("`{text}` is not known here");
                        Err($crate::config::shape::Problem::new(message, $help))
                    })*
                    _ => Err($crate::config::shape::not_a_word(text, &[$($word),+])),
                }
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "enum": [$($word),+] })
            }
        }
    };
}

pub(in crate::config) use {keys, words};

/// `match` is written `r#match` in Rust.
pub(in crate::config) const fn key_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// The report of a word that is not in its list.
pub(in crate::config) fn not_a_word(text: &str, known: &[&str]) -> Problem {
    let list = known.join(", ");
    let help = nearest(text, known.iter().copied())
        .map_or_else(|| format!("write one of: {list}"), |near| format!("did you mean `{near}`? ({list})"));
    Problem::new(format!("`{text}` is not known here"), help)
}

/// The schema of a mapping with known keys.
pub(in crate::config) fn object<const N: usize>(description: &str, properties: [(&str, String, Json); N]) -> Json {
    let properties: serde_json::Map<String, Json> =
        properties.into_iter().map(|(name, text, schema)| (name.to_owned(), described(&schema, text.trim()))).collect();
    json!({
        "type": "object",
        "description": description.trim(),
        "additionalProperties": false,
        "properties": properties,
    })
}

/// A schema with a description and, as every key may be left empty, `null` allowed.
fn described(schema: &Json, text: &str) -> Json {
    json!({ "description": text, "anyOf": [schema, { "type": "null" }] })
}
