use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, Method};

use super::*;
use crate::limit::key::{Facts, NoClaims};
use crate::route::Params;
use crate::route::path::PathMatch;
use crate::route::pattern::PathTemplate;

/// A request's path and query; the rest is always the same.
fn rewritten(rewrite: &Rewrite, match_on: &str, path: &str, query: Option<&str>) -> Result<Rewritten, RewriteError> {
    let headers = HeaderMap::new();
    let compared = comparable(path);
    let template = PathMatch::Template(PathTemplate::parse(match_on).unwrap());
    let head =
        super::super::Head { host: "h", path, compared: &compared, query, method: &Method::GET, headers: &headers };
    let params = if template.matches(&head) { template.capture(&head) } else { Params::new() };
    let facts = Facts {
        client_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        method: &Method::GET,
        host: "h",
        path: &compared,
        query,
        headers: &headers,
        has_unsized_body: false,
        tls_subject: None,
        params: &params,
        route: "r",
        claims: &NoClaims,
    };
    let values = Values { facts: &facts, path, scheme: "http", request_id: "id", listener: "web" };
    rewrite.target(&values, EncodedPath::Reject)
}

fn path_of(path: PathRewrite, on: &str, sent: &str) -> Result<String, RewriteError> {
    rewritten(&Rewrite { path, ..Rewrite::default() }, on, sent, None).map(|rewritten| rewritten.path)
}

fn prefix(strip: &str, add: &str) -> PathRewrite {
    let given = |text: &str| (!text.is_empty()).then(|| Box::from(text));
    PathRewrite::Prefix { strip: given(strip), add: given(add) }
}

fn replace(template: &str) -> PathRewrite {
    PathRewrite::Replace(Template::parse(template).unwrap())
}

fn regex(pattern: &str, replace: &str) -> PathRewrite {
    PathRewrite::Regex { pattern: Pattern::part(pattern).unwrap(), replace: replace.into() }
}

#[test]
fn prefixes_are_whole_segments_however_they_are_spelled() {
    for (strip, add, sent, expected) in [
        ("/v1", "", "/v1/x/", "/x/"),
        ("/v1", "", "/v1", "/"),
        ("/v1", "", "/v1/", "/"),
        ("/v1", "", "/v10/x", "/v10/x"),
        ("/v1/api", "", "/v1/apix", "/v1/apix"),
        ("/@me", "", "/%40me/x%40y", "/x%40y"),
        ("/v1", "/v2", "/v1/x", "/v2/x"),
        ("/v1", "/v2", "/v1", "/v2/"),
        ("", "/a/b", "/", "/a/b/"),
    ] {
        assert_eq!(path_of(prefix(strip, add), "/*", sent).as_deref(), Ok(expected), "-{strip} +{add}: {sent}");
    }
    let told = rewritten(&Rewrite { path: prefix("/@me", ""), ..Rewrite::default() }, "/*", "/%40me/x", None).unwrap();
    assert_eq!(told.stripped.as_deref(), Some("/%40me"));
}

#[test]
fn a_path_is_replaced_and_its_variables_stay_segments() {
    let on = "/a/{x}/*";
    for (template, sent, expected) in [
        ("/v2/{path.rest}", "/a/b/c/d", Ok("/v2/c/d")),
        ("/v2/{path.rest}", "/a/b", Ok("/v2/")),
        ("/{path.x}/{path.x}", "/a/b%20c/d", Ok("/b%20c/b%20c")),
        ("{path}/more", "/a/b/", Ok("/a/b/more")),
        ("/v2{path}", "/a/b", Ok("/v2/a/b")),
        ("/{query.none}/x", "/a/b", Ok("/x")),
        ("/.{path.rest}/x", "/a/b", Err(RewriteError::DotSegment)),
        ("/.{path.rest}/x", "/a/b/.x", Ok("/..x/x")),
    ] {
        assert_eq!(path_of(replace(template), on, sent).as_deref(), expected.as_deref(), "{template} {sent}");
    }
    let from_query = |template, query| {
        rewritten(&Rewrite { path: replace(template), ..Rewrite::default() }, on, "/a/b", Some(query))
    };
    assert_eq!(from_query("/f/{query.file}", "file=a+b").unwrap().path, "/f/a%20b");
    assert_eq!(from_query("/f/{query.file}", "file=../x"), Err(RewriteError::Separator));
    assert_eq!(from_query("/f/{query.file}", "file=.."), Err(RewriteError::DotSegment));
    assert_eq!(from_query("/f/{query.file}", "file=%00"), Err(RewriteError::Separator));
    assert_eq!(from_query("/f/{query.file}", "file=a&file=b"), Err(RewriteError::Fill(FillError::Ambiguous)));
    assert_eq!(from_query("/f/{query.file}", "file=..;x"), Err(RewriteError::Path(TargetError::DotParameter)));
}

