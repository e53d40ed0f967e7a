//! Other people's tools that judge what is in `deploy/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::tollgate::repository;

/// A file of the repository's `deploy/`.
pub(crate) fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

/// Its text.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// What a tool said, and whether it was content.
pub(crate) struct Judgement {
    pub(crate) content: bool,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// A tool of the system, or one that tests/deploy-tools has installed.
pub(crate) fn tool(name: &str) -> Command {
    let tools = repository().join("target/tools");
    let installed = ["python/bin", "bin"].map(|folder| tools.join(folder).join(name));
    Command::new(installed.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into()))
}

/// Runs a tool to its end.
pub(crate) fn judge(command: &mut Command) -> Judgement {
    let done = command.output().unwrap_or_else(|error| {
        panic!("{}: {error}; tests/run installs what is missing", command.get_program().display())
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Judgement { content: done.status.success(), output: text(&done.stdout), errors: text(&done.stderr) }
}

/// Runs a tool that must be content; what it wrote.
#[track_caller]
pub(crate) fn accepts(command: &mut Command) -> String {
    let judgement = judge(command);
    assert!(judgement.content, "{command:?}:\n{}{}", judgement.output, judgement.errors);
    judgement.output
}

/// The documents of a YAML stream.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---").filter(|part| part.lines().any(|line| !line.starts_with('#') && !line.is_empty()));
    parts.map(|part| serde_yaml::from_str(part).unwrap_or_else(|error| panic!("{error}:\n{part}"))).collect()
}

/// The one document of this kind and name.
#[track_caller]
pub(crate) fn resource<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|found| found["kind"] == kind && found["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} among {documents:#?}"))
}

/// Copies a folder with all below it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
