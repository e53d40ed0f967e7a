//! What a call looks like on the wire, and which replies are believed.

use redis::{ServerError, Value};

use super::super::answers::{error_kind, is_unknown_script, read_reply, refuses_time};
use super::*;
use crate::limit::algorithm::Bucket;
use crate::limit::key::Subject;
use crate::limit::stats::StoreErrorKind;
use crate::limit::store::Answer;

const BUCKET: Algorithm = Algorithm::TokenBucket(Bucket { capacity: 10, rate: 1, period: 600_000, tick: 1, debt: 0 });
const LEAKY: Algorithm = Algorithm::LeakyBucket {
    bucket: Bucket { capacity: 5, rate: 3, period: 1_000_000, tick: 1, debt: 0 },
    delay_after: 2,
};

fn ask<'a>(algorithm: &'a Algorithm, subject: &'a Subject, shadow: bool) -> Ask<'a> {
    Ask { shadow: u8::from(shadow), ..Ask::new("api", algorithm, subject, 2) }
}

fn words(call: &Command) -> Vec<String> {
    let Ok(Value::Array(words)) = redis::parse_redis_value(call.bytes()) else { panic!("no array of words") };
    words.into_iter().map(|word| redis::from_redis_value(word).unwrap()).collect()
}

fn error(text: &str) -> ServerError {
    match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
        Ok(Value::ServerError(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn ints(numbers: &[i64]) -> Value {
    Value::Array(numbers.iter().copied().map(Value::Int).collect())
}

#[test]
fn one_enforced_token_bucket_has_a_script_of_its_own() {
    let subject = Subject::from_slice(b"192.0.2.1");
    let asks = [ask(&BUCKET, &subject, false)];
    let script = Script::for_asks(&asks);
    assert_eq!(script, Script::OneTokenBucket);
    assert_eq!(
        words(&script.by_sha("abc", "tollgate", 0, &asks)),
        ["EVALSHA", "abc", "1", "tollgate:{192.0.2.1}:api:b1", "0", "2", "10", "600000", "1", "1"]
    );
}

#[test]
fn several_limits_send_their_parameters_one_after_the_other() {
    let subject = Subject::from_slice(b"s");
    let asks = [ask(&BUCKET, &subject, true), ask(&LEAKY, &subject, false)];
    let script = Script::for_asks(&asks);
    assert_eq!(script, Script::Buckets);
    let words = words(&script.by_text("p", 7, &asks));
    assert_eq!(words[0], "EVAL");
    assert_eq!(
        words[2..],
        [
            "2",
            "p:{s}:api:b1",
            "p:{s}:api:q1",
            "7",
            "1",
            "b",
            "1",
            "2",
            "10",
            "600000",
            "1",
            "1",
            "0",
            "0",
            "q",
            "0",
            "2",
            "5",
            "1000000",
            "3",
            "1",
            "2",
            "0"
        ]
    );
    assert_eq!(Script::for_asks(&asks[..1]), Script::TokenBuckets, "a shadow limit needs the general script");
}

#[test]
fn a_reply_becomes_a_decision() {
    let subject = Subject::from_slice(b"s");
    let asks = [ask(&BUCKET, &subject, false), ask(&LEAKY, &subject, true)];
    let reply = read_reply(ints(&[1, 99, 5, 0, 1, 3, 0, 70, 0, 0, -1, 80]), &asks).unwrap();
    assert!(reply.granted);
    assert_eq!((reply.now_us, reply.wait_us, reply.retry_us), (99, 5, 0));
    assert_eq!(reply.answers[0], Answer { allowed: true, remaining: 3, retry_us: 0, reset_us: 70 });
    assert_eq!(reply.answers[1], Answer { allowed: false, remaining: 0, retry_us: -1, reset_us: 80 });
}

#[test]
fn replies_that_the_script_cannot_have_sent_are_refused() {
    let subject = Subject::from_slice(b"s");
    let asks = [ask(&BUCKET, &subject, false)];
    let cases = [
        ints(&[]),
        ints(&[1, 99, 0, 0]),
        ints(&[2, 99, 0, 0, 1, 3, 0, 70]),
        ints(&[1, -1, 0, 0, 1, 3, 0, 70]),
        ints(&[1, 99, -1, 0, 1, 3, 0, 70]),
        ints(&[1, 99, 0, 0, 0, 3, 5, 70]),
        ints(&[0, 99, 0, 5, 1, 3, 0, 70]),
        ints(&[0, 99, 0, -2, 0, 3, -2, 70]),
        ints(&[1, 99, 0, 0, 1, i64::MAX, 0, 70]),
        ints(&[1, 99, 0, 0, 1, 3, 0, 70, 1]),
        Value::Nil,
        Value::Okay,
        Value::Int(1),
        Value::Array(vec![Value::Nil; 8]),
        Value::BulkString(b"1".to_vec()),
    ];
    for case in cases {
        assert_eq!(read_reply(case.clone(), &asks), Err(StoreErrorKind::Protocol), "{case:?}");
    }
}

#[test]
fn error_replies_are_told_apart() {
    let cases = [
        ("LOADING Redis is loading the dataset in memory", StoreErrorKind::Loading),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", StoreErrorKind::Loading),
        (
            "READONLY You can't write against a read only replica. script: abc, on @user_script:1.",
            StoreErrorKind::Readonly,
        ),
        ("OOM command not allowed when used memory > 'maxmemory'. script: abc", StoreErrorKind::Oom),
        (
            "ERR Error running script (call to f_1): @user_script:9: -OOM command not allowed when used memory > 'maxmemory'.",
            StoreErrorKind::Oom,
        ),
        ("NOSCRIPT No matching script. Please use EVAL.", StoreErrorKind::Noscript),
        ("MOVED 12182 127.0.0.1:17103", StoreErrorKind::Moved),
        ("CROSSSLOT Keys in request don't hash to the same slot", StoreErrorKind::Moved),
        ("CLUSTERDOWN The cluster is down", StoreErrorKind::Clusterdown),
        ("NOAUTH Authentication required.", StoreErrorKind::Noauth),
        ("WRONGPASS invalid username-password pair or user is disabled.", StoreErrorKind::Noauth),
        ("NOPERM this user has no permissions to run the 'evalsha' command", StoreErrorKind::Noperm),
        ("ERR The user executing the script can't run this command or subcommand", StoreErrorKind::Noperm),
        ("MISCONF Redis is configured to save RDB snapshots", StoreErrorKind::Misconf),
        ("NOREPLICAS Not enough good replicas to write.", StoreErrorKind::Misconf),
        ("BUSY Redis is busy running a script.", StoreErrorKind::Busy),
        ("ERR max number of clients reached", StoreErrorKind::Refused),
        ("ERR unknown command 'EVALSHA'", StoreErrorKind::Protocol),
        ("WHATEVER", StoreErrorKind::Protocol),
    ];
    for (text, kind) in cases {
        assert_eq!(error_kind(&error(text)), kind, "{text}");
    }
    let refusal = Value::ServerError(error("ERR This Redis command is not allowed from script"));
    assert!(refuses_time(&refusal));
    assert!(!is_unknown_script(&refusal));
}
