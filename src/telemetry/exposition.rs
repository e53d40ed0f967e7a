//! The text formats in which Prometheus reads metrics: the classic one (0.0.4) and `OpenMetrics` 1.0.

use std::fmt::Write as _;

use super::histogram::Distribution;

/// Which text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Classic,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples are called `<name>_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by upper bound.
    Histogram,
}

/// Label names and values of a sample.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// A scrape being written: families one after the other, each followed by its samples.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    format: Format,
    /// Name of the samples of the current family.
    sample: String,
}

impl Format {
    /// The format that a request's Accept field asks for.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Classic }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Kind {
    /// Its word in a TYPE line.
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Exposition {
    /// Nothing written yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { text: String::with_capacity(16 * 1024), format, sample: String::new() }
    }

    /// Begins a family. A counter's name comes without `_total`; `help` is one plain sentence.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.sample.clear();
        self.sample.push_str(name);
        if kind == Kind::Counter {
            self.sample.push_str("_total");
        }
        let family = if self.format == Format::Classic { &self.sample } else { name };
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {}", kind.word());
    }

    /// One sample of a counter or a gauge.
    pub fn value(&mut self, labels: Labels<'_>, value: u64) {
        self.line("", labels, None, |text| write!(text, "{value}"));
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: Labels<'_>, held: &Distribution) {
        let mut count = 0;
        let bounds = held.bounds.iter().map(|&bound| float(bound)).chain(["+Inf".to_owned()]);
        for (bound, more) in bounds.zip(&held.counts) {
            count += more;
            self.line("_bucket", labels, Some(&bound), |text| write!(text, "{count}"));
        }
        self.line("_sum", labels, None, |text| text.write_str(&float(held.sum)));
        self.line("_count", labels, None, |text| write!(text, "{count}"));
    }

    /// The whole text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// `name{labels,le="…"} value`.
    fn line(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        le: Option<&str>,
        value: impl FnOnce(&mut String) -> std::fmt::Result,
    ) {
        self.text.push_str(&self.sample);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (name, label) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            self.text.push(separator);
            let _ = write!(self.text, "{name}=\"");
            escape(label, &mut self.text);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        let _ = value(&mut self.text);
        self.text.push('\n');
    }
}

/// A number that is recognisably not an integer, as `OpenMetrics` wants bounds written.
fn float(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// Escapes a label's value.
fn escape(label: &str, text: &mut String) {
    for c in label.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(format: Format) -> String {
        let mut out = Exposition::new(format);
        out.family("requests", Kind::Counter, "Requests.");
        out.value(&[("route", "a\"b\\c\nd"), ("code", "200")], 3);
        out.family("wait_seconds", Kind::Histogram, "Waits.");
        out.histogram(&[], &Distribution { bounds: vec![0.5, 1.0], counts: vec![1, 2, 3], sum: 9.0 });
        out.finish()
    }

    #[test]
    fn the_classic_format_names_the_family_as_its_samples() {
        let expected = "# HELP requests_total Requests.\n# TYPE requests_total counter\n\
            requests_total{route=\"a\\\"b\\\\c\\nd\",code=\"200\"} 3\n\
            # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n\
            wait_seconds_bucket{le=\"0.5\"} 1\nwait_seconds_bucket{le=\"1.0\"} 3\nwait_seconds_bucket{le=\"+Inf\"} 6\n\
            wait_seconds_sum 9.0\nwait_seconds_count 6\n";
        assert_eq!(scrape(Format::Classic), expected);
    }

    #[test]
    fn open_metrics_names_the_family_without_total_and_says_where_it_ends() {
        let text = scrape(Format::OpenMetrics);
        assert!(text.contains("# TYPE requests counter\nrequests_total{"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_accept_field_chooses_the_format() {
        assert_eq!(Format::accepted(None), Format::Classic);
        assert_eq!(Format::accepted(Some("*/*")), Format::Classic);
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
    }
}
