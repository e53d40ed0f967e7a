//! What Tollgate makes of thousands of requests that two parsers might read in two ways: all that it
//! forwards is read alike by nginx, Apache, Node and Python, and each request is answered once.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};

use crate::raw;
use crate::support::client::{Client, Request};
use crate::support::http2::{DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, Peer, RST_STREAM, frame, literal};
use crate::support::parsers::message::{Answer, Message, shown};
use crate::support::parsers::mutations::{Case, cases};
use crate::support::parsers::recorder::{Forwarded, Recorder};
use crate::support::parsers::{Origins, read_before_sentinel, read_by};
use crate::support::tollgate::{Tollgate, field};

/// Proxies that share the cases.
const SHARES: usize = 4;
/// Requests behind each other on one connection to an origin.
const BATCH: usize = 64;

/// What became of one case.
struct Outcome {
    case: Case,
    answers: Vec<Answer>,
    forwarded: Vec<Forwarded>,
}

/// A proxy in front of an upstream that records, and a client that sends nothing but good requests.
struct Bench {
    recorder: Recorder,
    proxy: Tollgate,
    good: Client,
    sent: usize,
}

impl Bench {
    fn start() -> Self {
        let recorder = Recorder::start();
        let yaml =
            format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\naccess_log: {{ format: json }}\n", recorder.url());
        let proxy = Tollgate::start(&yaml);
        let good = proxy.client();
        Self { recorder, proxy, good, sent: 0 }
    }

    /// Sends one case and then a good request: when that has arrived, so has all that came before it.
    fn try_out(&mut self, case: Case) -> Outcome {
        let mut client = raw::Client::connect(self.proxy.web());
        client.send(&case.bytes[..case.cut]);
        if case.cut > 0 {
            std::thread::yield_now();
        }
        client.send(&case.bytes[case.cut..]).finish();
        let mut received = Vec::new();
        assert!(client.read_all(&mut received), "{}: neither closed nor reset: {}", case.kind, shown(&case.bytes));
        let answers = Answer::all(&received).unwrap_or_else(|error| panic!("{}: {error}", shown(&case.bytes)));
        assert_eq!(self.good.send(&Request::get("/good")).status, 200, "{}: {}", case.kind, shown(&case.bytes));
        self.sent += 1;
        let mut forwarded = self.recorder.take();
        let good =
            forwarded.iter().position(|seen| seen.message.as_ref().is_some_and(|message| message.target == "/good"));
        forwarded.remove(good.expect("the good request has arrived"));
        Outcome { case, answers, forwarded }
    }

    /// Whether the proxy's own log tells of the requests that were answered and forwarded, and no others.
    fn assert_logged(mut self, outcomes: &[Outcome]) {
        self.good.shutdown(Shutdown::Both);
        let own = |answer: &&Answer| !answer.field("x-request-id").is_empty();
        let answered: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.answers.iter().filter(own)).collect();
        let lines = self.proxy.access_lines(self.sent + answered.len());
        let statuses: HashMap<_, _> = lines.iter().map(|line| (field(line, "request_id"), line)).collect();
        assert_eq!(statuses.len(), lines.len(), "no id twice");
        for answer in answered {
            let line = statuses.get(answer.field("x-request-id")).unwrap_or_else(|| panic!("not logged: {answer:?}"));
            assert_eq!(field(line, "status"), answer.status.to_string(), "{line}");
        }
        for forwarded in outcomes.iter().flat_map(|outcome| &outcome.forwarded) {
            let Some(message) = &forwarded.message else { continue };
            let line = statuses.get(&message.id).unwrap_or_else(|| panic!("not logged: {message:?}"));
            assert_eq!(field(line, "method"), message.method, "{line}");
            assert_eq!(field(line, "bytes_in"), message.body.len().to_string(), "{line}");
            let path = field(line, "path");
            // A long one ends in dots.
            assert!(message.target.starts_with(path.trim_end_matches("...")), "{line}");
        }
    }
}

/// Sends all cases, through a few proxies beside each other.
fn try_all(cases: &[Case]) -> Vec<Outcome> {
    let share = cases.len().div_ceil(SHARES);
    std::thread::scope(|scope| {
        let shares = cases.chunks(share).map(|share| {
            scope.spawn(move || {
                let mut bench = Bench::start();
                let outcomes: Vec<_> = share.iter().map(|case| bench.try_out(case.clone())).collect();
                bench.assert_logged(&outcomes);
                outcomes
            })
        });
        let shares: Vec<_> = shares.collect();
        shares.into_iter().flat_map(|share| share.join().expect("no share fails")).collect()
    })
}

