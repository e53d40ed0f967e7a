//! `docs/limits.svg`: the same requests under each algorithm, as the limiter's own functions decide them.
//! The picture in the repository is the one that they make now; `TOLLGATE_WRITE_PICTURE=1` writes it anew.

use std::fmt::Write as _;

use tollgate::limit::algorithm::fixed_window::Align;
use tollgate::limit::algorithm::{
    Algorithm, Bucket, Evaluation, FixedWindow, InFlight, Settlement, SlidingLog, SlidingWindow, State,
};
use tollgate::units::Rate;

use crate::support::tollgate::repository;

/// A full minute, so that the windows of the clock begin at 0 s, 10 s, 20 s …
const BEGIN_US: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;
/// The windows' length, and the period of the rates.
const WINDOW: i64 = 10 * SECOND;
/// What the picture shows.
const SPAN: i64 = 50 * SECOND;
/// How long a request takes, for the limit of those in flight.
const TAKES: i64 = 2 * SECOND;
/// One bar.
const BIN: i64 = SECOND / 2;

/// One row of the picture.
struct Lane {
    name: &'static str,
    terms: &'static str,
    /// Decided together.
    limits: Vec<Algorithm>,
}

/// What a row shows.
#[derive(Default)]
struct Course {
    /// When admitted requests go on to the upstream.
    admitted: Vec<i64>,
    denied: Vec<i64>,
}

/// Two bursts around the border of two windows, five requests a second for fifteen seconds, and a burst
/// after a rest: microseconds from the beginning.
fn arrivals() -> Vec<i64> {
    let every = |from: i64, step: i64, count: i64| (0..count).map(move |nth| from + nth * step);
    every(8 * SECOND, 150_000, 12)
        .chain(every(10 * SECOND + 50_000, 150_000, 12))
        .chain(every(15 * SECOND, 200_000, 75))
        .chain(every(43 * SECOND, 50_000, 20))
        .collect()
}

fn lanes() -> Vec<Lane> {
    let rate = |text: &str| text.parse::<Rate>().unwrap();
    let bucket = |text: &str, burst| Bucket::new(rate(text), burst).unwrap();
    let ten = rate("10/10s");
    let lane = |name, terms, limits| Lane { name, terms, limits };
    let window = |align| Algorithm::FixedWindow(FixedWindow::new(ten, align, 0).unwrap());
    vec![
        lane("token_bucket", "rate: 10/10s", vec![Algorithm::TokenBucket(bucket("10/10s", 10))]),
        lane(
            "leaky_bucket",
            "rate: 10/10s",
            vec![Algorithm::LeakyBucket { bucket: bucket("10/10s", 10), delay_after: 1 }],
        ),
        lane("fixed_window", "rate: 10/10s, align: clock", vec![window(Align::Utc)]),
        lane("fixed_window", "align: first_request", vec![window(Align::FirstRequest)]),
        lane("sliding_window", "rate: 10/10s", vec![Algorithm::SlidingWindow(SlidingWindow::new(ten, 0).unwrap())]),
        lane("sliding_log", "rate: 10/10s", vec![Algorithm::SlidingLog(SlidingLog::new(ten, 0).unwrap())]),
        lane(
            "two rates",
            "rate: [3/1s, 10/10s]",
            vec![Algorithm::TokenBucket(bucket("3/1s", 3)), Algorithm::TokenBucket(bucket("10/10s", 10))],
        ),
        lane("in_flight: 3", "each takes 2 s", vec![Algorithm::InFlight(InFlight { limit: 3, slot_us: 30_000_000 })]),
    ]
}

impl Lane {
    fn course(&self) -> Course {
        let mut states: Vec<Option<State>> = vec![None; self.limits.len()];
        let mut under_way: Vec<(i64, String)> = Vec::new();
        let mut course = Course::default();
        for (nth, at) in arrivals().into_iter().enumerate() {
            let (ended, goes_on) = under_way.into_iter().partition(|(until, _)| *until <= at);
            under_way = goes_on;
            for (until, slot) in ended {
                self.end(&mut states, BEGIN_US + until, &slot);
            }
            let slot = nth.to_string();
            match self.decide(&mut states, BEGIN_US + at, &slot) {
                Some(wait) => {
                    course.admitted.push(at + wait);
                    under_way.push((at + TAKES, slot));
                }
                None => course.denied.push(at),
            }
        }
        course
    }