#[test]
fn what_a_pattern_finds_is_replaced() {
    for (pattern, with, sent, expected) in [
        ("^/v1/(.*)", "/v2/$1", "/v1/x/y", Ok("/v2/x/y")),
        ("^/(?<a>[^/]+)/(?<b>[^/]+)", "/${b}/$a", "/x/y/z", Ok("/y/x/z")),
        ("^/v1", "", "/v1", Ok("/")),
        ("^/v1/", "", "/v1/x", Ok("/x")),
        ("o", "0", "/foo/boo", Ok("/f00/b00")),
        ("nothing", "x", "/a%40b", Ok("/a%40b")),
        ("@", "-", "/a%40b", Ok("/a-b")),
        ("x", "", "/.x./y", Err(RewriteError::DotSegment)),
        ("2F", "25", "/a%2Fb", Err(RewriteError::Separator)),
    ] {
        assert_eq!(path_of(regex(pattern, with), "/*", sent).as_deref(), expected.as_deref(), "{pattern} {sent}");
    }
    assert_eq!(path_of(regex("(.*)", "$1$1"), "/*", &format!("/{}", "a".repeat(5_000))), Err(RewriteError::TooLong));
}

#[test]
fn a_query_keeps_what_is_not_named() {
    let query = |set: &[(&str, &str)], remove: &[&str], sent: Option<&str>| {
        let set = set.iter().map(|(name, text)| ((*name).into(), Template::parse(text).unwrap())).collect();
        let query = QueryEdits { set, remove: remove.iter().map(|name| (*name).into()).collect() };
        rewritten(&Rewrite { query, ..Rewrite::default() }, "/{x}", "/a%26b", sent).unwrap().query
    };
    assert_eq!(query(&[], &["a"], Some("b=%41&a=1&%61=2&c")).as_deref(), Some("b=%41&c"));
    assert_eq!(query(&[], &["a"], Some("a=1&a")), None);
    assert_eq!(query(&[("a", "{path.x}"), ("d d", "+")], &[], Some("a=1&b")).as_deref(), Some("b&a=a%26b&d%20d=%2B"));
    assert_eq!(query(&[("a", "{query.none}")], &[], Some("a=1")), None);
    assert_eq!(query(&[("a", "{query.b}")], &["b"], Some("b=1%262")).as_deref(), Some("a=1%262"));
    assert_eq!(query(&[], &[], Some("")).as_deref(), Some(""));
}

/// What is forwarded is a fixed point of the canonical form, whatever a client sends.
#[test]
fn a_rewritten_target_is_canonical() {
    let mut random = fastrand::Rng::with_seed(0xF00D);
    let pieces = ["a", "b", ".", "..", "%2e", "%2F", "%25", "%40", "@", "%C3%A9", ";", "x", "%00", "+", "%3F", "~"];
    let rewrites = [
        prefix("/a", ""),
        prefix("/a/b", "/b"),
        prefix("", "/@x"),
        replace("/v2/{path.rest}"),
        replace("/{path.rest}/{query.q}/{path.p}"),
        replace("/.{query.q}/{path}"),
        replace("{path}{query.q}."),
        regex("/a", ""),
        regex("[a.]", "."),
        regex("^/([^/]*)/(.*)$", "/$2/$1"),
        regex("%", "%25"),
        regex("[0-9]", ""),
    ];
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..60_000 {
        let text = |random: &mut fastrand::Rng, most: usize| -> String {
            (0..random.usize(..=most)).map(|_| pieces[random.usize(..pieces.len())]).collect()
        };
        let segments: Vec<_> = (0..random.usize(1..5)).map(|_| text(&mut random, 3)).collect();
        let sent = format!("/{}", segments.join("/"));
        let Ok(canonical) = canonical_path(&sent) else { continue };
        let query = format!("q={}", text(&mut random, 3));
        let path = rewrites[round % rewrites.len()].clone();
        let set = vec![("s".into(), Template::parse("{path}{query.q}").unwrap())];
        let rewrite = Rewrite { path, query: QueryEdits { set, remove: Vec::new() }, ..Rewrite::default() };
        let Ok(result) = rewritten(&rewrite, "/{p}/*", &canonical.text, Some(&query)) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let again = canonical_path(&result.path).unwrap();
        assert_eq!(again.text, result.path, "{sent}?{query} by {rewrite:?}");
        assert!(!again.encoded_separators, "{sent}?{query} by {rewrite:?}");
        assert!(!result.path.split('/').any(|segment| matches!(segment, "." | "..")));
        let query = result.query.unwrap();
        assert!(query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{query}");
    }
    assert!(accepted > 10_000 && refused > 5_000, "{accepted} accepted, {refused} refused");
}
