//! `wait`: registered at once, answered when the condition holds.

use std::sync::Arc;

use api::backend::WaitCondition;
use api::types::ContainerWaitResponse;
use futures::future::BoxFuture;

use super::container::Container;
use super::record::Record;

/// The future ends when the condition holds. The container's present state is taken before this returns.
pub fn wait(container: &Arc<Container>, condition: WaitCondition) -> BoxFuture<'static, ContainerWaitResponse> {
    let mut watch = container.watch();
    let exits = container.record().exits;
    let removed = container.removed.clone();
    Box::pin(async move {
        let holds = |record: &Arc<Record>| match condition {
            // One that will be restarted counts as running, but its end is an end.
            WaitCondition::NotRunning => !record.state.is_active() || record.exits > exits,
            WaitCondition::NextExit => record.exits > exits,
            WaitCondition::Removed => false,
        };
        // A container that is removed meanwhile will not exit again.
        tokio::select! {
            biased;
            _ = watch.wait_for(holds) => {}
            () = removed.cancelled() => {}
        }
        let record = watch.borrow().clone();
        answer(&record)
    })
}

/// The status alone: an error would say that the *wait* failed.
fn answer(record: &Record) -> ContainerWaitResponse {
    ContainerWaitResponse { error: None, status_code: record.state.exit_code() }
}
