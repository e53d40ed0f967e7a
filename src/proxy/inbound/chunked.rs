//! The framing of a chunked request body (RFC 9112 §7.1), followed byte by byte but for the data
//! itself, which is only counted.

use super::head::is_token_byte;
use super::refusal::Refusal;

/// Most bytes of chunk extensions in one body.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Most bytes of a trailer section.
const MAX_TRAILERS: usize = 8 * 1024;
/// Most hexadecimal digits of a chunk size.
const MAX_DIGITS: u8 = 16;

/// Follows one chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    /// The size being read, then the data bytes of the chunk still to come.
    left: u64,
    extensions: usize,
    trailers: usize,
    first_line: bool,
}

/// What the next byte is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    SizeStart,
    Size(u8),
    ExtensionStart,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunked {
    /// Whether the first chunk's size line has been read.
    pub(super) fn began(&self) -> bool {
        self.first_line
    }

    /// Whether the whole body has been read.
    pub(super) fn done(&self) -> bool {
        self.at == At::Done
    }

    /// Data bytes still to come before the next framing byte.
    pub(super) fn data_left(&self) -> u64 {
        if self.at == At::Data { self.left } else { 0 }
    }

    /// Notes that `len` data bytes, at most [`Self::data_left`], went by unseen.
    pub(super) fn skip(&mut self, len: u64) {
        self.left = self.left.saturating_sub(len);
        if self.left == 0 {
            self.at = At::DataCr;
        }
    }

    /// Follows the body through `data`; tells how many of its bytes belong to the body.
    pub(super) fn read(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        let mut read = 0;
        while read < data.len() && !self.done() {
            if self.at == At::Data {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len() - read);
                self.skip(len as u64);
                read += len;
            } else {
                self.at = self.step(data[read])?;
                read += 1;
            }
        }
        Ok(read)
    }

    fn step(&mut self, byte: u8) -> Result<At, Refusal> {
        match self.at {
            At::SizeStart | At::Size(_) => self.size(byte),
            At::ExtensionStart | At::Extension => self.extension(byte),
            At::SizeLf => self.size_end(byte),
            At::DataCr => expect(byte, b'\r', At::DataLf, Refusal::ChunkEnd),
            At::DataLf => expect(byte, b'\n', At::SizeStart, Refusal::ChunkEnd),
            At::EndLf => expect(byte, b'\n', At::Done, Refusal::LineEnd),
            At::TrailerStart | At::TrailerName | At::TrailerValue | At::TrailerLf => self.trailer(byte),
            At::Data | At::Done => Ok(self.at),
        }
    }

    fn size(&mut self, byte: u8) -> Result<At, Refusal> {
        let digits = if let At::Size(digits) = self.at { digits } else { 0 };
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(At::SizeLf),
            b';' if digits > 0 => return Ok(At::ExtensionStart),
            b'\n' => return Err(Refusal::LineEnd),
            _ => return Err(Refusal::ChunkSize),
        };
        if digits == MAX_DIGITS || self.left >> 60 != 0 {
            return Err(Refusal::ChunkSize);
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(At::Size(digits + 1))
    }

    fn extension(&mut self, byte: u8) -> Result<At, Refusal> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(Refusal::ChunkExtension);
        }
        match (self.at, byte) {
            (_, b'\n') => Err(Refusal::LineEnd),
            (At::ExtensionStart, b' ' | b'\t') => Ok(At::ExtensionStart),
            (At::ExtensionStart, _) if is_token_byte(byte) => Ok(At::Extension),
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, b'\t' | b' '..=b'~') => Ok(At::Extension),
            _ => Err(Refusal::ChunkExtension),
        }
    }

    fn size_end(&mut self, byte: u8) -> Result<At, Refusal> {
        self.first_line = true;
        let next = if self.left == 0 { At::TrailerStart } else { At::Data };
        expect(byte, b'\n', next, Refusal::LineEnd)
    }

    fn trailer(&mut self, byte: u8) -> Result<At, Refusal> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(Refusal::Trailer);
        }
        match (self.at, byte) {
            (At::TrailerLf, b'\n') => Ok(At::TrailerStart),
            (At::TrailerLf, _) | (_, b'\n') => Err(Refusal::LineEnd),
            (At::TrailerStart, b'\r') => Ok(At::EndLf),
            (At::TrailerStart | At::TrailerName, _) if is_token_byte(byte) => Ok(At::TrailerName),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerName, b':') | (At::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(At::TrailerValue),
            _ => Err(Refusal::Trailer),
        }
    }
}

fn expect(byte: u8, wanted: u8, next: At, otherwise: Refusal) -> Result<At, Refusal> {
    if byte == wanted { Ok(next) } else { Err(otherwise) }
}
