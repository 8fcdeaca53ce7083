//! A distribution of durations: exact count, sum and extremes, and the recent past for the rest.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many durations are kept for percentiles.
const SAMPLES: usize = 256;
/// How often the moving rates are brought up to date.
const TICK: Duration = Duration::from_secs(5);
const WINDOWS_MINUTES: [f64; 3] = [1.0, 5.0, 15.0];

/// Durations of one kind of operation.
#[derive(Debug)]
pub struct Timer {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    since: Instant,
    count: u64,
    sum: Duration,
    recent: VecDeque<Duration>,
    /// Per second, exponentially weighted over each window.
    rates: [f64; 3],
    ticked: Instant,
    uncounted: u64,
}

/// A timer at one moment. Durations are in nanoseconds, rates per second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// How many there were.
    pub count: u64,
    /// All together.
    pub sum: f64,
    /// Shortest of the recent ones.
    pub min: f64,
    /// Longest of the recent ones.
    pub max: f64,
    /// Mean of the recent ones.
    pub mean: f64,
    /// Standard deviation of the recent ones.
    pub stddev: f64,
    /// 50, 75, 95, 99 and 99.9 % of the recent ones were at most this long.
    pub percentiles: [f64; 5],
    /// Over one, five and fifteen minutes.
    pub rates: [f64; 3],
    /// Since the start.
    pub mean_rate: f64,
}

/// Which percentiles a [`Snapshot`] has.
pub const PERCENTILES: [f64; 5] = [0.5, 0.75, 0.95, 0.99, 0.999];

impl Default for Timer {
    fn default() -> Self {
        let now = Instant::now();
        let inner = Inner {
            since: now,
            count: 0,
            sum: Duration::ZERO,
            recent: VecDeque::new(),
            rates: [0.0; 3],
            ticked: now,
            uncounted: 0,
        };
        Timer { inner: Mutex::new(inner) }
    }
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records one duration.
    pub fn update(&self, duration: Duration) {
        let mut inner = self.lock();
        inner.tick();
        inner.count += 1;
        inner.uncounted += 1;
        inner.sum += duration;
        if inner.recent.len() == SAMPLES {
            inner.recent.pop_front();
        }
        inner.recent.push_back(duration);
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        let mut inner = self.lock();
        inner.tick();
        let mut sorted: Vec<f64> = inner.recent.iter().map(|d| d.as_nanos() as f64).collect();
        sorted.sort_by(f64::total_cmp);
        let samples = sorted.len().max(1) as f64;
        let mean = sorted.iter().sum::<f64>() / samples;
        let variance = sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / samples;
        Snapshot {
            count: inner.count,
            sum: inner.sum.as_nanos() as f64,
            min: sorted.first().copied().unwrap_or(0.0),
            max: sorted.last().copied().unwrap_or(0.0),
            mean,
            stddev: variance.sqrt(),
            percentiles: PERCENTILES.map(|p| percentile(&sorted, p)),
            rates: inner.rates,
            mean_rate: inner.count as f64 / inner.since.elapsed().as_secs_f64().max(f64::EPSILON),
        }
    }
}

impl Inner {
    fn tick(&mut self) {
        while self.ticked.elapsed() >= TICK {
            let instant = self.uncounted as f64 / TICK.as_secs_f64();
            self.uncounted = 0;
            for (rate, minutes) in self.rates.iter_mut().zip(WINDOWS_MINUTES) {
                let alpha = 1.0 - (-TICK.as_secs_f64() / 60.0 / minutes).exp();
                *rate += alpha * (instant - *rate);
            }
            self.ticked += TICK;
        }
    }
}

/// Linear between the two nearest samples.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() as f64 + 1.0);
    if sorted.is_empty() {
        0.0
    } else if position < 1.0 {
        sorted[0]
    } else if position >= sorted.len() as f64 {
        sorted[sorted.len() - 1]
    } else {
        let lower = sorted[position as usize - 1];
        lower + position.fract() * (sorted[position as usize] - lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_small_distribution() {
        let timer = Timer::default();
        for ns in [10, 20, 30, 40] {
            timer.update(Duration::from_nanos(ns));
        }
        let snapshot = timer.snapshot();
        assert_eq!((snapshot.count, snapshot.min, snapshot.max, snapshot.mean), (4, 10.0, 40.0, 25.0));
        assert_eq!(snapshot.percentiles[0], 25.0);
        assert!((snapshot.stddev - 11.18).abs() < 0.01);
        assert_eq!(Timer::default().snapshot().percentiles, [0.0; 5]);
    }
}
