//! The index: a shortcut to the matching alternatives of the specificity-sorted list, in its order.
//!
//! By host, then a tree of path segments. Walking static before `{param}` before regular expressions
//! before `*` meets the alternatives in the order of the list, so the first accepted one is the list's first match;
//! a test compares the two. Cost grows with the path's segments, not with the number of routes.

use std::collections::HashMap;

use super::alternative::{Alternative, End};
use super::pattern::{HostPattern, split_segment};
use super::target::comparable;

type Map<V> = HashMap<Box<str>, V, ahash::RandomState>;

/// Positions in the sorted list, by host and path.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: Map<Node>,
    /// By suffix, with its leading dot.
    wildcard: Map<Node>,
    any: Node,
}

/// A prefix of segments.
#[derive(Debug, Default)]
struct Node {
    statics: Map<Node>,
    param: Option<Box<Node>>,
    /// Alternatives whose template ends here.
    ends: Vec<usize>,
    /// Regular expressions that begin so.
    regexes: Vec<usize>,
    /// Alternatives that take whatever follows.
    rests: Vec<usize>,
}

impl Index {
    pub(super) fn new(sorted: &[Alternative]) -> Self {
        let mut index = Self::default();
        for (position, alternative) in sorted.iter().enumerate() {
            let mut node = match &alternative.host {
                Some(HostPattern::Exact(host)) => index.exact.entry(host.clone()).or_default(),
                Some(HostPattern::Wildcard(suffix)) => index.wildcard.entry(suffix.clone()).or_default(),
                None => &mut index.any,
            };
            for segment in alternative.segments() {
                node = match segment {
                    Some(text) => node.statics.entry(text.into()).or_default(),
                    None => &mut **node.param.get_or_insert_default(),
                };
            }
            match alternative.end() {
                End::Here => node.ends.push(position),
                End::Regex(_) => node.regexes.push(position),
                End::Rest => node.rests.push(position),
            }
        }
        index
    }

    /// The first position, in the order of the list, whose host and template match and that is accepted; whether a
    /// regular expression fits is for `accepts` to say.
    pub(super) fn find(&self, host: &str, path: &str, accepts: impl Fn(usize) -> bool) -> Option<usize> {
        let path = path.strip_prefix('/');
        if let Some(found) = self.exact.get(host).and_then(|node| node.find(path, &accepts)) {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            let suffixes = host.match_indices('.').filter(|&(at, _)| at > 0).map(|(at, _)| &host[at..]);
            for node in suffixes.filter_map(|suffix| self.wildcard.get(suffix)) {
                if let Some(found) = node.find(path, &accepts) {
                    return Some(found);
                }
            }
        }
        self.any.find(path, &accepts)
    }
}

impl Node {
    /// `path`: the segments after this prefix, or `None` when there are none (not even an empty one).
    fn find(&self, path: Option<&str>, accepts: &impl Fn(usize) -> bool) -> Option<usize> {
        let first_accepted = |positions: &[usize]| positions.iter().copied().find(|&position| accepts(position));
        let deeper = match path {
            Some(path) => self.descend(path, accepts),
            None => first_accepted(&self.ends),
        };
        deeper.or_else(|| first_accepted(&self.regexes)).or_else(|| first_accepted(&self.rests))
    }

    fn descend(&self, path: &str, accepts: &impl Fn(usize) -> bool) -> Option<usize> {
        let (segment, after) = split_segment(path);
        let fixed = if self.statics.is_empty() { None } else { self.statics.get(&*comparable(segment)) };
        let param = self.param.as_deref().filter(|_| !segment.is_empty());
        fixed.and_then(|node| node.find(after, accepts)).or_else(|| param.and_then(|node| node.find(after, accepts)))
    }
}
