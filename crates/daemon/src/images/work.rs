//! Long work on images, which tells of its progress while a client listens.

use ::images::Progress;
use api::backend::BoxStream;
use api::types;
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// How many messages may wait for a slow client.
pub(super) const WAITING: usize = 64;

/// Runs blocking work that tells of its progress. An error before the first message is returned, a later one ends the
/// stream. The work goes on to its end when the client goes away.
pub(super) async fn run(
    work: impl FnOnce(&mut (dyn FnMut(types::Progress) + Send)) -> Result<()> + Send + 'static,
) -> Result<BoxStream<types::Progress>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        // A client that is gone is told nothing.
        let mut tell = |progress| drop(sender.blocking_send(Ok(progress)));
        if let Err(error) = work(&mut tell) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream(receiver).await
}

/// The messages as the client gets them; an error that comes first is returned.
pub(super) async fn stream(
    mut receiver: mpsc::Receiver<Result<types::Progress>>,
) -> Result<BoxStream<types::Progress>> {
    let first = receiver.recv().await.transpose()?;
    let rest =
        futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) });
    let all = futures::stream::iter(first.map(Ok)).chain(rest);
    Ok(all.map(|item: Result<types::Progress, Error>| item.map_err(api::Error::from)).boxed())
}

/// A message in the API's terms. One with an id always has details: that is how the CLI knows which line to redraw.
pub(super) fn show(progress: Progress) -> types::Progress {
    let detail = progress.bytes.map(|(current, total)| types::ProgressDetail {
        current: i64::try_from(current).unwrap_or(i64::MAX),
        total: total.map_or(0, |total| i64::try_from(total).unwrap_or(i64::MAX)),
        ..Default::default()
    });
    types::Progress {
        progress_detail: detail.or_else(|| (!progress.id.is_empty()).then(Default::default)),
        stream: progress.stream,
        status: progress.status,
        id: progress.id,
        aux: progress.aux,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_early_error_is_returned_and_a_late_one_is_sent() {
        let early = run(|_| Err(Error::NotFound("x".into()))).await;
        assert!(matches!(early, Err(Error::NotFound(_))));
        let late = run(|tell| {
            tell(show(Progress::status("a", "b")));
            Err(Error::System("c".into()))
        });
        let items: Vec<_> = late.await.unwrap().collect().await;
        assert_eq!(items[0].as_ref().unwrap().progress_detail, Some(Default::default()));
        assert_eq!(items[1].as_ref().unwrap_err().message, "c");
        assert_eq!(items.len(), 2);
    }
}
