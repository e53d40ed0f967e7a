//! Specificity by example, and the index against the sorted list on random route sets.

use std::fmt::Write as _;

use http::HeaderValue;

use super::*;

fn route(index: usize, name: &str, matches: Match) -> Arc<Route> {
    let timeout = Duration::from_secs(30);
    let encoded_path = EncodedPath::Reject;
    Arc::new(Route {
        name: name.into(),
        index,
        ordinal: index,
        matches,
        upstream: None,
        extras: None,
        policies: Box::default(),
        timeout: Some(timeout),
        retries: None,
        encoded_path,
    })
}

fn router(matches: Vec<(&str, Match)>) -> Router {
    let unmatched = route(matches.len(), "unmatched", Match::default());
    let routes = matches.into_iter().enumerate().map(|(index, (name, matches))| route(index, name, matches)).collect();
    Router::new(routes, unmatched)
}

fn on(hosts: &[&str], paths: &[&str]) -> Match {
    Match {
        hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        paths: paths.iter().map(|path| path_match(path)).collect(),
        ..Match::default()
    }
}

/// A template, or a regular expression behind `~`.
fn path_match(text: &str) -> PathMatch {
    match text.strip_prefix('~') {
        Some(regex) => PathMatch::Regex(PathRegex::parse(regex).unwrap()),
        None => PathMatch::Template(PathTemplate::parse(text).unwrap()),
    }
}

/// What routes see of a request.
struct Sent {
    host: String,
    path: String,
    compared: String,
    query: String,
    method: Method,
    headers: HeaderMap,
}

impl Sent {
    fn new(host: &str, path: &str, method: &Method) -> Self {
        let compared = target::comparable(path).into_owned();
        let (host, path, method) = (host.to_owned(), path.to_owned(), method.clone());
        Self { host, path, compared, query: String::new(), method, headers: HeaderMap::new() }
    }

    fn head(&self) -> Head<'_, '_> {
        Head {
            host: &self.host,
            path: &self.path,
            compared: &self.compared,
            query: Some(&*self.query),
            method: &self.method,
            headers: &self.headers,
        }
    }

    fn route<'a>(&'a self, router: &'a Router) -> &'a str {
        &router.find(&self.head()).route.name
    }
}

fn methods(mut matches: Match, methods: &[Method]) -> Match {
    matches.methods = methods.to_vec();
    matches
}

fn header(mut matches: Match, name: &'static str, value: &'static str) -> Match {
    matches.headers.push((HeaderName::from_static(name), wanted(value)));
    matches
}

fn query(mut matches: Match, name: &str, value: &str) -> Match {
    matches.query.push((name.into(), wanted(value)));
    matches
}

/// `+` for present, `-` for absent, a regular expression behind `~`, or an exact value.
fn wanted(value: &str) -> Wanted {
    match value {
        "+" => Wanted::Present,
        "-" => Wanted::Absent,
        _ if value.starts_with('~') => Wanted::Fits(Pattern::whole(&value[1..]).unwrap()),
        _ => Wanted::Exactly(value.as_bytes().into()),
    }
}

fn name_of(router: &Router, host: &str, path: &str) -> String {
    Sent::new(host, path, &Method::GET).route(router).to_owned()
}

#[test]
fn an_exact_host_wins_over_a_wildcard_and_that_over_none() {
    let router = router(vec![
        ("none", on(&[], &["/static/path"])),
        ("wide", on(&["*.example.com"], &["/*"])),
        ("narrow", on(&["*.api.example.com"], &["/*"])),
        ("exact", on(&["a.api.example.com"], &["/*"])),
    ]);
    assert_eq!(name_of(&router, "a.api.example.com", "/static/path"), "exact");
    assert_eq!(name_of(&router, "b.api.example.com", "/static/path"), "narrow");
    assert_eq!(name_of(&router, "x.b.api.example.com", "/"), "narrow");
    assert_eq!(name_of(&router, "api.example.com", "/"), "wide");
    assert_eq!(name_of(&router, "example.com", "/static/path"), "none");
    assert_eq!(name_of(&router, "", "/static/path"), "none");
    assert_eq!(name_of(&router, "example.com", "/other"), "unmatched");
}

