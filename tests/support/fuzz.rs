//! Mutated inputs for parsers, on stable Rust: the inputs of a kept corpus are changed at random, those that
//! lead to an outcome nobody has seen before become bases of further ones, and what makes a target fail
//! joins the corpus. There is no coverage to guide it; outcomes (a status, an error's kind) do instead.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::tollgate::repository;

/// How long each target is tried, unless `TOLLGATE_FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 10;
/// Longest input, bytes.
const LONGEST: usize = 16 * 1024;
/// Most inputs that mutations begin with.
const BASES: usize = 2_000;

/// Bytes that mean something to one parser or another.
const ODD: &[u8] = b"\r\n\0\x09\x0b\x0c\x7f\x80\xff :;,=\"\\/%#?@[]{}()<>&|*+-._~!$'^`019afAFxX";

/// Tries `target` with inputs made from the corpus of this name and these tokens. It fails by panicking,
/// and tells what it made of an input.
pub(crate) fn fuzz(name: &str, tokens: &[&str], mut target: impl FnMut(&[u8]) -> String) {
    let directory = repository().join("fuzz/corpus").join(name);
    let mut bases = corpus(&directory);
    let seed =
        std::env::var("TOLLGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let seconds =
        std::env::var("TOLLGATE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS);
    println!("TOLLGATE_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut outcomes = HashSet::new();
    let mut attempt = |input: &[u8]| match catch_unwind(AssertUnwindSafe(|| target(input))) {
        Ok(outcome) => outcomes.insert(outcome),
        Err(panic) => {
            let path = keep(&directory, input);
            println!("{name} fails on {}; kept as {}", input.escape_ascii(), path.display());
            resume_unwind(panic)
        }
    };
    for base in &bases {
        attempt(base);
    }
    let (begun, mut tried) = (Instant::now(), 0_usize);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let input = mutate(&mut rng, &bases, tokens);
        if attempt(&input) && bases.len() < BASES {
            bases.push(input);
        }
        tried += 1;
    }
    println!("{name}: {tried} inputs, {} outcomes", outcomes.len());
    assert!(tried > 20, "{name}: only {tried} inputs were tried");
}

fn corpus(directory: &PathBuf) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the corpus is empty");
    paths.iter().map(|path| std::fs::read(path).expect("a readable file")).collect()
}

/// Keeps an input that makes a target fail; where.
fn keep(directory: &std::path::Path, input: &[u8]) -> PathBuf {
    let hash = blake3::hash(input).to_hex();
    let path = directory.join(format!("found-{}", &hash[..16]));
    std::fs::write(&path, input).expect("the corpus can be written to");
    path
}

fn mutate(rng: &mut Rng, bases: &[Vec<u8>], tokens: &[&str]) -> Vec<u8> {
    let mut input = bases[rng.usize(..bases.len())].clone();
    for _ in 0..=rng.usize(..6) {
        change(rng, &mut input, bases, tokens);
    }
    input.truncate(LONGEST);
    input
}

/// One change at a random place.
fn change(rng: &mut Rng, input: &mut Vec<u8>, bases: &[Vec<u8>], tokens: &[&str]) {
    let at = rng.usize(..=input.len());
    let end = (at + rng.usize(..=16)).min(input.len());
    match rng.u8(..12) {
        0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        1 if at < input.len() => input[at] = ODD[rng.usize(..ODD.len())],
        2 => input.insert(at, ODD[rng.usize(..ODD.len())]),
        3 => input.insert(at, rng.u8(..)),
        4 => drop(input.drain(at..end)),
        5 => {
            let repeated = input[at..end].repeat(rng.usize(1..=64));
            drop(input.splice(at..at, repeated));
        }
        6 | 7 if !tokens.is_empty() => {
            drop(input.splice(at..end.min(at + rng.usize(..=4)), tokens[rng.usize(..tokens.len())].bytes()));
        }
        8 => {
            let run = vec![ODD[rng.usize(..ODD.len())]; 1 << rng.u8(..14)];
            drop(input.splice(at..at, run));
        }
        9 => {
            let other = &bases[rng.usize(..bases.len())];
            let from = rng.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        10 => input.truncate(at),
        _ => {
            let moved = input.split_off(at);
            input.splice(0..0, moved);
        }
    }
}
