//! What the pages show is true: each block of code is read by whom it is meant for, each command line is one that the
//! program takes, and each link leads somewhere.

mod blocks;
mod others;
mod shell;

use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value as Json;
use tollgate::config::frames::Colour;
use tollgate::config::schema::schema;

use crate::reference::Tree;
use crate::support::eventually;
use crate::support::named_files::NamedFiles;
use crate::support::redis_server::RedisServer;
use crate::support::tollgate::{Tollgate, finish, repository};
use blocks::{Block, Page, pages};

/// What blocks are held against.
struct Judge {
    files: NamedFiles,
    schema: Json,
    /// Started for the first block that needs it.
    redis: LazyLock<RedisServer>,
}

impl Judge {
    fn new() -> Self {
        Self { files: NamedFiles::make(), schema: schema(), redis: LazyLock::new(RedisServer::start) }
    }

    /// What is wrong with a block.
    fn judge(&self, page: &Page, block: &Block) -> Result<(), String> {
        let text = block.text.as_str();
        match (block.language.as_str(), block.remark.as_str()) {
            // The page about Redis shows stores.
            ("yaml", "") if page.path.ends_with("docs/redis.md") => self.loads(&completed(text)),
            ("yaml", "") => self.loads(text),
            // A configuration of another proxy.
            ("yaml", "foreign") => Tree::read(text).map(drop),
            ("sh", "") => commands_are_right(text),
            ("json", "") => serde_json::from_str::<Json>(text).map(drop).map_err(|error| error.to_string()),
            ("nginx", "") => others::is_nginx(text),
            ("lua", "") => others::is_lua(text, &self.redis),
            ("toml", "") => others::is_toml(text),
            ("mermaid", "") => others::is_mermaid(text),
            ("python", "") => others::is_python(text),
            ("", "") => self.is_no_wrong_fragment(text),
            // Files of other programs that nobody here reads.
            ("text", "") => Ok(()),
            (language, remark) => Err(format!("no test knows what `{language} {remark}` is; write it in {}", file!())),
        }
    }

    fn loads(&self, text: &str) -> Result<(), String> {
        self.files.load(text).map(drop).map_err(|report| report.render(Colour::Plain))
    }