#[test]
fn static_segments_win_over_parameters_and_those_over_the_rest() {
    let router = router(vec![
        ("all", on(&[], &["/*"])),
        ("rest", on(&[], &["/v1/*"])),
        ("param", on(&[], &["/v1/{tenant}/orders"])),
        ("static", on(&[], &["/v1/me/{what}"])),
        ("v1", on(&[], &["/v1"])),
    ]);
    assert_eq!(name_of(&router, "h", "/v1/me/orders"), "static");
    assert_eq!(name_of(&router, "h", "/v1/acme/orders"), "param");
    assert_eq!(name_of(&router, "h", "/v1/acme/users"), "rest");
    assert_eq!(name_of(&router, "h", "/v1"), "v1");
    assert_eq!(name_of(&router, "h", "/v1/"), "rest");
    assert_eq!(name_of(&router, "h", "/v2"), "all");
}

#[test]
fn more_conditions_win_and_then_file_order() {
    let api = || on(&[], &["/api"]);
    let router = router(vec![
        ("plain", api()),
        ("second", api()),
        ("post", methods(api(), &[Method::POST])),
        ("versioned", header(methods(api(), &[Method::POST]), "x-api-version", "2")),
    ]);
    let found = |method: &Method, version: Option<&'static str>| {
        let mut sent = Sent::new("h", "/api", method);
        let name = HeaderName::from_static("x-api-version");
        sent.headers.extend(version.map(|value| (name, HeaderValue::from_static(value))));
        sent.route(&router).to_owned()
    };
    assert_eq!(found(&Method::GET, Some("2")), "plain");
    assert_eq!(found(&Method::POST, None), "post");
    assert_eq!(found(&Method::POST, Some("3")), "post");
    assert_eq!(found(&Method::POST, Some("2")), "versioned");
}

#[test]
fn head_meets_what_holds_for_get() {
    let router = router(vec![("get", methods(on(&[], &["/a"]), &[Method::GET])), ("rest", on(&[], &["/*"]))]);
    let found = |method: &Method| Sent::new("h", "/a", method).route(&router).to_owned();
    assert_eq!(found(&Method::HEAD), "get");
    assert_eq!(found(&Method::OPTIONS), "rest");
}

#[test]
fn an_encoded_spelling_does_not_walk_around_a_static_segment() {
    let router = router(vec![("me", on(&[], &["/users/@me"])), ("rest", on(&[], &["/*"]))]);
    assert_eq!(name_of(&router, "h", "/users/%40me"), "me");
}

#[test]
fn every_path_of_a_route_captures_its_own_parameters() {
    let router = router(vec![("both", on(&["a", "b"], &["/x/{one}", "/y/{two}/{three}/*"]))]);
    let sent = Sent::new("b", "/y/1/2/3/4", &Method::GET);
    let head = sent.head();
    let found = router.find(&head);
    assert_eq!(found.params.to_vec(), [("two", "1"), ("three", "2"), ("rest", "3/4")]);
    assert_eq!(router.routes().map(|route| &*route.name).collect::<Vec<_>>(), ["both", "unmatched"]);
}

#[test]
fn a_regular_expression_ranks_behind_parameters_and_before_the_rest() {
    let router = router(vec![
        ("all", on(&[], &["/*"])),
        ("first", on(&[], &["~/[a-z]+/x"])),
        ("second", on(&[], &["~/.*"])),
        ("api", on(&[], &["/api/*"])),
        ("api regex", on(&[], &["~/api/v[0-9]+(/.*)?"])),
        ("api param", on(&[], &["/api/{x}"])),
        ("host", on(&["h"], &["~/(?<file>[a-z]+)\\.html"])),
    ]);
    for (path, expected) in [
        ("/api/v1", "api param"),
        ("/api/v1/x", "api regex"),
        ("/api/w1/x", "api"),
        ("/a/x", "first"),
        ("/A/x", "second"),
        ("/a.html", "host"),
    ] {
        assert_eq!(name_of(&router, "h", path), expected, "{path}");
    }
    assert_eq!(name_of(&router, "other", "/a.html"), "second");
    let sent = Sent::new("h", "/a.html", &Method::GET);
    assert_eq!(router.find(&sent.head()).params.to_vec(), [("file", "a")]);
}