    /// How long the request is held; `None` when it is denied.
    fn decide(&self, states: &mut [Option<State>], now_us: i64, slot: &str) -> Option<i64> {
        let evaluate = |(limit, state): (&Algorithm, &Option<State>)| limit.evaluate(state.as_ref(), 1, now_us);
        let evaluations: Vec<Evaluation> = self.limits.iter().zip(&*states).map(evaluate).collect();
        let granted = evaluations.iter().all(|evaluation| evaluation.allowed);
        for ((limit, evaluation), state) in self.limits.iter().zip(&evaluations).zip(states) {
            if let Some(change) = limit.written(evaluation, granted, slot) {
                *state = Some(change.applied(state.take()));
            }
        }
        let wait = evaluations.iter().map(|evaluation| evaluation.wait_us).max().unwrap_or(0);
        granted.then(|| wait.try_into().unwrap())
    }

    fn end(&self, states: &mut [Option<State>], now_us: i64, slot: &str) {
        for (limit, state) in self.limits.iter().zip(states) {
            let settlement = Settlement { amount: -1, charged_at_us: now_us, slot };
            if matches!(limit, Algorithm::InFlight(_))
                && let Some(change) = limit.settled(state.as_ref(), &settlement, now_us)
            {
                *state = Some(change.applied(state.take()));
            }
        }
    }
}

impl Course {
    /// The most that go on to the upstream within any ten seconds.
    fn most(&self) -> usize {
        let within = |from: &i64| self.admitted.iter().filter(|at| (*from..from + WINDOW).contains(*at)).count();
        self.admitted.iter().map(within).max().unwrap_or(0)
    }
}

const LEFT: i64 = 200;
const WIDTH: i64 = 650;
const TOP: i64 = 58;
const ROW: i64 = 58;
/// Height of one request in a bar.
const UNIT: i64 = 4;

