//! One blob to a file: hashed as it comes, bounded by its descriptor, taken up again where it broke.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::session::{RequestError, Session, body, describe};
use super::{ProgressSender, Throttle};
use crate::content::StagedBlob;
use crate::manifest::Descriptor;
use crate::{Digest, Error, Result};

/// Pieces of a body that wait to be written.
const QUEUE: usize = 32;

enum Piece {
    Data(Bytes),
    Restart,
}

/// What one try came to.
enum Try {
    Done,
    /// Broken in a way another try may mend.
    Again(Error),
}

impl Session {
    /// A small blob (an image's configuration), whole and verified.
    pub(super) async fn small_blob(
        &self,
        descriptor: &Descriptor,
        limit: u64,
    ) -> std::result::Result<Vec<u8>, RequestError> {
        if descriptor.size > limit {
            return Err(Error::TooLarge(format!("blob {} is larger than {limit} bytes", descriptor.digest)).into());
        }
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let response = self.request(Method::GET, &url, &[], None).await?;
        let data = body(response, descriptor.size as usize).await?;
        if data.len() as u64 != descriptor.size || Digest::of(&data) != descriptor.digest {
            let words = format!("image config verification failed for digest {}", descriptor.digest);
            return Err(Error::Corrupt(words).into());
        }
        Ok(data)
    }

    /// Downloads a blob to a file in `dir`.
    pub(super) async fn download(
        &self,
        descriptor: &Descriptor,
        dir: &std::path::Path,
        id: &str,
        attempts: u32,
        progress: &ProgressSender,
    ) -> std::result::Result<StagedBlob, RequestError> {
        let mut sink = Sink::start(dir)?;
        if let Err(error) = self.fetch_all(descriptor, &mut sink, id, attempts, progress).await {
            // Waited for, so that the file is gone when the error is told.
            let _ = sink.finish().await;
            return Err(error);
        }
        progress.status(id, "Verifying Checksum").await;
        let (file, hex) = sink.finish().await?;
        if hex != descriptor.digest.hex() {
            let words = format!("filesystem layer verification failed for digest {}", descriptor.digest);
            return Err(Error::Corrupt(words).into());
        }
        progress.status(id, "Download complete").await;
        Ok(StagedBlob::verified(file, descriptor.digest.clone(), descriptor.size))
    }

    /// Fetches until the blob is whole, taking up what broke.
    async fn fetch_all(
        &self,
        descriptor: &Descriptor,
        sink: &mut Sink,
        id: &str,
        attempts: u32,
        progress: &ProgressSender,
    ) -> std::result::Result<(), RequestError> {
        let mut offset = 0;
        let mut attempt = 1;
        loop {
            match self.fetch(descriptor, sink, &mut offset, id, progress).await? {
                Try::Done => return Ok(()),
                Try::Again(error) if attempt >= attempts => {
                    tracing::debug!(blob = %descriptor.digest, %error, "download failed after {attempt} attempts");
                    return Err(error.into());
                }
                Try::Again(error) => {
                    tracing::debug!(blob = %descriptor.digest, %error, offset, "download broke; going on");
                    // As Docker: five seconds more each time, told as they pass. The first time at once: most breaks
                    // are a connection's end.
                    for left in (1..=5 * (attempt - 1)).rev() {
                        let plural = if left == 1 { "" } else { "s" };
                        progress.status(id, format!("Retrying in {left} second{plural}")).await;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    attempt += 1;
                }
            }
        }
    }

    async fn fetch(
        &self,
        descriptor: &Descriptor,
        sink: &mut Sink,
        offset: &mut u64,
        id: &str,
        progress: &ProgressSender,
    ) -> std::result::Result<Try, RequestError> {
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let mut headers = vec![(ACCEPT_ENCODING, "identity".to_owned())];
        if *offset > 0 {
            headers.push((RANGE, format!("bytes={offset}-")));
        }
        let mut response = match self.request(Method::GET, &url, &headers, None).await {
            Ok(response) => response,
            Err(RequestError::Refused(failure)) if failure.is_temporary() => return Ok(Try::Again(failure.error())),
            Err(RequestError::Failed(error @ Error::Registry(_))) => return Ok(Try::Again(error)),
            Err(error) => return Err(error),
        };
        if *offset > 0 && !continues(&response, *offset) {
            // It does not go on where we asked it to: from the start, then.
            *offset = 0;
            sink.push(Piece::Restart).await?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                return Ok(Try::Again(Error::Registry(format!("Get \"{url}\": unexpected range"))));
            }
        }
        let wrong_size = |got: u64| {
            let size = descriptor.size;
            Error::Corrupt(format!("blob {} has {got} bytes or more, its descriptor says {size}", descriptor.digest))
        };
        if let Some(length) = response.content_length().filter(|length| *offset + length > descriptor.size) {
            return Err(wrong_size(*offset + length).into());
        }
        let mut throttle = Throttle::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    *offset += chunk.len() as u64;
                    if *offset > descriptor.size {
                        return Err(wrong_size(*offset).into());
                    }
                    sink.push(Piece::Data(chunk)).await?;
                    if throttle.due() {
                        progress.bytes(id, "Downloading", *offset, descriptor.size);
                    }
                }
                Ok(None) if *offset == descriptor.size => return Ok(Try::Done),
                Ok(None) => return Ok(Try::Again(Error::Registry(format!("Get \"{url}\": unexpected EOF")))),
                Err(error) => return Ok(Try::Again(describe("Get", &url, &error))),
            }
        }
    }
}

fn ended() -> Error {
    Error::Registry("the download's writer ended".into())
}

/// Whether an answer goes on at `offset`.
fn continues(response: &reqwest::Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// Writes and hashes on a thread that may block, so that the network's threads do not.
struct Sink {
    pieces: mpsc::Sender<Piece>,
    writer: tokio::task::JoinHandle<Result<(tempfile::NamedTempFile, String)>>,
}

impl Sink {
    fn start(dir: &std::path::Path) -> Result<Self> {
        let file = tempfile::Builder::new().prefix("download-").tempfile_in(dir);
        let mut file = file.map_err(Error::io(format!("make a file in {}", dir.display())))?;
        let (pieces, mut queue) = mpsc::channel(QUEUE);
        let writer = tokio::task::spawn_blocking(move || {
            let failed = || Error::io::<std::io::Error>("write a download");
            let mut hash = Sha256::new();
            while let Some(piece) = queue.blocking_recv() {
                match piece {
                    Piece::Data(data) => {
                        hash.update(&data);
                        file.write_all(&data).map_err(failed())?;
                    }
                    Piece::Restart => {
                        hash = Sha256::new();
                        file.as_file().set_len(0).map_err(failed())?;
                        file.seek(SeekFrom::Start(0)).map_err(failed())?;
                    }
                }
            }
            let hex = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
            Ok((file, hex))
        });
        Ok(Self { pieces, writer })
    }

    async fn push(&mut self, piece: Piece) -> Result<()> {
        if self.pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        // The writer ended early, with an error. Afterwards there is nothing left to finish.
        let writer = std::mem::replace(&mut self.writer, tokio::spawn(async { Err(ended()) }));
        match writer.await {
            Ok(Err(error)) => Err(error),
            _ => Err(ended()),
        }
    }

    async fn finish(self) -> Result<(tempfile::NamedTempFile, String)> {
        drop(self.pieces);
        self.writer.await.map_err(|error| Error::Registry(format!("the download's writer: {error}")))?
    }
}
