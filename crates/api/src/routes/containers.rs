//! `/containers`, but for what has a file of its own: creating, archives, checkpoints, further processes.

use http::StatusCode;

use super::{Route, archive, checkpoints, create, exec, name, page_not_found};
use crate::backend::{
    AttachOptions, Attached, Backends, ListOptions, LogOptions, RemoveOptions, StartOptions, WaitCondition,
};
use crate::error::{Error, Result};
use crate::hijack::{Hijack, content_type};
use crate::mux::Frames;
use crate::request::Request;
use crate::response::{Reply, bytes_stream, changed, empty, json_lines, ok, to_json};
use crate::types;
use crate::websocket::Upgrade;

pub(super) async fn dispatch(backends: &Backends, route: Route<'_>, request: Request) -> Result<Reply> {
    let containers = &backends.containers;
    let query = &request.query;
    match (route.method, route.path) {
        ("GET", ["containers", "json"]) => list(backends, request).await,
        ("POST", ["containers", "create"]) => create::create(backends, request).await,
        ("POST", ["containers", "prune"]) => ok(&containers.prune(query.filters()?).await?),
        (_, ["containers", id @ .., "checkpoints"]) => {
            checkpoints::all(backends, &name(id)?, route.method, request).await
        }
        (_, ["containers", id @ .., "checkpoints", checkpoint]) => {
            checkpoints::one(backends, &name(id)?, checkpoint, route.method, request).await
        }
        (_, ["containers", id @ .., "archive"]) => archive::dispatch(backends, &name(id)?, route.method, request).await,
        ("GET", ["containers", id @ .., "json"]) => ok(&containers.inspect(&name(id)?, query.bool("size")).await?),
        ("GET", ["containers", id @ .., "export"]) => {
            let tar = containers.export(&name(id)?).await?;
            Ok(Reply::Http(bytes_stream("application/octet-stream", tar)))
        }
        ("GET", ["containers", id @ .., "changes"]) => ok(&containers.changes(&name(id)?).await?),
        ("GET", ["containers", id @ .., "top"]) => ok(&containers.top(&name(id)?, query.text("ps_args")).await?),
        ("GET", ["containers", id @ .., "logs"]) => logs(backends, &name(id)?, request).await,
        ("GET", ["containers", id @ .., "stats"]) => stats(backends, &name(id)?, request).await,
        ("GET", ["containers", id @ .., "attach", "ws"]) => {
            let attached = attach(backends, &name(id)?, &request).await?;
            Ok(Reply::Hijack(Hijack::websocket(Upgrade::of(&request)?, attached)))
        }
        ("POST", ["containers", id @ .., "attach"]) => {
            let attached = attach(backends, &name(id)?, &request).await?;
            Ok(Reply::Hijack(Hijack::new(&request, attached)))
        }
        ("POST", ["containers", id @ .., "exec"]) => exec::create(backends, &name(id)?, request).await,
        ("POST", ["containers", id @ .., "kill"]) => kill(backends, &name(id)?, request).await,
        ("POST", ["containers", id @ .., "pause"]) => {
            containers.pause(&name(id)?).await?;
            empty(StatusCode::NO_CONTENT)
        }
        ("POST", ["containers", id @ .., "unpause"]) => {
            containers.unpause(&name(id)?).await?;
            empty(StatusCode::NO_CONTENT)
        }
        ("POST", ["containers", id @ .., "rename"]) => {
            containers.rename(&name(id)?, query.text("name")).await?;
            empty(StatusCode::NO_CONTENT)
        }
        ("POST", ["containers", id @ .., "resize"]) => {
            let (height, width) = (query.dimension("h", "height")?, query.dimension("w", "width")?);
            containers.resize(&name(id)?, height, width).await?;
            empty(StatusCode::OK)
        }
        ("POST", ["containers", id @ .., "start"]) => start(backends, &name(id)?, request).await,
        ("POST", ["containers", id @ .., "stop"]) => {
            let (signal, timeout) = stop_options(&request)?;
            changed(containers.stop(&name(id)?, signal, timeout).await?)
        }
        ("POST", ["containers", id @ .., "restart"]) => {
            let (signal, timeout) = stop_options(&request)?;
            containers.restart(&name(id)?, signal, timeout).await?;
            empty(StatusCode::NO_CONTENT)
        }
        ("POST", ["containers", id @ .., "update"]) => update(backends, &name(id)?, request).await,
        ("POST", ["containers", id @ .., "wait"]) => wait(backends, &name(id)?, request).await,
        ("DELETE", ["containers", id @ ..]) => {
            let options =
                RemoveOptions { force: query.bool("force"), volumes: query.bool("v"), link: query.bool("link") };
            containers.remove(&name(id)?, options).await?;
            empty(StatusCode::NO_CONTENT)
        }
        _ => page_not_found(),
    }
}