#[test]
fn an_encoded_spelling_does_not_walk_around_a_regular_expression() {
    let router = router(vec![("me", on(&[], &["~/users/@[a-z]+"])), ("rest", on(&[], &["/*"]))]);
    assert_eq!(name_of(&router, "h", "/users/%40me"), "me");
    assert_eq!(name_of(&router, "h", "/users/@me"), "me");
}

#[test]
fn fields_and_parameters_match_by_value_by_presence_and_by_pattern() {
    let at = || on(&[], &["/a"]);
    let router = router(vec![
        ("beta", header(at(), "x-version", "~v[0-9]+-beta")),
        ("keyed", header(header(at(), "x-api-key", "+"), "x-internal", "-")),
        ("debug", query(header(at(), "x-api-key", "+"), "debug", "1")),
        ("plain", at()),
    ]);
    let found = |fields: &[(&'static str, &'static str)], query: &str| {
        let mut sent = Sent::new("h", "/a", &Method::GET);
        sent.query = query.to_owned();
        let fields = fields.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        sent.headers.extend::<Vec<(HeaderName, _)>>(fields.collect());
        let head = sent.head();
        let found = router.find(&head);
        (found.route.name.to_string(), found.is_ambiguous(Some(query)))
    };
    let told = |name: &str| (name.to_owned(), false);
    assert_eq!(found(&[], ""), told("plain"));
    assert_eq!(found(&[("x-version", "v2-beta")], ""), told("beta"));
    assert_eq!(found(&[("x-version", "v2-betamax")], ""), told("plain"));
    assert_eq!(found(&[("x-api-key", "")], ""), told("keyed"));
    assert_eq!(found(&[("x-api-key", "k"), ("x-internal", "1")], ""), told("plain"));
    assert_eq!(found(&[("x-api-key", "k"), ("x-internal", "1")], "a&%64ebug=%31"), told("debug"));
    assert_eq!(found(&[("x-api-key", "k"), ("x-internal", "1")], "debug=0&debug=1"), ("debug".to_owned(), true));
    assert_eq!(found(&[("x-api-key", "k"), ("x-internal", "1")], "debug=0&debug=2"), told("plain"));
}

#[test]
fn explain_says_which_condition_failed_first() {
    let router = router(vec![
        ("host", on(&["other"], &["/a"])),
        ("method", methods(on(&[], &["/a"]), &[Method::PUT])),
        ("header", header(on(&[], &["/a"]), "x-a", "1")),
        ("query", query(on(&[], &["/a"]), "q", "1")),
        ("path", on(&[], &["/b"])),
        ("match", on(&[], &["/*"])),
    ]);
    let sent = Sent::new("h", "/a", &Method::GET);
    let head = sent.head();
    let steps: Vec<_> = router.explain(&head).map(|step| step.outcome).collect();
    let name = HeaderName::from_static("x-a");
    assert_eq!(
        steps,
        [
            Considered::Host,
            Considered::Method,
            Considered::Header(&name),
            Considered::Query("q"),
            Considered::Path,
            Considered::Matched
        ]
    );
}

