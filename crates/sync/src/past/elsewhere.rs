//! Asking the other devices of a folder which contents they have. Never fetches any.

use std::collections::HashSet;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::ids::FolderId;
use alike_core::message::MAX_HAVE;
use iroh::endpoint::Connection;
use tokio::sync::mpsc;

use crate::fetch::net;

/// A device that has not answered by then counts as not having it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Answers on their way from the devices.
const ANSWERS: usize = 16;

/// Which of these contents some of the devices have now.
pub(crate) async fn elsewhere(
    peers: Vec<Connection>,
    folder: FolderId,
    wanted: Vec<Digest>,
) -> HashSet<Digest> {
    let mut found = HashSet::new();
    if wanted.is_empty() {
        return found;
    }
    let (out, mut answers) = mpsc::channel(ANSWERS);
    for peer in peers {
        let (wanted, out) = (wanted.clone(), out.clone());
        tokio::spawn(async move {
            let ask = async {
                for some in wanted.chunks(MAX_HAVE) {
                    match net::have(&peer, folder, some).await {
                        Ok(here) => {
                            let has: Vec<Digest> = some
                                .iter()
                                .zip(here)
                                .filter(|(_, h)| *h)
                                .map(|(d, _)| *d)
                                .collect();
                            if out.send(has).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            tracing::debug!(peer = %peer.remote_id().fmt_short(), "asking what it has: {error}");
                            return;
                        }
                    }
                }
            };
            // What was answered in time counts.
            let _ = tokio::time::timeout(TIMEOUT, ask).await;
        });
    }
    drop(out);
    while let Some(has) = answers.recv().await {
        found.extend(has);
    }
    found
}
