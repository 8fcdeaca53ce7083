//! Where the time goes.

use std::time::Duration;

use pprof::protos::Message;

use crate::error::{Error, Result};

/// Samples per second; not a divisor of anything that ticks.
const FREQUENCY_HERTZ: i32 = 99;

/// A CPU profile of the next `duration`.
///
/// # Errors
/// When one is being taken already, or the kernel refuses.
pub async fn cpu(duration: Duration) -> Result<Vec<u8>> {
    let guard = pprof::ProfilerGuardBuilder::default().frequency(FREQUENCY_HERTZ).build().map_err(Error::Cpu)?;
    tokio::time::sleep(duration).await;
    // Finding the symbols takes its time.
    let report = tokio::task::spawn_blocking(move || {
        let profile = guard.report().frames_post_processor(without_profiler).build().and_then(|report| report.pprof());
        backtrace::clear_symbol_cache();
        profile
    });
    Ok(report.await?.map_err(Error::Cpu)?.encode_to_vec())
}

/// Takes the profiler's own frames away, which are at the top of every stack and would be all that is seen.
fn without_profiler(frames: &mut pprof::Frames) {
    let is_profiler = |symbol: &pprof::Symbol| {
        let name = symbol.name();
        name.contains("pprof::") || name.contains("perf_signal_handler")
    };
    if let Some(last) = frames.frames.iter().rposition(|group| group.iter().any(is_profiler)) {
        frames.frames.drain(..=last);
    }
}
