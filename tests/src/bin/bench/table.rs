//! The table of results: a line per measurement, a column per engine, ratios to the first.

use std::fmt;
use std::time::Duration;

use crate::memory::Weight;

/// The results.
pub struct Table {
    engines: Vec<String>,
    lines: Vec<(String, Vec<Option<f64>>, &'static str)>,
    notes: Vec<String>,
    below: Vec<Table>,
}

/// The middle one, in milliseconds.
fn median(mut times: Vec<Duration>) -> Option<f64> {
    times.sort();
    times.get(times.len() / 2).map(|time| time.as_secs_f64() * 1000.0)
}

impl Table {
    pub fn new(engines: Vec<String>) -> Self {
        Self { engines, lines: Vec::new(), notes: Vec::new(), below: Vec::new() }
    }

    /// The medians of what times there are, in milliseconds.
    pub fn times_as_far(&mut self, what: &str, times: Vec<Vec<Duration>>) {
        self.lines.push((what.into(), times.into_iter().map(median).collect(), "ms"));
    }

    /// Some sizes in bytes, shown in mebibytes.
    pub fn sizes(&mut self, what: &str, bytes: Vec<Option<u64>>) {
        let values = bytes.into_iter().map(|bytes| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))).collect();
        self.lines.push((what.into(), values, "MiB"));
    }

    /// Some rates, per second. Here more is better, so that a ratio above one is the other's advantage.
    pub fn rates(&mut self, what: &str, rates: Vec<Option<f64>>) {
        self.lines.push((what.into(), rates, "/s"));
    }

    /// Puts a table with columns of its own below this one.
    pub fn append(&mut self, table: Table) {
        self.below.push(table);
    }

    /// The medians of some times, in milliseconds.
    pub fn times(&mut self, what: &str, times: Vec<Vec<Duration>>, failures: &[Option<String>]) {
        let values = times
            .into_iter()
            .zip(failures)
            .map(|(times, failure)| if failure.is_some() { None } else { median(times) })
            .collect();
        for (engine, failure) in self.engines.iter().zip(failures) {
            if let Some(failure) = failure {
                self.notes.push(format!("{engine}: {what}: {failure}"));
            }
        }
        self.lines.push((what.into(), values, "ms"));
    }

    /// Some sizes, in mebibytes.
    pub fn weights(&mut self, what: &str, weights: &[Weight], bytes: impl Fn(&Weight) -> u64) {
        let values = weights.iter().map(|weight| Some(bytes(weight) as f64 / f64::from(1 << 20))).collect();
        self.lines.push((what.into(), values, "MiB"));
    }

    /// A line below the table.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<38}", "")?;
        for (place, engine) in self.engines.iter().enumerate() {
            write!(out, "{engine:>14}")?;
            if place > 0 {
                write!(out, "{:>9}", "ratio")?;
            }
        }
        writeln!(out)?;
        for (what, values, unit) in &self.lines {
            write!(out, "{what:<38}")?;
            let ours = values.first().copied().flatten();
            for (place, value) in values.iter().enumerate() {
                match value {
                    Some(value) => write!(out, "{:>14}", format!("{value:.2} {unit}"))?,
                    None => write!(out, "{:>14}", "failed")?,
                }
                if place > 0 {
                    match (ours, value) {
                        (Some(ours), Some(value)) if ours > 0.0 => {
                            write!(out, "{:>9}", format!("{:.2}×", value / ours))?
                        }
                        _ => write!(out, "{:>9}", "")?,
                    }
                }
            }
            writeln!(out)?;
        }
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        for table in &self.below {
            write!(out, "\n{table}")?;
        }
        Ok(())
    }
}