#[test]
fn a_route_is_shadowed_when_others_take_all_it_matches() {
    let router = router(vec![
        ("first", on(&["a"], &["/x/{id}"])),
        ("renamed", on(&["a"], &["/x/{other}"])),
        ("partly", on(&["a"], &["/x/{id}", "/y"])),
        ("get", methods(on(&[], &["/z"]), &[Method::GET])),
        ("head", methods(on(&[], &["/z"]), &[Method::HEAD])),
        ("get and post", methods(on(&[], &["/z"]), &[Method::GET, Method::POST])),
        ("anything", on(&[], &[])),
        ("rest", on(&[], &["/*", "/*"])),
        ("regex", on(&[], &["~/r/.*"])),
        ("same regex", header(on(&[], &["~/r/.*"]), "x-a", "1")),
        ("same regex again", on(&[], &["~/r/.*"])),
        ("narrower regex", on(&[], &["~/r/a.*"])),
        ("asked", query(on(&[], &["/z"]), "q", "1")),
        ("asked for more", query(query(on(&[], &["/z"]), "q", "1"), "p", "+")),
        ("asked again", query(on(&[], &["/z"]), "q", "1")),
    ]);
    let shadowed = router.shadowed();
    let names: Vec<_> = shadowed.iter().map(|(route, by)| (&*route.name, &*by.name)).collect();
    assert_eq!(
        names,
        [
            ("renamed", "first"),
            ("head", "get"),
            ("asked again", "asked"),
            ("same regex again", "regex"),
            ("rest", "anything")
        ]
    );
}

const HOSTS: [&str; 5] = ["a.test", "b.a.test", "c.b.a.test", "*.test", "*.a.test"];
const SEGMENTS: [&str; 6] = ["a", "b", "a", "@", "{p}", "{q}"];
const METHODS: [Method; 4] = [Method::GET, Method::HEAD, Method::POST, Method::PUT];

fn any_of<T: Clone>(random: &mut fastrand::Rng, from: &[T], most: usize) -> Vec<T> {
    (0..random.usize(..=most)).map(|_| from[random.usize(..from.len())].clone()).collect()
}

const REGEXES: [&str; 6] = ["~/a/.*", "~/(?<p0>[ab])/@", "~/a/b/?.*", "~.*", "~/(a|b)(/.*)?", "~/a/@/(?<p0>.+)"];

fn random_template(random: &mut fastrand::Rng) -> String {
    if random.u8(..5) == 0 {
        return REGEXES[random.usize(..REGEXES.len())].to_owned();
    }
    let mut text = String::new();
    for (position, segment) in any_of(random, &SEGMENTS, 3).into_iter().enumerate() {
        text.push('/');
        text.push_str(if segment.starts_with('{') { ["{p0}", "{p1}", "{p2}"][position] } else { segment });
    }
    text.push_str(if text.is_empty() {
        ["/", "/*"][random.usize(..2)]
    } else {
        ["", "/", "/*", ""][random.usize(..4)]
    });
    text
}

fn random_match(random: &mut fastrand::Rng) -> Match {
    let paths: Vec<String> = (0..random.usize(..3)).map(|_| random_template(random)).collect();
    let hosts = any_of(random, &HOSTS, 2);
    let mut matches = on(&hosts, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    matches.methods = any_of(random, &METHODS, 2);
    for (name, value) in any_of(random, &[("x-a", "1"), ("x-a", "2"), ("x-b", "1")], 1) {
        matches = header(matches, name, value);
    }
    for (name, value) in any_of(random, &[("q", "1"), ("q", "+"), ("p", "-"), ("p", "~[0-9]")], 1) {
        matches = query(matches, name, value);
    }
    matches
}

fn random_path(random: &mut fastrand::Rng) -> String {
    let segments = any_of(random, &["a", "b", "c", "@", "%40"], 4);
    let path: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
    if path.is_empty() || random.u8(..3) == 0 { path + "/" } else { path }
}

#[test]
fn the_index_and_the_sorted_list_agree() {
    let mut random = fastrand::Rng::with_seed(0x70_13);
    let (mut matched, mut requests) = (0, 0);
    for _ in 0..2_500 {
        let router = router((0..random.usize(1..14)).map(|_| ("route", random_match(&mut random))).collect());
        for _ in 0..40 {
            let host =
                ["a.test", "b.a.test", "c.b.a.test", "x.a.test", "test", "", ".a.test", "a.test."][random.usize(..8)];
            let mut sent = Sent::new(host, &random_path(&mut random), &METHODS[random.usize(..METHODS.len())]);
            let fields = any_of(&mut random, &[("x-a", "1"), ("x-a", "2"), ("x-b", "1")], 2).into_iter();
            sent.headers
                .extend(fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))));
            sent.query = any_of(&mut random, &["q=1", "q", "p=7", "%70=x", "p=+"], 2).join("&");
            let head = sent.head();
            let found = router.find(&head);
            let meant = router.explain(&head).find(|step| step.outcome == Considered::Matched);
            let meant = meant.map(|step| step.alternative.found(&head));
            assert_eq!(
                (found.route.index, &found.params),
                meant
                    .as_ref()
                    .map_or((router.unmatched.index, &Params::new()), |meant| (meant.route.index, &meant.params)),
                "{head:?} {router:#?}"
            );
            requests += 1;
            matched += u32::from(meant.is_some());
        }
    }
    assert!(requests == 100_000 && (30_000..95_000).contains(&matched), "{matched} of {requests} requests matched");
}

