//! `--verdicts FILE`: a line for each refused request, to be compared with others.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::logs::Placed;
use crate::cli::text;

/// The file that is written.
pub(super) struct Verdicts {
    file: BufWriter<File>,
}

impl Verdicts {
    /// Creates the file, or empties it; never one of the logs.
    pub(super) fn create(path: &Path, logs: &[PathBuf]) -> anyhow::Result<Self> {
        let same =
            |log: &PathBuf| matches!((log.canonicalize(), path.canonicalize()), (Ok(log), Ok(path)) if log == path);
        anyhow::ensure!(
            !logs.iter().any(same),
            "{} is a log that is read: write the verdicts elsewhere",
            path.display()
        );
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file) })
    }

    /// `time, log, line, limit, Retry-After in seconds`; `-` for a refusal that waiting does not help.
    pub(super) fn write(
        &mut self,
        placed: &Placed,
        log: &str,
        limit: &str,
        retry_us: Option<u64>,
    ) -> anyhow::Result<()> {
        let (time, line) = (text::exact_time(placed.at_us), placed.line);
        let retry = retry_us.map_or_else(|| "-".to_owned(), |us| us.div_ceil(1_000_000).max(1).to_string());
        writeln!(self.file, "{time}\t{log}\t{line}\t{limit}\t{retry}").context("cannot write the verdicts")
    }

    /// Everything is on its way to the disk.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().context("cannot write the verdicts")
    }
}
