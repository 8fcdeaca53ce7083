//! The debug address: measurements and profiles over HTTP. Never on the API's socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use profiles::View;
use serde::Deserialize;

use crate::activity::Activity;
use crate::metrics::Metrics;

const DEFAULT_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 300;

#[derive(Clone)]
struct Debug {
    metrics: Arc<Metrics>,
    activity: Activity,
}

/// Serves the debug pages on `address` (`host:port`) for ever.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: &str, metrics: Arc<Metrics>, activity: Activity) -> io::Result<()> {
    // As in Go, nothing before the colon is every address.
    let address = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router(Debug { metrics, activity })).await
}

fn router(debug: Debug) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::permanent("/debug/pprof") }))
        .route("/metrics", get(|State(debug): State<Debug>| async move { debug.metrics.prometheus() }))
        .route("/debug/vars", get(vars))
        .route("/debug/pprof", get(index))
        .route("/debug/pprof/", get(index))
        .route("/debug/pprof/cmdline", get(command_line))
        .route("/debug/pprof/profile", get(profile))
        .route("/debug/pprof/heap", get(|| heap(View::InUse)))
        .route("/debug/pprof/allocs", get(|| heap(View::Allocated)))
        .route("/debug/pprof/goroutine", get(|State(debug): State<Debug>| async move { debug.activity.dump() }))
        .route("/debug/pprof/{other}", get(not_built))
        .with_state(debug)
}

async fn vars(State(debug): State<Debug>) -> Response {
    let mut vars = serde_json::json!({ "cmdline": arguments() });
    vars["metrics"] = debug.metrics.json();
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], vars.to_string()).into_response()
}

fn arguments() -> Vec<String> {
    std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect()
}

async fn index() -> &'static str {
    "allocs\ncmdline\ngoroutine\nheap\nprofile\n"
}

async fn command_line() -> String {
    arguments().join("\0")
}

async fn not_built() -> Response {
    (StatusCode::NOT_IMPLEMENTED, "this profile is not implemented\n").into_response()
}

#[derive(Deserialize)]
struct ProfileQuery {
    seconds: Option<u64>,
}

async fn profile(Query(query): Query<ProfileQuery>) -> Response {
    let seconds = query.seconds.unwrap_or(DEFAULT_SECONDS).clamp(1, MAX_SECONDS);
    answer(profiles::cpu(Duration::from_secs(seconds)).await)
}

async fn heap(view: View) -> Response {
    answer(profiles::heap(view).await)
}

fn answer(profile: profiles::Result<Vec<u8>>) -> Response {
    match profile {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
