//! The way to a folder's thread, for those who run beside it. Never waits on the network's threads.

use std::sync::mpsc;

use tokio::sync::oneshot;

use super::FolderEvent;

/// The way to a folder's thread.
pub(crate) type Inbox = mpsc::SyncSender<FolderEvent>;

/// Hands an event to a folder's thread, and waits while its queue is full. `false`: it has ended.
pub(crate) async fn tell(inbox: &Inbox, event: FolderEvent) -> bool {
    let inbox = inbox.clone();
    let sent = tokio::task::spawn_blocking(move || inbox.send(event).is_ok()).await;
    matches!(sent, Ok(true))
}

/// Asks a folder's thread and waits for its answer. `None`: it has ended.
pub(crate) async fn ask<T>(
    inbox: &Inbox,
    event: impl FnOnce(oneshot::Sender<T>) -> FolderEvent,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    tell(inbox, event(reply)).await;
    answer.await.ok()
}
