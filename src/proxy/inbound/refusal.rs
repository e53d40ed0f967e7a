//! Why a request was refused before it became one: a fixed word and a status for each reason.

use std::error::Error;

use http::StatusCode;

/// What was wrong with a request's bytes, or with the time they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed request: {}", self.kind())]
pub enum Refusal {
    /// The request line is not method, target and version, one space apart (RFC 9112 §3).
    RequestLine,
    /// The method is not a token of at most 32 characters.
    Method,
    /// The target has a form or a byte it must not have (RFC 9112 §3.2).
    Target,
    /// The target is longer than 8 KiB.
    TargetTooLong,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// The listener speaks HTTP/2 only.
    Protocol,
    /// The listener speaks TLS only.
    Plaintext,
    /// The head is longer than the listener allows.
    HeadTooLarge,
    /// The head has more than 100 fields.
    TooManyFields,
    /// A field name that is empty, not a token, or followed by a space (RFC 9112 §5.1).
    FieldName,
    /// A control character in a field value (RFC 9110 §5.5).
    FieldValue,
    /// A line that begins with a space or tab (RFC 9112 §5.2).
    Folding,
    /// A line that does not end in CR LF, or a CR elsewhere (RFC 9112 §2.2).
    LineEnd,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// A Host or authority that is not a host and perhaps a port.
    HostInvalid,
    /// The target names another host than Host does.
    HostMismatch,
    /// A Content-Length that is not one number that can be counted to (RFC 9110 §8.6).
    Length,
    /// More than one Content-Length.
    LengthRepeated,
    /// Content-Length beside Transfer-Encoding (RFC 9112 §6.1).
    LengthAndEncoding,
    /// A Transfer-Encoding that is not exactly one `chunked`, or on HTTP/1.0.
    Encoding,
    /// An Expect that is not `100-continue` (RFC 9110 §10.1.1).
    Expect,
    /// A chunk size that is not up to 16 hexadecimal digits (RFC 9112 §7.1).
    ChunkSize,
    /// A chunk extension that is malformed, or more than 16 KiB of them.
    ChunkExtension,
    /// A chunk that does not end where its size says.
    ChunkEnd,
    /// A malformed or too long trailer section.
    Trailer,
    /// The client closed in the middle of a head.
    Incomplete,
    /// The head took too long.
    HeadTimeout,
    /// The body stopped, or came too slowly.
    BodyTimeout,
    /// HTTP/2 frames that bring no request on its way, without end (RFC 9113 §10.5).
    Flood,
}

impl Refusal {
    /// The word for logs, metrics and the `details` of Proxy-Status (RFC 9209).
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::Version => "version",
            Self::Protocol => "protocol",
            Self::Plaintext => "plaintext",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::Folding => "folded_field",
            Self::LineEnd => "line_end",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostMismatch => "host_mismatch",
            Self::Length => "content_length",
            Self::LengthRepeated => "content_length_repeated",
            Self::LengthAndEncoding => "content_length_and_transfer_encoding",
            Self::Encoding => "transfer_encoding",
            Self::Expect => "expect",
            Self::ChunkSize => "chunk_size",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkEnd => "chunk_end",
            Self::Trailer => "trailer",
            Self::Incomplete => "incomplete_head",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::Flood => "http2_flood",
        }
    }

    /// The status a client is answered with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Version | Self::Protocol => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The refusal behind an error of a request's body stream, if that is what ended it.
    #[must_use]
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(*refusal);
            }
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}
