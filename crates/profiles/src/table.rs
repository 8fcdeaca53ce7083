//! What is known of the samples: by stack, how much was allocated and how much of it was freed again.
//!
//! Everything here is called [unseen](crate::samples::unseen), and holds the lock for a few look-ups only. Whoever
//! allocates does not wait for it: a sample that comes at a bad moment is left out.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::samples::RATE_BYTES;

/// Further stacks are counted together.
const MAX_STACKS: usize = 4096;

/// A number of things and their size, as estimated from samples.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Amount {
    pub(crate) objects: f64,
    pub(crate) bytes: f64,
}

/// Where allocations come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stack {
    /// Return addresses, innermost first; none for the rest of the world.
    pub(crate) frames: Box<[usize]>,
    pub(crate) allocated: Amount,
    pub(crate) freed: Amount,
}

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<Box<[usize]>, usize>,
    stacks: Vec<Stack>,
    alive: HashMap<usize, Sample>,
}

#[derive(Debug)]
struct Sample {
    stack: usize,
    amount: Amount,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// Notes a sample.
pub(crate) fn add(address: usize, size_bytes: usize, frames: &[usize]) {
    let mut table = match TABLE.try_lock() {
        Ok(table) => table,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    let amount = Amount::of(size_bytes);
    let stack = table.number(frames);
    table.stacks[stack].allocated.add(amount);
    table.alive.insert(address, Sample { stack, amount });
}

/// Notes that a sample was freed; false if this is none.
pub(crate) fn remove(address: usize) -> bool {
    let mut table = lock();
    let Some(Sample { stack, amount }) = table.alive.remove(&address) else { return false };
    table.stacks[stack].freed.add(amount);
    true
}

/// Everything that is known now.
pub(crate) fn stacks() -> Vec<Stack> {
    lock().stacks.clone()
}

fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn number(&mut self, frames: &[usize]) -> usize {
        if let Some(number) = self.numbers.get(frames) {
            return *number;
        }
        let frames: Box<[usize]> = if self.stacks.len() < MAX_STACKS { frames.into() } else { Box::default() };
        *self.numbers.entry(frames).or_insert_with_key(|frames| {
            self.stacks.push(Stack { frames: frames.clone(), ..Stack::default() });
            self.stacks.len() - 1
        })
    }
}

impl Amount {
    /// What one sample of this size stands for: the larger, the likelier it was to become one.
    fn of(size_bytes: usize) -> Self {
        let size = size_bytes.max(1) as f64;
        let objects = 1.0 / -(-size / f64::from(RATE_BYTES)).exp_m1();
        Self { objects, bytes: objects * size }
    }

    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }

    /// What is left of it.
    pub(crate) fn without(self, other: Self) -> Self {
        Self { objects: self.objects - other.objects, bytes: self.bytes - other.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_sample_stands_for_many() {
        let small = Amount::of(64);
        assert!((small.bytes - f64::from(RATE_BYTES)).abs() < 100.0, "{small:?}");
        let large = Amount::of(100 << 20);
        assert!((large.objects - 1.0).abs() < 1e-6, "{large:?}");
    }

    #[test]
    fn stacks_beyond_the_measure_are_counted_together() {
        let mut table = Table::default();
        let numbers: Vec<usize> = (1..=MAX_STACKS + 2).map(|frame| table.number(&[frame])).collect();
        assert_eq!((table.number(&[1]), table.number(&[2])), (0, 1));
        assert_eq!(numbers[MAX_STACKS..], [MAX_STACKS, MAX_STACKS]);
        assert!(table.stacks.len() == MAX_STACKS + 1 && table.stacks[MAX_STACKS].frames.is_empty());
    }
}
