//! Which allocations are looked at: on the path of every one of them, so nearly nothing must happen here.
//!
//! While nobody records, that is one load. Then a thread counts down the bytes it allocates, and at zero a sample is
//! taken; how far apart samples are is drawn at random, so that no pattern of a program falls in step with it. What is
//! freed is looked up only if the small table of hashes says that it may be a sample.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::{sys, table};

/// Bytes between two samples, on average. Go has 512 KiB, for programs that are larger than ours.
pub(crate) const RATE_BYTES: u32 = 128 << 10;

/// More callers than this are not kept of a sample.
const MAX_FRAMES: usize = 64;

const MAYBE_BITS: u32 = 14;

static RECORDING: AtomicBool = AtomicBool::new(false);

/// How many samples are alive whose address has this hash; one that has reached its maximum stays there.
static MAYBE: [AtomicU8; 1 << MAYBE_BITS] = [const { AtomicU8::new(0) }; 1 << MAYBE_BITS];

thread_local! {
    /// Nothing here is dropped or allocated, so that it can be used by the first and the last allocation of a thread.
    static THREAD: Thread = const { Thread { busy: Cell::new(false), left_bytes: Cell::new(0), random: Cell::new(0) } };
}

struct Thread {
    /// Within this crate: what it allocates itself is no sample.
    busy: Cell<bool>,
    /// Until the next sample.
    left_bytes: Cell<i64>,
    /// The state of the dice; 0 before the first throw.
    random: Cell<u64>,
}

/// Begins to record.
pub(crate) fn record() {
    RECORDING.store(true, Ordering::Relaxed);
}

/// Whether somebody has begun.
pub(crate) fn is_recording() -> bool {
    RECORDING.load(Ordering::Relaxed)
}

/// To be told of everything that is allocated.
#[inline]
pub(crate) fn allocated(address: usize, size_bytes: usize) {
    if is_recording() {
        count(address, size_bytes);
    }
}

/// To be told before anything is freed.
#[inline]
pub(crate) fn freed(address: usize) {
    if is_recording() && maybe(address).load(Ordering::Relaxed) != 0 {
        forget(address);
    }
}

/// Runs this without taking samples of it.
pub(crate) fn unseen<T>(work: impl FnOnce() -> T) -> T {
    THREAD.with(|thread| {
        let was_busy = thread.busy.replace(true);
        let done = work();
        thread.busy.set(was_busy);
        done
    })
}

fn count(address: usize, size_bytes: usize) {
    THREAD.with(|thread| {
        let left = thread.left_bytes.get().saturating_sub_unsigned(size_bytes as u64);
        thread.left_bytes.set(left);
        if left <= 0 && !thread.busy.get() && address != 0 {
            thread.take(address, size_bytes);
        }
    });
}

#[cold]
fn forget(address: usize) {
    // Nothing that was allocated unseen is a sample.
    let is_busy = THREAD.with(|thread| thread.busy.get());
    if !is_busy && unseen(|| table::remove(address)) {
        // One that has reached the end of the scale has lost count, and is never 0 again.
        let _ = maybe(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count != u8::MAX).then(|| count.saturating_sub(1))
        });
    }
}

impl Thread {
    #[cold]
    fn take(&self, address: usize, size_bytes: usize) {
        let is_first = self.random.get() == 0;
        let left = if is_first { self.left_bytes.get() } else { 0 };
        self.left_bytes.set(self.distance() + left);
        // A thread begins anywhere between two samples.
        if is_first && self.left_bytes.get() > 0 {
            return;
        }
        let mut frames = [0; MAX_FRAMES];
        let kept = sys::callers(&mut frames);
        // Counted first: it can be freed only by somebody who was given it, which is later.
        let _ =
            maybe(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_add(1)));
        unseen(|| table::add(address, size_bytes, &frames[..kept]));
    }

    /// Bytes until the next sample: exponentially distributed, which makes it equally likely for every byte.
    fn distance(&self) -> i64 {
        let mut random = self.random.get();
        if random == 0 {
            // Any number that differs between threads and runs.
            let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_nanos()));
            random = (std::ptr::from_ref(self).addr() as u64 ^ now.rotate_left(32)) | 1;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        // 53 bits, never 0.
        let uniform = ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (-uniform.ln() * f64::from(RATE_BYTES)) as i64 + 1
    }
}

fn maybe(address: usize) -> &'static AtomicU8 {
    let hash = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - MAYBE_BITS);
    &MAYBE[hash as usize]
}