async fn list(backends: &Backends, request: Request) -> Result<Reply> {
    let query = &request.query;
    let mut filters = query.filters()?;
    for age in ["since", "before"] {
        if let Some(container) = query.non_empty(age) {
            filters.add(age, container);
        }
    }
    let limit = query.integer("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let options = ListOptions { all: query.bool("all"), limit, size: query.bool("size"), filters };
    let mut containers = backends.containers.list(options).await?;
    for container in &mut containers {
        if !request.since(46) {
            container.host_config.annotations = types::Map::null();
        }
        if !request.since(48) {
            container.image_manifest_descriptor = None;
        }
    }
    ok(&containers)
}

async fn kill(backends: &Backends, name: &str, request: Request) -> Result<Reply> {
    let signal = request.query.non_empty("signal");
    backends.containers.kill(name, signal).await.map_err(|error| Error {
        kind: error.kind,
        message: format!("cannot kill container: {name}: {}", error.message),
    })?;
    empty(StatusCode::NO_CONTENT)
}

async fn start(backends: &Backends, name: &str, request: Request) -> Result<Reply> {
    // "{}" and the like are let pass: some clients send them.
    if request.is_chunked() || request.content_length().is_some_and(|length| length > 7) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let options = StartOptions {
        checkpoint: request.query.non_empty("checkpoint"),
        checkpoint_dir: request.query.non_empty("checkpoint-dir").map(Into::into),
    };
    changed(backends.containers.start(name, options).await?)
}

/// Signal and seconds of a stop.
fn stop_options(request: &Request) -> Result<(Option<String>, Option<i64>)> {
    let signal = if request.since(42) { request.query.non_empty("signal") } else { None };
    Ok((signal, request.query.integer("t")?))
}

async fn update(backends: &Backends, name: &str, mut request: Request) -> Result<Reply> {
    let mut update: types::ContainerUpdateRequest = request.json().await?;
    let resources = &mut update.resources;
    if !request.since(40) {
        resources.pids_limit = None;
    }
    if request.since(42) {
        resources.kernel_memory = 0;
    }
    resources.pids_limit = resources.pids_limit.map(|limit| limit.max(0));
    ok(&backends.containers.update(name, update).await?)
}

async fn wait(backends: &Backends, name: &str, request: Request) -> Result<Reply> {
    // Older clients wait for the headers, too.
    let sends_headers_first = request.since(30);
    let condition = match request.query.text("condition") {
        _ if !sends_headers_first => WaitCondition::NotRunning,
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(Error::invalid(format!("invalid condition: {other:?}"))),
    };
    let ended = backends.containers.wait(name, condition).await?;
    if !sends_headers_first {
        return ok(&ended.await);
    }
    let answer = futures::stream::once(async move {
        let mut text = to_json(&ended.await)?;
        text.push(b'\n');
        Ok(text.into())
    });
    Ok(Reply::Http(bytes_stream("application/json", Box::pin(answer))))
}

async fn stats(backends: &Backends, name: &str, request: Request) -> Result<Reply> {
    let stream = request.query.bool_or("stream", true);
    let one_shot = request.since(41) && request.query.bool("one-shot");
    if stream && one_shot {
        return Err(Error::invalid("cannot have stream=true and one-shot=true"));
    }
    json_lines(backends.containers.stats(name, stream, one_shot).await?)
}

async fn logs(backends: &Backends, name: &str, request: Request) -> Result<Reply> {
    let query = &request.query;
    let options = LogOptions {
        follow: query.bool("follow"),
        stdout: query.bool("stdout"),
        stderr: query.bool("stderr"),
        since_ns: query.time("since")?.filter(|since| *since != 0),
        until_ns: query.time("until")?.filter(|until| *until != 0),
        timestamps: query.bool("timestamps"),
        details: query.bool("details"),
        // "all" and whatever else is no number is all.
        tail: query.text("tail").parse().ok(),
    };
    if !options.stdout && !options.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let (tty, output) = backends.containers.logs(name, options).await?;
    let content_type = content_type(!tty && request.since(42));
    Ok(Reply::Http(bytes_stream(content_type, Box::pin(Frames::new(tty, output)))))
}

async fn attach(backends: &Backends, name: &str, request: &Request) -> Result<Attached> {
    let query = &request.query;
    let options = AttachOptions {
        logs: query.bool("logs"),
        stream: query.bool("stream"),
        stdin: query.bool("stdin"),
        stdout: query.bool("stdout"),
        stderr: query.bool("stderr"),
        detach_keys: query.non_empty("detachKeys"),
    };
    backends.containers.attach(name, options).await
}
