//! The keys of `tests:`.

use std::net::IpAddr;
use std::time::Duration;

use http::Method;

use crate::config::shape::{Named, OneOrMany, keys};
use crate::config::values::{AnswerStatus, Claims, HeaderText, RequestUrl, RetryAfter};

keys! {
    /// A test of the limits: requests that nobody sends, on a clock that nobody waits for, and what is expected of them.
    Trial {
        /// Its name; unique. Required.
        name: String,
        /// What is sent; a list is sent in the order of its instants. Required.
        send: OneOrMany<Sending>,
        /// What must come of it. Required.
        expect: Expectation,
    }
}

keys! {
    /// Requests that are alike.
    Sending {
        /// How many. Default: 1.
        count: u64,
        /// Their method. Default: GET.
        method: Method,
        /// Where to: `https://host/path?query`, or only `/path`. Default: /.
        url: RequestUrl,
        /// The client's address, as it is found behind trusted proxies. Default: 127.0.0.1.
        from: IpAddr,
        /// Their fields.
        headers: Named<HeaderText>,
        /// What their verified token says, as keys and values; a token in a field is not looked at. Default: they carry none.
        jwt_claims: Claims,
        /// The subject of the client's verified certificate, such as `CN=reader,O=Example` (RFC 4514). Default: none was shown.
        tls_subject: String,
        /// When the first of them is sent, from the beginning of the test. Default: 0s.
        at: Duration,
        /// Time between one and the next. Default: 0s, all at once.
        every: Duration,
        /// How the upstream answers those that are admitted, at once: what limits count by answers is then settled. Default: it is not known, and every charge stays.
        respond: Answer,
    }
}

keys! {
    /// An answer of the upstream in a test.
    Answer {
        /// Its status. Default: 200.
        status: AnswerStatus,
        /// Its fields.
        headers: Named<HeaderText>,
    }
}

keys! {
    /// What must come of the requests of a test. At least one of the keys is needed.
    Expectation {
        /// How many are admitted.
        allowed: u64,
        /// How many are denied.
        denied: u64,
        /// The Retry-After of the first denial: whole seconds, or `never` for a denial without one.
        retry_after: RetryAfter,
        /// The limit, or one of the limits, that decides each denial.
        denied_by: OneOrMany<String>,
        /// What the tightest limit has left after the last request.
        remaining: u64,
        /// The longest that an admitted request is held for its turn.
        longest_wait: Duration,
    }
}
