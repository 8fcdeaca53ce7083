//! The measurements in the forms others read: the text dump, Graphite's line protocol, Prometheus, JSON.

use std::fmt::Write as _;

use super::timer::PERCENTILES;
use super::{Metrics, Snapshot, Value};

const NANOSECONDS_PER_SECOND: f64 = 1e9;
/// How the percentiles are called, in the dump and for Graphite.
const PERCENTILE_NAMES: [(&str, &str); 5] = [
    ("median", "50-percentile"),
    ("75%", "75-percentile"),
    ("95%", "95-percentile"),
    ("99%", "99-percentile"),
    ("99.9%", "999-percentile"),
];

impl Metrics {
    /// The periodic dump; each line still lacks its prefix.
    pub fn text(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, value) in self.all() {
            match value {
                Value::Counter(n) => lines.extend([format!("counter {name}"), format!("  count:       {n:>9}")]),
                Value::Gauge(n) => lines.extend([format!("gauge {name}"), format!("  value:       {n:>9}")]),
                Value::Timer(timer) => {
                    lines.push(format!("timer {name}"));
                    timer_text(&timer, &mut lines);
                }
            }
        }
        lines
    }

    /// Lines for Graphite with the names below `prefix`, taken at `unix_seconds`.
    pub fn graphite(&self, prefix: &str, unix_seconds: i64) -> String {
        let mut out = String::new();
        for (name, value) in self.all() {
            let mut line = |suffix: &str, number: String| {
                let _ = writeln!(out, "{prefix}.{name}.{suffix} {number} {unix_seconds}");
            };
            match value {
                Value::Counter(n) => line("count", n.to_string()),
                Value::Gauge(n) => line("value", n.to_string()),
                Value::Timer(t) => {
                    line("count", t.count.to_string());
                    for (suffix, number) in [("min", t.min), ("max", t.max), ("mean", t.mean), ("std-dev", t.stddev)] {
                        line(suffix, format!("{number:.2}"));
                    }
                    for ((_, suffix), number) in PERCENTILE_NAMES.iter().zip(t.percentiles) {
                        line(suffix, format!("{number:.2}"));
                    }
                    for (suffix, number) in ["one-minute", "five-minute", "fifteen-minute"].iter().zip(t.rates) {
                        line(suffix, format!("{number:.2}"));
                    }
                    line("mean-rate", format!("{:.2}", t.mean_rate));
                }
            }
        }
        out
    }

    /// Prometheus' text format.
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        for (name, value) in self.all() {
            let name = format!("containerd_{}", name.replace('-', "_"));
            let _ = match value {
                Value::Counter(n) | Value::Gauge(n) => writeln!(out, "# TYPE {name} gauge\n{name} {n}"),
                Value::Timer(t) => {
                    let name = format!("{name}_seconds");
                    let _ = writeln!(out, "# TYPE {name} summary");
                    for (quantile, ns) in PERCENTILES.iter().zip(t.percentiles) {
                        let _ = writeln!(out, "{name}{{quantile=\"{quantile}\"}} {}", ns / NANOSECONDS_PER_SECOND);
                    }
                    writeln!(out, "{name}_sum {}\n{name}_count {}", t.sum / NANOSECONDS_PER_SECOND, t.count)
                }
            };
        }
        out
    }

    /// The object of `/debug/vars`.
    pub fn json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        for (name, value) in self.all() {
            let value = match value {
                Value::Counter(n) | Value::Gauge(n) => n.into(),
                Value::Timer(t) => serde_json::json!({
                    "count": t.count, "min": t.min, "max": t.max, "mean": t.mean, "stddev": t.stddev,
                    "median": t.percentiles[0], "1m": t.rates[0], "5m": t.rates[1], "15m": t.rates[2],
                    "mean-rate": t.mean_rate,
                }),
            };
            object.insert(name.to_owned(), value);
        }
        object.into()
    }
}

fn timer_text(timer: &Snapshot, lines: &mut Vec<String>) {
    let ms = |ns: f64| ns / 1e6;
    lines.push(format!("  count:       {:>9}", timer.count));
    for (name, ns) in [("min", timer.min), ("max", timer.max), ("mean", timer.mean), ("stddev", timer.stddev)] {
        lines.push(format!("  {:<12} {:>12.2}ms", format!("{name}:"), ms(ns)));
    }
    for ((name, _), ns) in PERCENTILE_NAMES.iter().zip(timer.percentiles) {
        lines.push(format!("  {:<12} {:>12.2}ms", format!("{name}:"), ms(ns)));
    }
    for (name, rate) in ["1-min rate:", "5-min rate:", "15-min rate:"].iter().zip(timer.rates) {
        lines.push(format!("  {name:<12} {rate:>12.2}"));
    }
    lines.push(format!("  {:<12} {:>12.2}", "mean rate:", timer.mean_rate));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_form_has_every_name() {
        let metrics = Metrics::default();
        metrics.container_start.update(Duration::from_millis(5));
        let text = metrics.text().join("\n");
        let graphite = metrics.graphite("metrics", 7);
        let prometheus = metrics.prometheus();
        for (name, _) in metrics.all() {
            assert!(text.contains(name), "{name}");
            assert!(graphite.contains(&format!("metrics.{name}.")), "{name}");
            assert!(prometheus.contains(&name.replace('-', "_")), "{name}");
            assert!(!metrics.json()[name].is_null(), "{name}");
        }
        assert!(graphite.contains("metrics.container-start-time.count 1 7\n"), "{graphite}");
        assert!(prometheus.contains("containerd_container_start_time_seconds_sum 0.005\n"), "{prometheus}");
    }
}