impl Outcome {
    /// Each forwarded request was answered once, in order, and nothing behind the last answer.
    fn assert_answered_once(&self) {
        let shown = || format!("{}: {}\n{:?}", self.case.kind, shown(&self.case.bytes), self.answers);
        let seen: Vec<_> =
            self.answers.iter().map(|answer| answer.field("x-seen")).filter(|id| !id.is_empty()).collect();
        let mut complete: Vec<_> = self.messages().map(|message| &*message.id).collect();
        // Connections to the upstream may end in another order than they began in.
        complete.sort_by_key(|id| seen.iter().position(|seen| seen == id));
        assert_eq!(seen, complete, "{}", shown());
        let last = self.answers.iter().position(Answer::is_last);
        assert!(last.is_none_or(|last| last + 1 == self.answers.len()), "behind the last: {}", shown());
        let refused =
            self.answers.iter().position(|answer| answer.field("x-request-id").is_empty() && answer.status > 100);
        assert!(refused.is_none_or(|refused| refused + 1 == self.answers.len()), "behind a refusal: {}", shown());
    }

    /// What was forwarded stands in the client's bytes, as a strict reader reads them.
    fn assert_meant(&self) {
        let meant = Message::all(&self.case.bytes);
        let mut meant = meant.iter();
        let mut messages: Vec<_> = self.messages().collect();
        messages.sort_by_key(|message| self.answers.iter().position(|answer| answer.field("x-seen") == message.id));
        for message in messages {
            let same = |meant: &&Message| (&meant.method, &meant.body) == (&message.method, &message.body);
            let found = meant.by_ref().find(same);
            assert!(found.is_some(), "{message:?} was not said by {}", shown(&self.case.bytes));
        }
    }

    fn messages(&self) -> impl Iterator<Item = &Message> {
        self.forwarded.iter().filter_map(|forwarded| forwarded.message.as_ref())
    }
}

/// Methods that every origin knows.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"];

/// Whether an origin may refuse a request that is beyond doubt: it need not know every method, and not
/// every one takes a host with a colon and no port.
fn is_peculiar(message: &Message) -> bool {
    !METHODS.contains(&&*message.method) || message.host.ends_with(':')
}

/// Whether what follows the request may be another protocol's.
fn asks_for_another_protocol(forwarded: &Forwarded) -> bool {
    forwarded.bytes.windows(10).any(|window| window == b"\r\nupgrade:")
}

/// What an origin reads otherwise than it was meant.
fn misread(address: SocketAddr, forwarded: &[&Forwarded]) -> Vec<String> {
    let is_plain = |one: &&&Forwarded| {
        !asks_for_another_protocol(one) && one.message.as_ref().is_some_and(|message| !is_peculiar(message))
    };
    let (plain, others): (Vec<_>, Vec<_>) = forwarded.iter().copied().partition(|one| is_plain(&one));
    let joined = |some: &[&Forwarded]| some.iter().flat_map(|one| one.bytes.clone()).collect::<Vec<_>>();
    let meant = |one: &&Forwarded| one.message.as_ref().map(Message::understood);
    let batches = plain
        .chunks(BATCH)
        .filter(|batch| read_before_sentinel(address, &joined(batch)) != Ok(batch.iter().filter_map(meant).collect()));
    let suspects = batches.flatten().chain(&others);
    suspects.filter_map(|one| misread_alone(address, one)).collect()
}

fn misread_alone(address: SocketAddr, one: &Forwarded) -> Option<String> {
    let message = one.message.as_ref()?;
    let read = if asks_for_another_protocol(one) {
        Ok(read_by(address, &one.bytes))
    } else {
        read_before_sentinel(address, &one.bytes)
    };
    let well = match &read {
        Ok(read) | Err(read) if is_peculiar(message) && read.len() == 1 && !read[0].contains(' ') => true,
        Ok(read) => read[..] == [message.understood()],
        Err(_) => false,
    };
    (!well).then(|| format!("{}\n    read as {read:?}", shown(&one.bytes)))
}

/// What an origin takes for a whole request although the proxy broke it off.
fn completed(address: SocketAddr, broken: &[&Forwarded]) -> Vec<String> {
    let read = |one: &&&Forwarded| read_by(address, &one.bytes).iter().any(|read| read.contains(' '));
    broken.iter().filter(read).map(|one| shown(&one.bytes)).collect()
}

