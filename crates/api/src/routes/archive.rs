//! `/containers/{id}/archive`: files in and out of a container.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Response, StatusCode};

use super::page_not_found;
use crate::backend::{ArchivePutOptions, Backends};
use crate::error::{Error, Result};
use crate::request::Request;
use crate::response::{Body, Reply, bare, bytes_stream, empty, to_json};
use crate::types::PathStat;

pub(super) async fn dispatch(backends: &Backends, name: &str, method: &str, request: Request) -> Result<Reply> {
    let containers = &backends.containers;
    let path = request.query.text("path").to_owned();
    if path.is_empty() && matches!(method, "HEAD" | "GET" | "PUT") {
        return Err(Error::invalid("bad parameter: path cannot be empty"));
    }
    match method {
        "HEAD" => {
            let stat = containers.archive_stat(name, &path).await?;
            with_stat(bare(StatusCode::OK, Body::Full(Default::default())), &stat)
        }
        "GET" => {
            let (stat, tar) = containers.archive_get(name, &path).await?;
            with_stat(bytes_stream("application/x-tar", tar), &stat)
        }
        "PUT" => {
            let options = ArchivePutOptions {
                no_overwrite_dir_non_dir: request.query.bool("noOverwriteDirNonDir"),
                copy_uid_gid: request.query.bool("copyUIDGID"),
            };
            containers.archive_put(name, &path, options, request.into_reader()).await?;
            empty(StatusCode::OK)
        }
        _ => page_not_found(),
    }
}

fn with_stat(mut response: Response<Body>, stat: &PathStat) -> Result<Reply> {
    let text = STANDARD.encode(to_json(stat)?);
    let value = HeaderValue::from_str(&text).map_err(|error| Error::system(format!("path stat: {error}")))?;
    response.headers_mut().insert("x-docker-container-path-stat", value);
    Ok(Reply::Http(response))
}
