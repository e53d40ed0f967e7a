//! Lines of a stream, each bounded: what is longer is passed over, whatever the file holds.

use std::io::{self, BufRead};

/// The longest line that is read, bytes.
pub(super) const LONGEST: usize = 256 << 10;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The buffer holds a whole line, without its end.
    Line,
    /// The line was too long; the buffer holds its beginning.
    TooLong,
    /// There is none any more.
    End,
}

/// Reads the next line into `line`, without LF or CR LF.
pub(super) fn read(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Found> {
    line.clear();
    let mut long = false;
    let mut any = false;
    loop {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if available.is_empty() {
            break;
        }
        any = true;
        let end = memchr::memchr(b'\n', available);
        let piece = &available[..end.unwrap_or(available.len())];
        long |= line.len() + piece.len() > LONGEST;
        line.extend_from_slice(&piece[..piece.len().min(LONGEST - line.len())]);
        let used = end.map_or(available.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            break;
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(match (any, long) {
        (false, _) => Found::End,
        (true, true) => Found::TooLong,
        (true, false) => Found::Line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_line_feeds_and_long_ones_are_passed_over() {
        let mut text = b"one\r\n\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', LONGEST + 1));
        text.extend(b"\nlast");
        let mut input = io::BufReader::with_capacity(16, &text[..]);
        let mut line = Vec::new();
        let mut found = Vec::new();
        while let Ok(what @ (Found::Line | Found::TooLong)) = read(&mut input, &mut line) {
            found.push((what, line.len()));
        }
        assert_eq!(found, [(Found::Line, 3), (Found::Line, 0), (Found::TooLong, LONGEST), (Found::Line, 4)]);
    }
}