#[test]
fn what_is_forwarded_is_read_alike_by_every_parser_and_answered_once() {
    let cases = cases();
    assert!(cases.len() >= 3_500, "{} cases", cases.len());
    let outcomes = try_all(&cases);
    for outcome in &outcomes {
        outcome.assert_answered_once();
        outcome.assert_meant();
    }
    let (whole, broken): (Vec<_>, Vec<_>) =
        outcomes.iter().flat_map(|outcome| &outcome.forwarded).partition(|forwarded| forwarded.message.is_some());
    println!("{} cases, {} requests forwarded, {} broken off", outcomes.len(), whole.len(), broken.len());
    assert!(whole.len() > 1_000 && broken.len() > 20, "the cases are worth something");
    assert_read_alike(&whole, &broken);
}

/// What was forwarded whole is read by every origin as it was meant, and what was broken off by none.
fn assert_read_alike(whole: &[&Forwarded], broken: &[&Forwarded]) {
    let origins = Origins::start();
    std::thread::scope(|scope| {
        let judges = origins.all().map(|(name, address)| {
            scope.spawn(move || {
                let (misread, completed) = (misread(address, whole), completed(address, broken));
                assert!(misread.is_empty(), "{name} misreads {} requests:\n{}", misread.len(), misread.join("\n"));
                assert!(completed.is_empty(), "{name} completes what was broken off:\n{}", completed.join("\n"));
            })
        });
        for judge in judges {
            judge.join().expect("every origin agrees");
        }
    });
}

/// The fields of requests over HTTP/2 with each byte there is in each place, and framing that HTTP/1 would
/// understand.
fn http2_fields() -> Vec<Vec<u8>> {
    let usual = |method: &[u8], authority: &[u8], path: &[u8]| {
        let pseudo = [literal(b":method", method), literal(b":scheme", b"http"), literal(b":authority", authority)];
        [pseudo.concat(), literal(b":path", path)].concat()
    };
    let with = |name: &[u8], value: &[u8]| [usual(b"POST", b"a", b"/f"), literal(name, value)].concat();
    let mut cases = Vec::new();
    for byte in 0..=u8::MAX {
        cases.extend([
            usual(&[b'P', byte, b'T'], b"a", b"/m"),
            usual(b"POST", &[b'a', byte, b'b'], b"/a"),
            usual(b"POST", b"a", &[b'/', b'p', byte, b'q']),
            usual(b"POST", b"a", &[b'/', b'?', byte, b'q']),
            with(&[b'x', byte, b'y'], b"z"),
            with(b"x", &[b'y', byte, b'z']),
            with(b"content-length", &[b'3', byte]),
            with(b"cookie", &[byte, b'a', b'=', byte]),
        ]);
    }
    let smuggled = b"y\r\ntransfer-encoding: chunked\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: evil\r\n\r\n";
    cases.extend([
        with(b"x", smuggled),
        with(b"x: y\r\ncontent-length", b"0"),
        with(b"host", b"evil"),
        with(b"transfer-encoding", b"chunked"),
        with(b"content-length", b"0"),
        with(b"content-length", b"38"),
        with(b"content_length", b"0"),
        with(b"expect", b"100-continue"),
        usual(b"POST", b"a", b"/ HTTP/1.1\r\nhost: evil\r\n\r\n"),
        usual(b"POST / HTTP/1.1\r\nhost: evil\r\n\r\nGET", b"a", b"/"),
        usual(b"POST", b"a\r\nx: y", b"/"),
    ]);
    cases
}

#[test]
fn what_is_forwarded_of_http2_is_read_alike_by_every_parser() {
    let recorder = Recorder::start();
    let proxy = Tollgate::start(&format!("listen: 127.0.0.1:0\nworkers: 1\nupstream: {}\n", recorder.url()));
    for fields in http2_fields() {
        let mut peer = Peer::connect(proxy.web());
        let body = b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n";
        let request = [frame(HEADERS, END_HEADERS, 1, &fields), frame(DATA, END_STREAM, 1, body)].concat();
        peer.send(&request).expect("sent");
        let end = |frame: &Frame| {
            frame.kind == RST_STREAM || frame.kind == GOAWAY || (frame.stream == 1 && frame.flags & 1 != 0)
        };
        peer.until(end).unwrap_or_else(|error| panic!("{error}, to {}", shown(&fields)));
    }
    let forwarded = recorder.take();
    let (whole, broken): (Vec<_>, Vec<_>) = forwarded.iter().partition(|forwarded| forwarded.message.is_some());
    println!("{} requests forwarded, {} broken off", whole.len(), broken.len());
    assert!(whole.len() > 500, "the cases are worth something");
    let bodies = whole.iter().filter_map(|one| one.message.as_ref()).all(|message| message.body.len() == 38);
    assert!(bodies, "every body is the one that was sent");
    assert_read_alike(&whole, &broken);
}
