//! A container that counts, and the proof that it never lost its place: a checkpoint is good when the count goes on.

use crate::engine::Engine;
use crate::wait::eventually;

/// Counts in a variable of the shell, which is in memory and nowhere else, and says every number once.
pub const COUNT_SCRIPT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";

/// A counting container.
pub struct Counter<'a> {
    engine: &'a Engine,
    name: String,
}

impl<'a> Counter<'a> {
    /// Starts one with further flags for `docker run`.
    #[track_caller]
    pub fn run(engine: &'a Engine, name: &str, flags: &str) -> Self {
        engine.ok(&format!("docker run -d --name {name} {flags} busybox sh -c '{COUNT_SCRIPT}'"));
        let counter = Self { engine, name: name.to_owned() };
        counter.passes(3);
        counter
    }

    /// One that runs already.
    pub fn of(engine: &'a Engine, name: &str) -> Self {
        Self { engine, name: name.to_owned() }
    }

    /// The numbers in its log.
    #[track_caller]
    pub fn logged(&self) -> Vec<u64> {
        let log = self.engine.ok(&format!("docker logs {}", self.name));
        log.lines()
            .map(|line| line.trim().parse().unwrap_or_else(|_| panic!("no number in the log: {line:?}")))
            .collect()
    }

    /// The last number in its log.
    #[track_caller]
    pub fn last(&self) -> u64 {
        self.logged().last().copied().unwrap_or(0)
    }

    /// Waits until it has counted past `number`.
    #[track_caller]
    pub fn passes(&self, number: u64) {
        eventually(format_args!("{} counts past {number}", self.name), || (self.last() > number).then_some(()));
    }

    /// Waits until it counts on, and panics unless its log holds every number from 1 exactly once, in order: nothing
    /// was lost, nothing said twice, and it did not begin anew.
    #[track_caller]
    pub fn goes_on(&self) {
        self.passes(self.last() + 2);
        let logged = self.logged();
        let expected: Vec<u64> = (1..=logged.len() as u64).collect();
        if let Some(place) = logged.iter().zip(&expected).position(|(is, should)| is != should) {
            let around = &logged[place.saturating_sub(3)..(place + 4).min(logged.len())];
            panic!("{}: the count broke after {place} numbers: … {around:?} …", self.name);
        }
    }
}