/// Colours of a card of its own, so that it can be read on any page.
const STYLE: &str = "
  text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .card { fill: #ffffff; stroke: #d1d9e0 } .name { font-weight: 600; font-size: 13px }
  .dim { fill: #59636e; font-size: 11px } .yes { fill: #1a7f37 } .no { fill: #d1242f; opacity: .28 }
  .in { fill: #59636e } .line { stroke: #d1d9e0 } .window { stroke: #d1d9e0; stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .card { fill: #0d1117; stroke: #3d444d } .dim { fill: #9198a1 } .yes { fill: #3fb950 }
    .no { fill: #f85149; opacity: .55 } .in { fill: #9198a1 } .line, .window { stroke: #3d444d }
  }
";

fn x(at: i64) -> i64 {
    LEFT + at * WIDTH / SPAN
}

/// Bars of what happened in each half second, standing on what stands there already.
fn bars(svg: &mut String, class: &str, base: i64, instants: &[i64], under: &[i64]) {
    let in_bin = |instants: &[i64], from: i64| instants.iter().filter(|at| (from..from + BIN).contains(*at)).count();
    for from in (0..SPAN).step_by(BIN.unsigned_abs().try_into().unwrap()) {
        let height = i64::try_from(in_bin(instants, from)).unwrap() * UNIT;
        let below = i64::try_from(in_bin(under, from)).unwrap() * UNIT;
        if height > 0 {
            let (left, top, width) = (x(from), base - below - height, x(from + BIN) - x(from) - 1);
            writeln!(svg, r#"<rect class="{class}" x="{left}" y="{top}" width="{width}" height="{height}"/>"#).unwrap();
        }
    }
}

/// A row: its name and terms, its bars, and a number at its end.
fn row(svg: &mut String, nth: i64, labels: (&str, &str, &str), draw: impl FnOnce(&mut String, i64)) {
    let base = TOP + (nth + 1) * ROW - 10;
    let (name, terms, end) = labels;
    writeln!(svg, r#"<text class="name" x="16" y="{}">{name}</text>"#, base - 16).unwrap();
    writeln!(svg, r#"<text class="dim" x="16" y="{}">{terms}</text>"#, base - 1).unwrap();
    writeln!(svg, r#"<line class="line" x1="{LEFT}" y1="{base}" x2="{}" y2="{base}"/>"#, LEFT + WIDTH).unwrap();
    writeln!(svg, r#"<text x="{}" y="{}" text-anchor="middle">{end}</text>"#, LEFT + WIDTH + 45, base - 8).unwrap();
    draw(svg, base);
}

fn svg() -> String {
    let lanes = lanes();
    let rows = i64::try_from(lanes.len()).unwrap() + 1;
    let (width, height) = (LEFT + WIDTH + 96, TOP + rows * ROW + 34);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"The same requests over fifty seconds and what each algorithm admits of them\">\n\
         <style>{STYLE}</style>\n\
         <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        width - 1,
        height - 1
    );
    legend(&mut svg);
    for at in (0..=SPAN).step_by(WINDOW.unsigned_abs().try_into().unwrap()) {
        let bottom = TOP + rows * ROW;
        writeln!(svg, r#"<line class="window" x1="{0}" y1="{TOP}" x2="{0}" y2="{bottom}"/>"#, x(at)).unwrap();
        let seconds = at / SECOND;
        writeln!(svg, r#"<text class="dim" x="{}" y="{}" text-anchor="middle">{seconds} s</text>"#, x(at), bottom + 18)
            .unwrap();
    }
    row(&mut svg, 0, ("requests", "of one key", ""), |svg, base| bars(svg, "in", base, &arrivals(), &[]));
    for (nth, lane) in (1..).zip(&lanes) {
        let course = lane.course();
        row(&mut svg, nth, (lane.name, lane.terms, &course.most().to_string()), |svg, base| {
            bars(svg, "yes", base, &course.admitted, &[]);
            bars(svg, "no", base, &course.denied, &course.admitted);
        });
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    for (left, class, text) in
        [(LEFT, "yes", "goes on to the upstream"), (LEFT + 190, "no", "denied"), (LEFT + 270, "in", "arrives")]
    {
        writeln!(svg, r#"<rect class="{class}" x="{left}" y="20" width="10" height="10"/>"#).unwrap();
        writeln!(svg, r#"<text x="{}" y="29">{text}</text>"#, left + 16).unwrap();
    }
    let middle = LEFT + WIDTH + 45;
    writeln!(svg, r#"<text class="dim" x="{middle}" y="24" text-anchor="middle">most within</text>"#).unwrap();
    writeln!(svg, r#"<text class="dim" x="{middle}" y="38" text-anchor="middle">any 10 s</text>"#).unwrap();
}

#[test]
fn the_picture_shows_what_the_algorithms_do() {
    let path = repository().join("docs/limits.svg");
    let drawn = svg();
    if std::env::var_os("TOLLGATE_WRITE_PICTURE").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(kept == drawn, "{} shows something else; run this test with TOLLGATE_WRITE_PICTURE=1", path.display());
}

#[test]
fn what_the_document_says_of_each_algorithm_holds_in_the_picture() {
    for lane in lanes() {
        let course = lane.course();
        let most = course.most();
        let bound = match &lane.limits[0] {
            Algorithm::SlidingLog(_) => 10..=10,
            Algorithm::TokenBucket(_) | Algorithm::LeakyBucket { .. } | Algorithm::FixedWindow(_) => 10..=20,
            Algorithm::SlidingWindow(_) => 10..=19,
            // Three at once, each for two seconds.
            _ => 3..=18,
        };
        assert!(bound.contains(&most), "{} {}: {most}", lane.name, lane.terms);
        assert_eq!(course.admitted.len() + course.denied.len(), arrivals().len());
    }
}
