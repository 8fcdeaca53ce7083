//! The global allocator and the walk up the stack: the only file of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

use crate::samples;

/// The system's allocator, with an eye on who allocates once [`record_heap`](crate::record_heap) was called. To be the
/// program's `#[global_allocator]`.
#[derive(Debug, Default)]
pub struct Heap {
    _private: (),
}

impl Heap {
    /// Records nothing yet.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

// SAFETY: memory comes from and goes back to `System`, unchanged; what is done besides touches no memory of the caller's.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        let place = unsafe { System.alloc(layout) };
        samples::allocated(place.addr(), layout.size());
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        let place = unsafe { System.alloc_zeroed(layout) };
        samples::allocated(place.addr(), layout.size());
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // Before: afterwards it may be somebody else's.
        samples::freed(place.addr());
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(place, layout) };
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // As a Go program would see it: the old is gone, something new is there. One that fails counts as freed.
        samples::freed(place.addr());
        // SAFETY: the caller's promise, handed on.
        let place = unsafe { System.realloc(place, layout, new_size) };
        samples::allocated(place.addr(), new_size);
        place
    }
}

/// Where the callers of this function go on when it returns, innermost first; as many as fit. Gives their number.
#[inline(never)]
pub(crate) fn callers(frames: &mut [usize]) -> usize {
    let mut count = 0;
    let note = |frame: &backtrace::Frame| {
        let Some(place) = frames.get_mut(count) else { return false };
        *place = frame.ip().addr();
        count += 1;
        true
    };
    // SAFETY: what the lock of the other function protects is the search for symbols, which this does not do; walking
    // is the unwinder's work, which may be done by any number of threads.
    unsafe { backtrace::trace_unsynchronized(note) };
    count
}
