//! The page itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::examples::Examples;
use super::order::declared;
use super::tree::Tree;
use super::words::{Description, FORMS, form, sentences};

/// How wide the prose and the examples are.
const WIDTH: usize = 118;
/// Longer examples of structures are only where the structure is described.
const LONGEST_IN_A_TABLE: usize = 100;

/// Where a heading is reached, as GitHub names it.
pub(super) fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    format!("#{}", kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect::<String>())
}

/// A place where a structure may stand.
struct Place<'a> {
    /// Such as `upstreams.NAME.servers[]`.
    path: String,
    structure: &'a str,
}

/// What the page is made of.
struct Page<'a> {
    schema: &'a Json,
    order: BTreeMap<String, Vec<String>>,
    examples: Examples,
    /// Where each structure is described.
    homes: BTreeMap<&'a str, String>,
    text: String,
}

/// The whole page.
pub(super) fn write(schema: &Json) -> String {
    let examples = Examples::gather(schema);
    let mut page = Page { schema, order: declared(), examples, homes: BTreeMap::new(), text: String::new() };
    page.homes = page.find_homes();
    let body = page.body();
    let contents = page.contents();
    let introduction = include_str!("introduction.md").replace("$FORMS", &forms()).replace("$CONTENTS", &contents);
    format!("{introduction}{body}")
}

/// The table of the forms of values.
fn forms() -> String {
    let explained = FORMS.iter().filter_map(|form| form.explained.map(|(text, examples)| (form.name, text, examples)));
    let row = |(name, text, examples): (&str, &str, &[&str])| {
        let examples: Vec<_> = examples.iter().map(|example| code(example)).collect();
        format!("| {name} | {} | {} |", text.replace('|', "\\|"), examples.join(" "))
    };
    explained.map(row).collect::<Vec<_>>().join("\n")
}

/// Code in a table, where a bar would begin another column.
fn code(text: &str) -> String {
    let fence = if text.contains('`') { "``" } else { "`" };
    format!("{fence}{}{fence}", text.replace('|', "\\|"))
}

/// Text in lines of the page's width.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => write!(line, " {word}").unwrap(),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// The structures that may stand below a value.
fn places<'a>(schema: &'a Json, path: &str) -> Vec<Place<'a>> {
    if let Some(structure) = super::name_of(schema) {
        return vec![Place { path: path.to_owned(), structure }];
    }
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    let mut found: Vec<_> = alternatives.flat_map(|alternative| places(alternative, path)).collect();
    if schema["items"].is_object() {
        found.extend(places(&schema["items"], &format!("{path}[]")));
    }
    if schema["additionalProperties"].is_object() {
        found.extend(places(&schema["additionalProperties"], &format!("{path}.NAME")));
    }
    // Of one or a list, the list.
    let paths: Vec<_> = found.iter().map(|place| place.path.clone()).collect();
    found.retain(|place| !paths.contains(&format!("{}[]", place.path)));
    found
}

