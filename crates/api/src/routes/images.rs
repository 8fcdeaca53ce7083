//! `/images`, `/commit`, `/distribution`.

use http::StatusCode;

use super::{Route, name, page_not_found};
use crate::backend::{Backends, CommitOptions, ImportSource};
use crate::error::{Error, Result};
use crate::request::Request;
use crate::response::{Reply, bytes_stream, created, empty, ok, progress};
use crate::types;

pub(super) async fn dispatch(backends: &Backends, route: Route<'_>, request: Request) -> Result<Reply> {
    let images = &backends.images;
    let query = &request.query;
    match (route.method, route.path) {
        ("GET", ["images", "json"]) => list(backends, request).await,
        ("GET", ["images", "search"]) => search(backends, request).await,
        ("GET", ["images", "get"]) => save(backends, query.all("names")).await,
        ("GET", ["images", image @ .., "get"]) => save(backends, vec![name(image)?]).await,
        ("GET", ["images", image @ .., "history"]) => ok(&images.history(&name(image)?).await?),
        ("GET", ["images", image @ .., "json"]) => inspect(backends, &name(image)?, request).await,
        ("POST", ["images", "load"]) => {
            let quiet = query.bool_or("quiet", true);
            // Errors are messages here, too: clients look for them there.
            match images.load(quiet, request.into_reader()).await {
                Ok(messages) => progress(messages),
                Err(error) => progress(Box::pin(futures::stream::iter([Err(error)]))),
            }
        }
        ("POST", ["images", "create"]) if query.non_empty("fromImage").is_some() => pull(backends, request).await,
        ("POST", ["images", "create"]) => import(backends, request).await,
        ("POST", ["images", "prune"]) => ok(&images.prune(query.filters()?).await?),
        ("POST", ["images", image @ .., "push"]) => {
            progress(images.push(&name(image)?, query.text("tag"), request.registry_auth()).await?)
        }
        ("POST", ["images", image @ .., "tag"]) => {
            images.tag(&name(image)?, query.text("repo"), query.text("tag")).await?;
            empty(StatusCode::CREATED)
        }
        ("DELETE", ["images", image @ ..]) => {
            let image = image.join("/");
            if image.trim().is_empty() {
                return Err(Error::invalid("image name cannot be blank"));
            }
            ok(&images.remove(&image, query.bool("force"), !query.bool("noprune")).await?)
        }
        ("POST", ["commit"]) => commit(backends, request).await,
        ("GET", ["distribution", image @ .., "json"]) => {
            ok(&images.distribution(&name(image)?, request.registry_auth()).await?)
        }
        _ => page_not_found(),
    }
}

async fn list(backends: &Backends, request: Request) -> Result<Reply> {
    let query = &request.query;
    let mut filters = query.filters()?;
    if !request.since(41) {
        if let Some(reference) = query.non_empty("filter") {
            filters.add("reference", reference);
        }
    }
    let mut images = backends.images.list(query.bool("all"), query.bool("digests"), filters).await?;
    for image in &mut images {
        if !request.since(43) && image.repo_tags.is_empty() && image.repo_digests.is_empty() {
            image.repo_tags.push("<none>:<none>".into());
            image.repo_digests.push("<none>@<none>".into());
        }
        if !request.since(44) {
            image.virtual_size = Some(image.size);
        }
        if !request.since(48) {
            image.descriptor = None;
        }
        if !request.since(51) {
            image.containers = -1;
        }
    }
    ok(&images)
}

async fn inspect(backends: &Backends, image: &str, request: Request) -> Result<Reply> {
    let mut image = backends.images.inspect(image).await?;
    if !request.since(44) {
        image.virtual_size = Some(image.size);
        if image.created.is_empty() {
            image.created = types::Timestamp::default().to_string();
        }
    }
    if !request.since(48) {
        image.descriptor = None;
    }
    if request.since(50) {
        return ok(&image);
    }
    ok(&with_legacy_config(&image)?)
}

/// Before 1.50 an image's configuration was a container's, with all fields present.
fn with_legacy_config(image: &types::ImageInspect) -> Result<serde_json::Value> {
    let broken = |error| Error::system(format!("cannot write an image as JSON: {error}"));
    let mut value = serde_json::to_value(image).map_err(broken)?;
    let mut config = serde_json::json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    });
    if let (Some(all), Some(present)) = (config.as_object_mut(), value["Config"].as_object_mut()) {
        all.append(present);
        value["Config"] = config;
    }
    Ok(value)
}

async fn search(backends: &Backends, request: Request) -> Result<Reply> {
    let query = &request.query;
    let limit = match query.text("limit") {
        "" => None,
        text => Some(text.parse().map_err(|_| Error::invalid("invalid limit specified"))?),
    };
    ok(&backends.images.search(query.text("term"), limit, query.filters()?).await?)
}

async fn save(backends: &Backends, names: Vec<String>) -> Result<Reply> {
    let tar = backends.images.save(names).await?;
    Ok(Reply::Http(bytes_stream("application/x-tar", tar)))
}

async fn pull(backends: &Backends, request: Request) -> Result<Reply> {
    let query = &request.query;
    let image = query.text("fromImage");
    let image = image.strip_suffix(':').unwrap_or(image);
    let platform = if request.since(32) { query.non_empty("platform") } else { None };
    progress(backends.images.pull(image, query.text("tag"), platform, request.registry_auth()).await?)
}

async fn import(backends: &Backends, request: Request) -> Result<Reply> {
    let query = &request.query;
    let source = query.text("fromSrc");
    let message = query.non_empty("message").unwrap_or_else(|| format!("Imported from {source}"));
    let (repo, tag) = (query.text("repo").to_owned(), query.text("tag").to_owned());
    let (changes, platform) = (query.all("changes"), query.non_empty("platform"));
    let source = match source {
        "-" => ImportSource::Body(request.into_reader()),
        url => ImportSource::Url(url.to_owned()),
    };
    progress(backends.images.import(&repo, &tag, &message, changes, platform, source).await?)
}

async fn commit(backends: &Backends, mut request: Request) -> Result<Reply> {
    let config: Option<types::ContainerConfig> = request.optional_json().await?;
    let query = &request.query;
    let text = |name| query.text(name).to_owned();
    let options = CommitOptions {
        container: text("container"),
        repo: text("repo"),
        tag: text("tag"),
        comment: text("comment"),
        author: text("author"),
        pause: query.bool_or("pause", true),
        changes: query.all("changes"),
    };
    created(&backends.images.commit(options, config).await?)
}
