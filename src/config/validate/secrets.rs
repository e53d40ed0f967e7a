//! Files that the configuration names: read when it is loaded, so that a missing one is its error.

use std::path::{Path, PathBuf};

use super::Check;
use crate::config::shape::Setting;
use crate::limit::store::settings::Secret;

/// The largest secret file read, bytes.
const LARGEST: u64 = 1 << 20;

impl Check<'_> {
    /// A file's path, from the configuration's directory where it is relative.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// The secret in a file, without the line end behind it.
    pub(super) fn secret_file(&mut self, setting: &Setting<PathBuf>) -> Option<Secret> {
        let contents = self.contents(setting)?;
        let Ok(text) = std::str::from_utf8(&contents) else {
            self.error_at(setting, "this file is not UTF-8 text");
            return None;
        };
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            self.error_at(setting, "this file is empty");
            return None;
        }
        setting.get().map(|path| Secret::in_file(secret, &self.path(path)))
    }

    /// Makes sure that a file can be read, and returns its path.
    pub(super) fn readable(&mut self, setting: &Setting<PathBuf>) -> Option<PathBuf> {
        self.contents(setting)?;
        setting.get().map(|path| self.path(path))
    }

    /// A file's bytes; what is wrong with it is reported where the file is named.
    pub(super) fn contents(&mut self, setting: &Setting<PathBuf>) -> Option<Vec<u8>> {
        let given = setting.spanned()?;
        let path = self.path(&given.value);
        self.reader.files.push(path.clone());
        // A running process must not wait for whoever writes into a pipe.
        let read = if self.previous.is_some() {
            regular(&path).and_then(|()| read_bounded(&path))
        } else {
            read_bounded(&path)
        };
        match read {
            Ok(contents) => Some(contents),
            Err(error) => {
                let message = format!("cannot read `{}`: {}", path.display(), sentence(&error));
                self.error(given.span, message, "name a file that this user may read");
                None
            }
        }
    }

    fn error_at(&mut self, setting: &Setting<PathBuf>, message: &str) {
        if let Some(given) = setting.spanned() {
            self.error(given.span, message, "put the secret into it, on one line");
        }
    }
}

/// Whether a file can be read without waiting for anybody.
pub(in crate::config) fn regular(path: &Path) -> std::io::Result<()> {
    let is_file = std::fs::metadata(path)?.is_file();
    if is_file { Ok(()) } else { Err(std::io::Error::other("it is no regular file, and is read at a start only")) }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut contents = Vec::new();
    std::fs::File::open(path)?.take(LARGEST).read_to_end(&mut contents)?;
    Ok(contents)
}

/// The system's sentence without its number.
pub(in crate::config) fn sentence(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}
