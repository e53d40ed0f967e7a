//! A scrape of the metrics, as numbers.

/// The series of one scrape: `name{label="value",…}` and value.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    series: Vec<(String, f64)>,
}

impl Metrics {
    /// Reads the exposition format.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let series = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a series and its value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Self { series: series.collect() }
    }

    /// The sum over all series of this name that have all these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// [`Metrics::sum`] of a counter, as a whole number.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and small")]
        let count = sum as u64;
        count
    }

    /// Whether there is a series of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.matching(name, &[]).next().is_some()
    }

    /// Every series whose text contains this.
    pub(crate) fn containing(&self, text: &str) -> Vec<&str> {
        self.series.iter().map(|(name, _)| name.as_str()).filter(|name| name.contains(text)).collect()
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a (String, f64)> {
        self.series.iter().filter(move |(series, _)| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        })
    }
}
