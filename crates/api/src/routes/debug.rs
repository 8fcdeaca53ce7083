//! `/debug/…`, served only when the engine runs with debugging on: what the process holds, and where its time goes.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use profiles::View;
use serde_json::json;

use super::{Route, page_not_found};
use crate::backend::not_implemented;
use crate::error::Result;
use crate::request::Request;
use crate::response::{Body, Reply, bare, ok, set_content_type};

const INDEX: &str = "\
profile\tCPU profile; ?seconds=30
heap\twhat is in use of the heap
allocs\twhat was allocated on the heap
cmdline\targuments of this process
";

/// The longest CPU profile, in seconds.
const MAX_PROFILE_SECONDS: i64 = 300;

pub(super) async fn dispatch(route: Route<'_>, request: Request) -> Result<Reply> {
    match (route.method, route.path) {
        ("GET", ["debug", "vars"]) => ok(&vars()),
        ("GET", ["debug", "pprof", ""] | ["debug", "pprof"]) => text(INDEX.into()),
        ("GET", ["debug", "pprof", "cmdline"]) => text(std::env::args().collect::<Vec<_>>().join("\0").into()),
        ("GET", ["debug", "pprof", "profile"]) => {
            let seconds = request.query.integer("seconds")?.unwrap_or(30).clamp(1, MAX_PROFILE_SECONDS);
            profile(profiles::cpu(Duration::from_secs(seconds.unsigned_abs())).await)
        }
        ("GET", ["debug", "pprof", "heap"]) => profile(profiles::heap(View::InUse).await),
        ("GET", ["debug", "pprof", "allocs"]) => profile(profiles::heap(View::Allocated).await),
        ("GET", ["debug", "pprof", "symbol"]) => text("num_symbols: 0\n".into()),
        ("GET", ["debug", "pprof", name]) => not_implemented(&format!("the profile {name:?}")),
        _ => page_not_found(),
    }
}

fn text(body: Bytes) -> Result<Reply> {
    let mut response = bare(StatusCode::OK, Body::Full(body));
    set_content_type(&mut response, "text/plain; charset=utf-8");
    Ok(Reply::Http(response))
}

/// What the kernel tells about this process. What cannot be read is `null`.
fn vars() -> serde_json::Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let open_files = fs::read_dir("/proc/self/fd").map(|entries| entries.count()).ok();
    json!({
        "cmdline": std::env::args().collect::<Vec<_>>(),
        "pid": std::process::id(),
        "threads": field("Threads"),
        "resident_kib": field("VmRSS"),
        "resident_peak_kib": field("VmHWM"),
        "open_files": open_files,
        "tasks": tokio::runtime::Handle::try_current().map(|runtime| runtime.metrics().num_alive_tasks()).ok(),
    })
}

/// A profile in the format of the `pprof` tool.
fn profile(taken: profiles::Result<Vec<u8>>) -> Result<Reply> {
    let mut response = bare(StatusCode::OK, Body::Full(taken?.into()));
    set_content_type(&mut response, "application/octet-stream");
    Ok(Reply::Http(response))
}
