use http::{HeaderMap, Method};

use super::*;
use crate::limit::key::{Facts, NoClaims};

fn with<T>(query: &str, read: impl FnOnce(&Values<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-a", "one"), ("x-a", "two"), ("cookie", "s=a%20b"), ("authorization", "Bearer t")] {
        headers.append(name, value.parse().unwrap());
    }
    let facts = Facts {
        client_ip: "2001:db8::1".parse().ok(),
        method: &Method::GET,
        host: "api.example.com",
        path: "/t/a@b/x",
        query: Some(query),
        headers: &headers,
        has_unsized_body: false,
        tls_subject: Some(b"CN=bob,O=Example"),
        params: &[("tenant", "a%40b"), ("rest", "x/y%2Fz")],
        route: "orders",
        claims: &NoClaims,
    };
    let (path, scheme, request_id, listener) = ("/t/a%40b/x", "https", "id-1", "web");
    read(&Values { facts: &facts, path, scheme, request_id, listener })
}

fn field(text: &str) -> String {
    let template = Template::parse(text).unwrap();
    with("q=1&d=%0d%0a", |values| String::from_utf8(template.fill(values).unwrap()).unwrap())
}

fn url(text: &str) -> String {
    let template = Template::parse(text).unwrap();
    with("q=1%262&r=/e", |values| template.fill_url(values).unwrap())
}

#[test]
fn variables_are_filled_in_decoded() {
    for (text, expected) in [
        ("{client_ip} {host} {method} {path} {query}", "2001:db8::1 api.example.com GET /t/a%40b/x q=1&d=%0d%0a"),
        ("{scheme}/{request_id}/{route}/{listener}", "https/id-1/orders/web"),
        ("<{path.tenant}> {path.rest}", "<a@b> x/y/z"),
        ("{header.X-A}|{header.authorization}", "one, two|Bearer t"),
        ("{cookie.s} {query.q} {tls.subject}", "a b 1 CN=bob,O=Example"),
        ("{jwt.sub}{header.none}{query.none}", ""),
        ("{query.d}", "\r\n"),
        ("{{host}} }} } {{", "{host} } } {"),
        ("", ""),
    ] {
        assert_eq!(field(text), expected, "{text}");
    }
}

#[test]
fn in_urls_values_stay_in_their_place() {
    for (text, expected) in [
        ("/v2/{path.rest}", "/v2/x/y%2Fz"),
        ("/v2/{query.r}", "/v2/%2Fe"),
        ("https://{host}{path}?{query}", "https://api.example.com/t/a%40b/x?q=1%262&r=/e"),
        ("/x?id={path.rest}&q={query.q}", "/x?id=x%2Fy%2Fz&q=1%262"),
        ("/x/{query}", "/x/q%3D1%25262%26r%3D%2Fe"),
        ("/x/{header.x-a}", "/x/one%2C%20two"),
    ] {
        assert_eq!(url(text), expected, "{text}");
    }
}

#[test]
fn what_occurs_twice_is_no_value() {
    let filled = |text: &str| with("q=1&q=2", |values| Template::parse(text).unwrap().fill(values));
    assert_eq!(filled("{query.q}"), Err(FillError::Ambiguous));
    assert!(filled("{query}").is_ok());
}

#[test]
fn an_unknown_variable_names_the_nearest() {
    for (text, expected) in [
        ("{client-ip}", "did you mean `{client_ip}`?"),
        ("{remote_addr}", "did you mean `{client_ip}`?"),
        ("{headr.x-a}", "did you mean `{header.x-a}`?"),
        ("{header:x-a}", "did you mean `{header.x-a}`?"),
        ("{header}", "such as `{header.x-api-key}`"),
        ("{query.}", "such as `{query.id}`"),
        ("{tls.issuer}", "write `tls:subject`"),
        ("{zzz}", "there are {client_ip}"),
        ("{}", "there are {client_ip}"),
        ("{cookie.a=b}", "printable ASCII"),
        ("{cookie.a|host}", "printable ASCII"),
        ("a {host", "does not close"),
        ("{a secret}", "`{…}` is no variable"),
    ] {
        let told = Template::parse(text).unwrap_err().to_string();
        assert!(told.contains(expected), "{text}: {told}");
    }
}
