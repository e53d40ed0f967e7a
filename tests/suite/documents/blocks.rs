//! The pages of the repository, and the blocks of code in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::tollgate::repository;

/// A page.
pub(super) struct Page {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// A block between fences.
pub(super) struct Block {
    /// The first word behind the fence; empty when there is none.
    pub(super) language: String,
    /// What stands behind that.
    pub(super) remark: String,
    /// Without the indentation of the fence.
    pub(super) text: String,
    /// Page and line, for people.
    pub(super) place: String,
}

/// Every page: `*.md` in the repository, but for what is built, hidden, or part of a test.
pub(super) fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    find(repository(), &mut paths);
    paths.sort();
    paths.into_iter().map(|path| Page { text: fs::read_to_string(&path).unwrap(), path }).collect()
}

fn find(directory: &Path, paths: &mut Vec<PathBuf>) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "tests", "node_modules"].contains(&name.as_str()) {
                find(&path, paths);
            }
        } else if path.extension().is_some_and(|end| end == "md") {
            paths.push(path);
        }
    }
}

impl Page {
    /// Its path in the repository.
    pub(super) fn name(&self) -> String {
        self.path.strip_prefix(repository()).unwrap().display().to_string()
    }

    /// Its blocks of code.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(usize, Block)> = None;
        for (nth, line) in (1..).zip(self.text.lines()) {
            let indent = line.len() - line.trim_start().len();
            open = match (open, line.trim_start().strip_prefix("```")) {
                (None, Some(information)) => {
                    Some((indent, Block::begun(information, format!("{}:{nth}", self.name()))))
                }
                (None, None) => None,
                (Some((_, block)), Some("")) => {
                    blocks.push(block);
                    None
                }
                (Some((indent, mut block)), _) => {
                    block.text.push_str(line.get(indent.min(line.len())..).unwrap_or(line));
                    block.text.push('\n');
                    Some((indent, block))
                }
            };
        }
        assert!(open.is_none(), "{} ends within a block", self.name());
        blocks
    }

    /// Code within its sentences and tables: `like this`.
    pub(super) fn inline_code(&self) -> Vec<String> {
        let mut is_inside = false;
        let mut found = Vec::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                is_inside = !is_inside;
            } else if !is_inside {
                found.extend(line.split('`').skip(1).step_by(2).map(|code| code.replace("\\|", "|")));
            }
        }
        found
    }
}

impl Block {
    fn begun(information: &str, place: String) -> Self {
        let (language, remark) = information.trim().split_once(' ').unwrap_or((information.trim(), ""));
        Self { language: language.to_owned(), remark: remark.to_owned(), text: String::new(), place }
    }
}