    /// Answers and outputs are whatever they are. What has only keys of the configuration is a part of one, and must
    /// fit at a place where these keys exist.
    fn is_no_wrong_fragment(&self, text: &str) -> Result<(), String> {
        let Ok(Tree::Map(entries)) = Tree::read(text) else { return Ok(()) };
        let definitions = &self.schema["$defs"];
        let structures = definitions.as_object().into_iter().flat_map(|definitions| definitions.values());
        let has_all = |structure: &Json| entries.iter().all(|(key, _)| structure["properties"].get(key).is_some());
        let places: Vec<_> = structures.chain([&self.schema]).filter(|structure| has_all(structure)).collect();
        let instance: Json = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let wrong: Vec<_> = places.iter().filter_map(|structure| misfit(structure, definitions, &instance)).collect();
        // Where it fits once, it may be that.
        if wrong.len() < places.len() || places.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

/// Why something is no such structure.
fn misfit(structure: &Json, definitions: &Json, instance: &Json) -> Option<String> {
    let mut schema = structure.clone();
    schema["$defs"] = definitions.clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
    (!errors.is_empty()).then(|| errors.join(", "))
}

/// A part of a configuration, with what it lacks.
fn completed(text: &str) -> String {
    let has = |key: &str| text.lines().any(|line| line.starts_with(&format!("{key}:")));
    let listen = if has("listen") || has("listeners") { "" } else { "listen: :8080\n" };
    let upstream = if has("upstream") || has("routes") { "" } else { "upstream: echo\n" };
    format!("{text}\n{listen}{upstream}")
}

/// A shell can read it, the program takes its arguments, and files of the repository that are named are there.
fn commands_are_right(text: &str) -> Result<(), String> {
    shell::is_shell(text)?;
    for command in shell::commands(text) {
        if let Some(arguments) = shell::arguments_of_a_call(&command) {
            shell::is_taken(arguments)?;
        }
        for path in command.iter().flat_map(|word| shell::paths_in(word)) {
            if !shell::exists(path) {
                return Err(format!("there is no {path}"));
            }
        }
    }
    Ok(())
}

/// Fails with all that is wrong.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_block_of_code_in_the_pages_is_what_it_says() {
    let judge = Judge::new();
    let mut wrong = Vec::new();
    let mut judged = 0;
    for page in pages() {
        for block in page.blocks() {
            judged += 1;
            if let Err(why) = judge.judge(&page, &block) {
                wrong.push(format!("{}: {why}\n{}", block.place, block.text));
            }
        }
    }
    assert_none(&wrong);
    assert!(judged >= 60, "only {judged} blocks");
}

#[test]
fn every_call_of_the_program_within_a_sentence_is_one_that_it_knows() {
    let mut wrong = Vec::new();
    for page in pages() {
        for code in page.inline_code().iter().filter(|code| code.starts_with("tollgate ")) {
            let calls = shell::commands(code);
            let arguments = calls.iter().filter_map(|command| shell::arguments_of_a_call(command));
            wrong.extend(
                arguments
                    .filter_map(|words| shell::is_known(words).err())
                    .map(|why| format!("{}: {code}: {why}", page.name())),
            );
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_link_of_the_pages_leads_to_a_file_that_is_there() {
    let mut wrong = Vec::new();
    for page in pages() {
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_ours = !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:");
            if is_ours && !page.path.parent().unwrap().join(link).exists() {
                wrong.push(format!("{} points to {link}", page.name()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_block_that_says_something_wrong_is_noticed() {
    let page = Page {
        path: repository().join("docs/a.md"),
        text: "```yaml\nlisten: :8080\nupstraem: echo\n```\n```sh\ntollgate chekc\n```\n```sh\nif\n```\n```sh\ntests/nothing\n```\n\
               ```json\n{\n```\n```toml\n=\n```\n```lua\nreturn (\n```\n```nginx\nnonsense on;\n```\n```cobol\n```\n```python\nif\n```\n\
               ```mermaid\nnonsense\n```\n- in a list\n  ```\n  admin: { adress: 127.0.0.1:1 }\n  ```\n```\ncount: { statuses: 5xx }\n```\n\
               ```yaml tollgate\n```\n"
            .to_owned(),
    };
    let judge = Judge::new();
    let blocks = page.blocks();
    assert_eq!(blocks.len(), 14);
    for block in blocks {
        assert!(judge.judge(&page, &block).is_err(), "{}: {}", block.place, block.text);
    }
}

/// The command of README.md, at a proxy with its first configuration; what it prints has the lines that README.md shows.
#[test]
fn the_first_command_of_the_readme_does_what_is_said_of_it() {
    let readme = pages().into_iter().find(|page| page.name() == "README.md").unwrap();
    let blocks = readme.blocks();
    let after = |at: usize| blocks[at].text.as_str();
    let configuration = blocks.iter().position(|block| block.language == "yaml").unwrap();
    let command = blocks.iter().position(|block| block.text.starts_with("for i in $(seq 12)")).unwrap();
    let proxy = Tollgate::start(&after(configuration).replace("listen: :8080", "listen: 127.0.0.1:0"));
    let address = proxy.web().to_string();
    let text = after(command).replace("127.0.0.1:8080", &address);
    assert!(text.contains(&address), "{text}");
    let run = || {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&text).env("no_proxy", "*").stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(&mut shell, "").output.replace('\r', "")
    };
    let mut printed = run();
    let admitted =
        printed.lines().take_while(|line| !line.contains(" 429 ")).filter(|line| line.contains(" 200 OK")).count();
    assert!(admitted >= 10, "ten at once: {printed}");
    // On a busy machine all twelve may take so long that each finds a token.
    eventually("a denial", || {
        let is_denied = printed.contains("HTTP/1.1 429 Too Many Requests");
        if !is_denied {
            printed.push_str(&run());
        }
        is_denied.then_some(())
    });
    let shown = blocks[command + 1].text.lines();
    for line in shown.filter(|line| *line != "…") {
        let beginning = line.split('…').next().unwrap_or(line);
        assert!(printed.contains(beginning), "`{beginning}` is not in\n{printed}");
    }
}

/// What README.md tells of speed is what was measured.
#[test]
fn the_figures_of_the_readme_are_those_of_the_last_comparison() {
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().replace("**", "")).collect::<Vec<_>>();
    let rows = |file: &str| {
        let text = std::fs::read_to_string(repository().join(file)).expect("a page");
        text.lines().filter(|line| line.starts_with("| ")).map(cells).collect::<Vec<_>>()
    };
    let measured = rows("benches/compare/results.md");
    let of = |case: &str, proxy: &str| {
        let mut found = measured.iter().filter(|row| row[1] == case && row[2] == proxy);
        found.next().unwrap_or_else(|| panic!("{case} of {proxy} was not measured"))
    };
    let readme = rows("README.md");
    let told: Vec<_> =
        readme.iter().filter(|row| row.len() == 8 && !row[1].is_empty() && row[2].ends_with(')')).collect();
    assert!(told.len() >= 4, "{told:#?}");
    for row in told {
        let (nginx, ours) = (of(&row[1], "nginx"), of(&row[1], "tollgate"));
        assert_eq!(row[2..7], [&ours[4], &nginx[5], &ours[5], &nginx[7], &ours[7]].map(String::clone), "{}", row[1]);
    }
}
