//! HTTP/1.1 as it is written on a connection, read strictly: lines end in CRLF, fields have a colon.

use std::io::{self, BufRead};

/// Field lines: names in lower case, values without the blanks around them.
pub(crate) type Fields = Vec<(String, String)>;

/// One line without its CRLF; the end of the stream is an error.
pub(crate) fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| io::Error::other(format!("no CRLF: {line:?}")))
}

/// Field lines up to the empty one.
pub(crate) fn fields(stream: &mut impl BufRead) -> io::Result<Fields> {
    let mut fields = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("no colon: {line:?}")))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// One chunk; `None` is the last, whose trailers are still to be read.
pub(crate) fn chunk(stream: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = usize::from_str_radix(&line(stream)?, 16).map_err(io::Error::other)?;
    if size == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; size];
    stream.read_exact(&mut chunk)?;
    line(stream)?;
    Ok(Some(chunk))
}
