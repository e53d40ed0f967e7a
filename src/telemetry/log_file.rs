//! A log in a file, appended to, and opened anew when its name has been given to another.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::lines::Output;

/// Who may read a new one: this user and its group.
const MODE: u32 = 0o640;

/// A file that lines are appended to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// When this user may not write it, or its directory does not exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)? })
    }
}

/// Appending starts at the end whatever it is by then: the file may be cut by somebody else.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Output for LogFile {
    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::lines::Lines;

    #[test]
    fn a_file_that_was_moved_away_is_left_alone_once_it_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("a.log"), directory.path().join("a.log.1"));
        let lines = Lines::start("test", LogFile::open(&path).unwrap()).unwrap();
        lines.send(b"one\n".to_vec());
        lines.flush();
        std::fs::rename(&path, &old).unwrap();
        lines.send(b"two\n".to_vec());
        lines.flush();
        lines.reopen();
        lines.send(b"three\n".to_vec());
        lines.flush();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let (home, away) = (directory.path().join("home"), directory.path().join("away"));
        std::fs::create_dir(&home).unwrap();
        let lines = Lines::start("test", LogFile::open(&home.join("a.log")).unwrap()).unwrap();
        std::fs::rename(&home, &away).unwrap();
        lines.reopen();
        lines.send(b"one\n".to_vec());
        lines.flush();
        assert_eq!(std::fs::read_to_string(away.join("a.log")).unwrap(), "one\n");
    }
}
