//! Answers: the one table from error kind to HTTP status, bodies whole and streamed, and the JSON framings.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use errors::Kind;
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde::Serialize;

use crate::backend::BoxStream;
use crate::error::{Error, Result};
use crate::hijack::Hijack;
use crate::types;

/// What a route gives back.
pub(crate) enum Reply {
    /// An ordinary answer.
    Http(Response<Body>),
    /// The connection is no longer HTTP's.
    Hijack(Hijack),
}

/// A response's body.
pub(crate) enum Body {
    /// All at once; sent with its length.
    Full(Bytes),
    /// As it comes; each item goes out at once, and the headers before the first.
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The status of a kind of error.
pub(crate) fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::InvalidParameter => StatusCode::BAD_REQUEST,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Cancelled | Kind::DeadlineExceeded | Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// `{"message": …}`.
pub(crate) fn error_response(error: &Error) -> Response<Body> {
    let status = status_of(error.kind);
    if status == StatusCode::NOT_MODIFIED {
        return bare(status, Body::Full(Bytes::new()));
    }
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    // A struct of a string always serialises.
    let text = serde_json::to_vec(&Message { message: &error.message }).unwrap_or_default();
    let mut response = bare(status, Body::Full(with_newline(text)));
    set_content_type(&mut response, "application/json");
    response
}

/// A status and nothing else.
pub(crate) fn empty(status: StatusCode) -> Result<Reply> {
    Ok(Reply::Http(bare(status, Body::Full(Bytes::new()))))
}

/// 204 when something changed, 304 when it was so already.
pub(crate) fn changed(changed: bool) -> Result<Reply> {
    empty(if changed { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}

/// 200 with JSON.
pub(crate) fn ok<T: Serialize>(value: &T) -> Result<Reply> {
    json(StatusCode::OK, value)
}

/// 201 with JSON.
pub(crate) fn created<T: Serialize>(value: &T) -> Result<Reply> {
    json(StatusCode::CREATED, value)
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Reply> {
    let mut response = bare(status, Body::Full(with_newline(to_json(value)?)));
    set_content_type(&mut response, "application/json");
    Ok(Reply::Http(response))
}

/// 200 with bytes as they come.
pub(crate) fn bytes_stream(content_type: &'static str, stream: BoxStream<Bytes>) -> Response<Body> {
    let stream = stream.map(|item| item.map_err(io::Error::other));
    let mut response = bare(StatusCode::OK, Body::Stream(Box::pin(stream)));
    set_content_type(&mut response, content_type);
    response
}

/// 200 with one line of JSON per item. An error ends it without a word.
pub(crate) fn json_lines<T: Serialize + 'static>(stream: BoxStream<T>) -> Result<Reply> {
    let lines = stream.map(|item| {
        item.and_then(|item| to_json(&item)).map(with_newline).map_err(|error| {
            tracing::debug!(%error, "a stream ended with an error");
            error
        })
    });
    Ok(Reply::Http(bytes_stream("application/json", Box::pin(lines))))
}

/// 200 with the messages of a long operation. An error is the last message.
pub(crate) fn progress(stream: BoxStream<types::Progress>) -> Result<Reply> {
    let lines = stream.map(|item| {
        let message = item.unwrap_or_else(|error| types::Progress {
            error_detail: Some(types::ProgressError { code: 0, message: error.message.clone() }),
            error: error.message,
            ..Default::default()
        });
        let mut text = to_json(&message)?;
        text.extend_from_slice(b"\r\n");
        Ok(Bytes::from(text))
    });
    Ok(Reply::Http(bytes_stream("application/json", Box::pin(lines))))
}

pub(crate) fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

pub(crate) fn set_content_type(response: &mut Response<Body>, content_type: &'static str) {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::system(format!("cannot write the answer as JSON: {error}")))
}

fn with_newline(mut text: Vec<u8>) -> Bytes {
    text.push(b'\n');
    text.into()
}
