//! A page of metrics in Prometheus' text form, as far as it is needed: samples with labels, and histograms.
//!
//! Own code, since what is read is our own parts' pages and the crates for it bring a client or a date library along.

use std::collections::BTreeMap;

/// Most samples of one page; a mesh of a thousand agents has fewer.
const MAX_SAMPLES: usize = 200_000;

/// One page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page(BTreeMap<String, Vec<Sample>>);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Page {
    /// Reads a page; lines that are none are passed over.
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().take(MAX_SAMPLES) {
            if let Some((name, sample)) = sample(line.trim()) {
                page.0.entry(name).or_default().push(sample);
            }
        }
        page
    }

    /// The sum of a metric's samples whose labels `wanted` takes; `None` where the metric is not there at all.
    pub fn sum_of(&self, name: &str, wanted: impl Fn(&Labels<'_>) -> bool) -> Option<f64> {
        let samples = self.0.get(name)?;
        let taken = samples.iter().filter(|s| wanted(&Labels(&s.labels)));
        // The sum of no floats is -0, which nobody wants to read.
        Some(taken.fold(0.0, |sum, s| sum + s.value))
    }

    /// The sum of all samples of a metric.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sum_of(name, |_| true)
    }

    /// The sums of a metric by the value of one label.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.0.get(name).into_iter().flatten() {
            let value = sample.labels.get(label).cloned().unwrap_or_default();
            *sums.entry(value).or_insert(0.0) += sample.value;
        }
        sums
    }

    /// The buckets of a histogram, those of all its labels added up.
    pub fn histogram(&self, name: &str) -> Histogram {
        let mut buckets: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        let samples = self.0.get(&format!("{name}_bucket"));
        for sample in samples.into_iter().flatten() {
            let Some(bound) = sample.labels.get("le").and_then(|le| number(le)) else {
                continue;
            };
            // Positive floats are ordered as their bits are.
            let bucket = buckets.entry(bound.to_bits()).or_insert((bound, 0.0));
            bucket.1 += sample.value;
        }
        Histogram(buckets.into_values().collect())
    }
}

/// The labels of a sample.
pub struct Labels<'a>(&'a BTreeMap<String, String>);

impl Labels<'_> {
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// Upper bounds and how many are at most that, rising.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// What came since `earlier`; all of it where that was of another process.
    pub fn since(&self, earlier: &Self) -> Self {
        let same = self.0.len() == earlier.0.len()
            && self
                .0
                .iter()
                .zip(&earlier.0)
                .all(|(now, then)| now.0 == then.0 && now.1 >= then.1);
        if !same {
            return self.clone();
        }
        let rest = self.0.iter().zip(&earlier.0);
        Self(rest.map(|(now, then)| (now.0, now.1 - then.1)).collect())
    }

    /// How many there are.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |last| last.1)
    }

    /// The value that `share` of them have at most, between the bounds of its bucket as if they lay evenly there;
    /// `None` without any. What is beyond the last bound is said to be at it.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count <= 0.0 {
            return None;
        }
        let rank = share * count;
        let mut below = (0.0, 0.0);
        for (bound, cumulated) in &self.0 {
            if *cumulated >= rank {
                if bound.is_infinite() {
                    return Some(below.0);
                }
                let within = (cumulated - below.1).max(f64::MIN_POSITIVE);
                return Some(below.0 + (bound - below.0) * ((rank - below.1) / within));
            }
            below = (*bound, *cumulated);
        }
        Some(below.0)
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        text => text.parse().ok(),
    }
}

/// `NAME{LABEL="VALUE",…} VALUE [TIME]`.
fn sample(line: &str) -> Option<(String, Sample)> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = number(rest.split_whitespace().next()?)?;
    Some((name.to_owned(), Sample { labels, value }))
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        loop {
            match chars.next()? {
                (at, '"') => {
                    text = rest.get(at + 1..)?;
                    break;
                }
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, c) => value.push(c),
            }
        }
        labels.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"q\\\"},{\"} 3\na{x=\"2\"} 4 1700000000\nb 1.5\nodd{x=\"\nodd\n\
        h_bucket{le=\"0.1\"} 10\nh_bucket{le=\"1\"} 90\nh_bucket{le=\"+Inf\"} 100\nh_sum 7\nh_count 100\n";

    #[test]
    fn samples_are_read_and_nonsense_is_passed_over() {
        let page = Page::read(PAGE);
        assert_eq!(page.sum("a"), Some(7.0));
        assert_eq!(page.sum_of("a", |l| l.get("y") == "q\"},{"), Some(3.0));
        assert_eq!(page.sum("b"), Some(1.5));
        assert_eq!(page.sum("odd"), None);
        let none = page.sum_of("a", |_| false).unwrap();
        assert!(none == 0.0 && none.is_sign_positive());
        assert_eq!(
            Page::read("\0{{{\n{} 1\nx{a=\"\\"),
            Page(BTreeMap::from([(
                String::new(),
                vec![Sample {
                    labels: BTreeMap::new(),
                    value: 1.0
                }]
            )]))
        );
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let histogram = Page::read(PAGE).histogram("h");
        assert_eq!(histogram.count(), 100.0);
        assert_eq!(histogram.quantile(0.05), Some(0.05));
        assert_eq!(histogram.quantile(0.5), Some(0.1 + 0.9 * 0.5));
        assert_eq!(histogram.quantile(0.99), Some(1.0));
        assert_eq!(Histogram::default().quantile(0.5), None);
        let earlier = Histogram(vec![(0.1, 10.0), (1.0, 10.0), (f64::INFINITY, 10.0)]);
        let since = histogram.since(&earlier);
        assert_eq!(
            (since.count(), since.quantile(0.05)),
            (90.0, Some(0.1 + 0.9 * (4.5 / 80.0)))
        );
        // A process that began anew counts from nothing.
        assert_eq!(earlier.since(&histogram), earlier);
    }
}
