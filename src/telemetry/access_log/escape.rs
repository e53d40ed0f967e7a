//! Client bytes in log lines: printable ASCII as it is, everything else escaped, all of it bounded.

use std::io::Write as _;

/// Stands for what was cut off.
const CUT: &[u8] = b"...";

/// Appends `bytes` as the inside of a JSON string, in printable ASCII, at most `room` bytes long.
/// Bytes that are no UTF-8 become U+FFFD.
pub(super) fn json(bytes: &[u8], room: usize, out: &mut Vec<u8>) {
    let mut writer = Writer { end: out.len() + room, out };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if !writer.json_char(c) {
                return;
            }
        }
        if !chunk.invalid().is_empty() && !writer.json_char(char::REPLACEMENT_CHARACTER) {
            return;
        }
    }
}

/// Appends `bytes` as Apache and nginx do inside quotes: `\"`, `\\`, and `\xHH` for all that is not
/// printable ASCII; at most `room` bytes long.
pub(super) fn combined(bytes: &[u8], room: usize, out: &mut Vec<u8>) {
    let mut writer = Writer { end: out.len() + room, out };
    for &byte in bytes {
        let fits = match byte {
            b'"' => writer.push(b"\\\""),
            b'\\' => writer.push(b"\\\\"),
            b' '..=b'~' => writer.push(&[byte]),
            _ => writer.push(format!("\\x{byte:02X}").as_bytes()),
        };
        if !fits {
            return;
        }
    }
}

/// Appends whole escapes up to an end.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Length of `out` that is not exceeded.
    end: usize,
}

impl Writer<'_> {
    /// Appends one character; `false` when there was no room.
    fn json_char(&mut self, c: char) -> bool {
        match c {
            '"' => self.push(b"\\\""),
            '\\' => self.push(b"\\\\"),
            ' '..='~' => self.push(&[u8::try_from(c).unwrap_or(b'?')]),
            _ => {
                let mut units = [0; 2];
                let mut escaped = Vec::with_capacity(12);
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(escaped, "\\u{unit:04x}");
                }
                self.push(&escaped)
            }
        }
    }

    /// Appends a piece, or [`CUT`] and `false` when there is no room for it.
    fn push(&mut self, piece: &[u8]) -> bool {
        let fits = self.out.len() + piece.len() + CUT.len() <= self.end;
        self.out.extend_from_slice(if fits { piece } else { CUT });
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(escape: fn(&[u8], usize, &mut Vec<u8>), bytes: &[u8], room: usize) -> String {
        let mut out = Vec::new();
        escape(bytes, room, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_but_printable_ascii_is_written() {
        let every: Vec<u8> = (0..=255).collect();
        for escape in [json, combined] {
            let text = written(escape, &every, 4_096);
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        }
    }

    #[test]
    fn json_reads_back_as_what_was_written() {
        for text in ["plain", "\"quoted\" \\ \n\r\t\u{1b}[31m", "\u{9b}31m é 漢 😀"] {
            let escaped = format!("\"{}\"", written(json, text.as_bytes(), 4_096));
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }

    #[test]
    fn combined_escapes_as_apache_does() {
        assert_eq!(written(combined, "a\"b\\c\né".as_bytes(), 99), "a\\\"b\\\\c\\x0A\\xC3\\xA9");
    }

    #[test]
    fn a_long_value_is_cut_between_escapes() {
        assert_eq!(written(json, b"\n\n\n", 16), "\\u000a\\u000a...");
        assert_eq!(written(combined, &[b'a'; 100], 10), "aaaaaaa...");
    }
}
