//! CPU and heap profiles of our own programs, in the format of the `pprof` tool.
//!
//! A program that wants heap profiles makes [`Heap`] its global allocator and calls [`record_heap`] when it is asked to
//! record; until then an allocation costs one load more than without it, and nothing is kept. Recording takes a sample
//! of every 128 KiB that are allocated.

mod cpu;
mod error;
mod proto;
mod samples;
mod symbols;
mod sys;
mod table;

pub use cpu::cpu;
pub use error::{Error, Result};
pub use proto::{View, heap};
pub use sys::Heap;

/// Records from now on where memory is allocated, until the program ends. What was allocated before is not in any profile.
pub fn record_heap() {
    samples::record();
}
