//! What `docs/observability.md` says of logs and metrics, against the code and the running program.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::port::Port;
use crate::support::tollgate::{Tollgate, repository};

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).expect("a file of the repository")
}

/// The part of the page below a heading.
fn section(heading: &str) -> String {
    let page = text("docs/observability.md");
    let (_, below) = page.split_once(&format!("\n{heading}\n")).expect("the heading is there");
    let end = below.find("\n## ").unwrap_or(below.len());
    below[..end].to_owned()
}

/// Cells of the rows of all tables, without their heads.
fn rows(section: &str) -> Vec<Vec<String>> {
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .filter(|row: &Vec<String>| row[0] != "`error`")
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_value_of_error_is_explained_with_its_status_and_no_other() {
    let documented: BTreeSet<_> = rows(&section("### Values of `error`"))
        .iter()
        .map(|row| {
            let status = if row.len() == 3 { row[1].clone() } else { "as sent".to_owned() };
            (quoted(&row[0]).concat(), status)
        })
        .collect();
    let rejections = text("src/proxy/rejection.rs");
    let of_rejections = rejections.lines().filter(|line| line.contains("stream, \"") || line.contains("Proxy, \""));
    let mut in_code: BTreeSet<_> = of_rejections
        .map(|line| {
            let (_, facts) = line.split_once("=> (").expect("a row of facts");
            (facts.split('"').nth(1).expect("a label").to_owned(), facts[..3].to_owned())
        })
        .collect();
    let cuts = text("src/proxy/cut.rs");
    let cuts = cuts.lines().filter(|line| line.contains("=> \""));
    in_code.extend(cuts.map(|line| (line.split('"').nth(1).expect("a label").to_owned(), "as sent".to_owned())));
    assert!(in_code.len() > 38, "{in_code:?}");
    assert_eq!(documented, in_code);
}

#[test]
fn every_line_of_the_log_that_is_explained_exists() {
    fn sources(directory: &Path, all: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, all);
            } else {
                all.push_str(&std::fs::read_to_string(path).expect("text"));
            }
        }
    }
    let mut code = String::new();
    sources(&repository().join("src"), &mut code);
    let rows = rows(&section("## The process log"));
    let lines: Vec<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert!(lines.len() > 30, "{lines:?}");
    for line in lines {
        let begin = line.trim_end_matches(", …").trim_end_matches("; …");
        assert!(code.contains(&format!("\"{begin}")), "no line of the log begins with `{begin}`");
    }
}

#[test]
fn servers_that_fail_are_seen_by_the_metric_that_alerts_go_by_and_not_by_the_healthy_ones() {
    let (one, other) = (Port::take(), Port::take());
    let proxy = Tollgate::start(&format!(
        "listen: 127.0.0.1:0\nworkers: 1\nupstreams: {{ api: {{ servers: ['{}', '{}'] }} }}\n\
         routes: [{{ name: all, upstream: api }}]\n",
        one.url(),
        other.url()
    ));
    for _ in 0..20 {
        assert_eq!(proxy.get("/").status, 502);
    }
    let metrics = proxy.metrics();
    let of_api = |metric, label| metrics.count(metric, &[("upstream", "api"), label]);
    assert!(of_api("tollgate_upstream_requests_total", ("code", "error")) >= 20);
    assert_eq!(of_api("tollgate_upstream_requests_total", ("code", "200")), 0);
    // Why it is no alert: passive checks leave one.
    assert_eq!(of_api("tollgate_upstream_endpoints", ("state", "ejected")), 1);
    assert_eq!(of_api("tollgate_upstream_endpoints", ("state", "healthy")), 1);
}