impl<'a> Page<'a> {
    fn structure(&self, name: &str) -> &'a Json {
        if name == "File" { self.schema } else { &self.schema["$defs"][name] }
    }

    fn keys(&self, name: &str) -> &[String] {
        &self.order[name]
    }

    fn property(&self, structure: &str, key: &str) -> &'a Json {
        &self.structure(structure)["properties"][key]
    }

    /// Each structure is described where its path is shortest.
    fn find_homes(&self) -> BTreeMap<&'a str, String> {
        let mut homes = BTreeMap::from([("File", String::new())]);
        let mut next = VecDeque::from([Place { path: String::new(), structure: "File" }]);
        while let Some(Place { path, structure }) = next.pop_front() {
            for key in self.keys(structure) {
                for place in places(self.property(structure, key), &below(&path, key)) {
                    if !homes.contains_key(place.structure) {
                        homes.insert(place.structure, place.path.clone());
                        next.push_back(place);
                    }
                }
            }
        }
        homes
    }

    /// Places below a key where a structure is described.
    fn described_at(&self, structure: &str, key: &str, path: &str) -> Vec<Place<'a>> {
        let places = places(self.property(structure, key), path);
        places.into_iter().filter(|place| self.homes[place.structure] == place.path).collect()
    }

    /// Where a structure is described. What stands at the top has no other heading than its key.
    fn link(&self, structure: &str) -> String {
        let home = &self.homes[structure];
        let key = without_ending(home);
        anchor(if key.contains('.') { home } else { key })
    }

    fn body(&mut self) -> String {
        for key in self.keys("File").to_vec() {
            writeln!(self.text, "\n## `{key}`").unwrap();
            self.describe("File", &key, &key);
        }
        std::mem::take(&mut self.text)
    }

    /// What stands below a heading: what the key is, an example, its keys, and what stands below those.
    fn describe(&mut self, structure: &str, key: &str, path: &str) {
        let property = self.property(structure, key);
        let below_it = self.described_at(structure, key, path);
        self.introduce(property, below_it.first().map(|place| place.structure));
        let example = self.examples.long_of(structure, key);
        writeln!(self.text, "\n```\n{}\n```", shown(key, example)).unwrap();
        for place in below_it {
            self.table(&place);
            for key in self.keys(place.structure).to_vec() {
                let path = below(&place.path, &key);
                for place_below in self.described_at(place.structure, &key, &path) {
                    writeln!(self.text, "\n### `{}`", place_below.path).unwrap();
                }
                if !self.described_at(place.structure, &key, &path).is_empty() {
                    self.describe(place.structure, &key, &path);
                }
            }
        }
    }

    /// The key's description, what its structure says beyond it, and what is required or holds without it.
    fn introduce(&mut self, property: &Json, structure: Option<&str>) {
        let Description { mut text, default, required } = Description::of(property);
        let of_structure = structure.map(|name| self.structure(name)["description"].as_str().unwrap_or_default());
        for (nth, sentence) in sentences(of_structure.unwrap_or_default()).into_iter().enumerate() {
            // The first only names it, unless it explains it too.
            if nth > 0 || sentence.contains(": ") {
                write!(text, " {sentence}").unwrap();
            }
        }
        let own = structure.map(|name| format!("[keys]({})", self.link(name)));
        let form = form(property, &|name| self.link(name));
        let form = own.map_or_else(|| form.clone(), |own| form.replace(&own, "keys"));
        let facts =
            [Some(form).filter(|form| form != "keys"), required, default.map(|default| format!("default: {default}"))];
        let facts: Vec<_> = facts.into_iter().flatten().collect();
        writeln!(self.text, "\n{}", wrapped(&text)).unwrap();
        if !facts.is_empty() {
            writeln!(self.text, "\n{}.", wrapped(&capitalised(&facts.join("; ")))).unwrap();
        }
    }

    fn table(&mut self, place: &Place) {
        writeln!(self.text, "\n| key | value | default | |\n|---|---|---|---|").unwrap();
        for key in self.keys(place.structure).to_vec() {
            let row = self.row(place, &key);
            writeln!(self.text, "{row}").unwrap();
        }
    }

    fn row(&self, place: &Place, key: &str) -> String {
        let property = self.property(place.structure, key);
        let Description { text, default, required } = Description::of(property);
        let path = below(&place.path, key);
        let form = form(property, &|name| self.link(name));
        let default = required.or(default).unwrap_or_default();
        let example = self.example_in_a_row(place.structure, key, &path);
        format!("| `{path}` | {} | {} | {}<br>{example} |", cell(&form), cell(&default), cell(&text))
    }

    /// On one line. What is longer stands where the structure is described, or is shown by its first item.
    fn example_in_a_row(&self, structure: &str, key: &str, path: &str) -> String {
        let example = self.examples.of(structure, key);
        let line = example.line(key);
        if line.chars().count() <= LONGEST_IN_A_TABLE {
            return code(&line);
        }
        match self.described_at(structure, key, path).first() {
            Some(place) => format!("[example]({})", anchor(&place.path)),
            None => code(&example.beginning().line(key)),
        }
    }

    /// The table of contents.
    fn contents(&self) -> String {
        let entry = |key: &String| {
            let below: Vec<_> = self
                .sections(key)
                .iter()
                .map(|path| {
                    let rest = path[key.len()..].trim_start_matches("[]").trim_start_matches(".NAME");
                    format!("[{}]({})", rest.trim_start_matches('.').replace(['[', ']'], ""), anchor(path))
                })
                .collect();
            let own = format!("- [`{key}`]({})", anchor(key));
            if below.is_empty() { own } else { format!("{own}: {}", below.join(" · ")) }
        };
        self.keys("File")
            .iter()
            .map(entry)
            .map(|line| wrapped(&line).replace('\n', "\n  "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The paths of the headings below one key of the top, in order.
    fn sections(&self, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut next: Vec<_> = self.described_at("File", key, key);
        while let Some(place) = next.pop() {
            let mut below_it: Vec<_> = self
                .keys(place.structure)
                .iter()
                .flat_map(|key| self.described_at(place.structure, key, &below(&place.path, key)))
                .collect();
            below_it.reverse();
            next.extend(below_it);
            found.push(place.path);
        }
        found.retain(|path| without_ending(path) != key);
        found
    }
}

/// The path of the key whose value, item or named thing this is.
fn without_ending(path: &str) -> &str {
    path.trim_end_matches("[]").trim_end_matches(".NAME")
}

/// The path of a key below another.
fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// An example in lines, which says what the tree says.
fn shown(key: &str, example: &Tree) -> String {
    let whole = example.block(key, WIDTH);
    let example = if whole.lines().count() > 30 { example.beginning() } else { example.clone() };
    let shown = example.block(key, WIDTH);
    assert_eq!(Tree::read(&shown), Ok(Tree::Map(vec![(key.to_owned(), example)])), "{shown}");
    shown
}

/// Text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