/// Another spelling of a query.
fn respell_query(query: &str, random: &mut fastrand::Rng) -> String {
    let mut spelled = String::new();
    for byte in query.bytes() {
        match byte {
            b'&' => spelled.push_str(["&", "&&", "&x=1&"][random.usize(..3)]),
            b'+' => spelled.push_str(["+", "%20"][random.usize(..2)]),
            b'=' => spelled.push('='),
            _ if random.u8(..3) == 0 => drop(write!(spelled, "%{byte:02x}")),
            _ => spelled.push(char::from(byte)),
        }
    }
    spelled
}

#[test]
fn all_spellings_of_a_request_meet_one_route_and_one_key() {
    let mut random = fastrand::Rng::with_seed(0x70_14);
    let router = router(vec![
        ("static", on(&[], &["/@/a", "/a@b/:"])),
        ("regex", on(&[], &["~/[a-z@]+(/(?<more>.*))?"])),
        ("fixed regex", on(&[], &["~/a/[^/]*@.*"])),
        ("param", on(&[], &["/{p}/b", "/{p}/{q}/*"])),
        ("asked", query(on(&[], &["/{p}/{q}/*"]), "k k", "1+")),
        ("asked by pattern", query(on(&[], &["~/.*"]), "k k", "~[a-z]+")),
    ]);
    let mut taken = HashMap::new();
    for _ in 0..40_000 {
        let meant = ["/@/a", "/a@b/:", "/a/x@y", "/ab/@/c", "/b@/b"];
        let path = match random.u8(..4) {
            0 => meant[random.usize(..meant.len())].to_owned(),
            _ => target::tests::random_canonical(&mut random),
        };
        // RFC 3986 calls these different; the router must not.
        let also = if random.bool() { path.replace('@', "%40") } else { path.replace(':', "%3a") };
        let spelled = target::tests::respell(&also, &mut random);
        let respelled = target::canonical_path(&spelled).unwrap().text.into_owned();
        let query = ["k+k=1%2B", "k+k=abc", "a=1&k+k=1", "a=1"][random.usize(..4)];
        let (mut one, mut other) = (Sent::new("h", &path, &Method::GET), Sent::new("h", &respelled, &Method::GET));
        one.query = query.to_owned();
        other.query = if query.contains('%') { query.to_owned() } else { respell_query(query, &mut random) };
        let (one_head, other_head) = (one.head(), other.head());
        let (found, again) = (router.find(&one_head), router.find(&other_head));
        assert_eq!(found.route.index, again.route.index, "{path} {spelled} {query} {}", other.query);
        let decoded = |params: &Params<'_>| {
            let value = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
            params.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect::<Vec<_>>()
        };
        assert_eq!(decoded(&found.params), decoded(&again.params), "{path} {spelled}");
        let key = |sent: &Sent| condition::parameters(Some(&*sent.query), "k k").map(|value| value.to_vec()).next();
        assert_eq!(key(&one), key(&other), "{query} {}", other.query);
        *taken.entry(found.route.name.to_string()).or_insert(0) += 1;
    }
    assert!(taken.len() == 7 && taken.values().all(|&count| count > 20), "{taken:?}");
}
