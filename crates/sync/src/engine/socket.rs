//! The server side of the control socket: one request a connection, then its replies. Never answers anything
//! itself.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::Event;
use crate::control::{Reply, Request, SOCKET, socket_path};
use crate::error::Error;

/// Longest request line.
const MAX_LINE: u64 = 1 << 20;
/// The last reply gets this long to reach the command.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The way back to a command.
#[derive(Clone, Debug)]
pub(super) struct Responder(mpsc::UnboundedSender<Reply>);

impl Responder {
    /// The request is done.
    pub(super) fn done<T: Serialize>(&self, value: &T) {
        let _ = self.0.send(Reply::Done { value: json(value) });
    }

    /// What a folder's thread made of the request; `None`: it has ended.
    pub(super) fn answered<T: Serialize>(&self, answer: Option<Result<(), Error>>, value: &T) {
        match answer {
            Some(Ok(())) => self.done(value),
            Some(Err(error)) => self.failed(error, false),
            None => self.failed("the folder has stopped; `sync status` says why", false),
        }
    }

    /// The request failed.
    pub(super) fn failed(&self, message: impl ToString, timeout: bool) {
        let _ = self.0.send(Reply::Failed {
            message: message.to_string(),
            timeout,
        });
    }

    /// Something on the way.
    pub(super) fn event<T: Serialize>(&self, value: &T) {
        let _ = self.0.send(Reply::Event { value: json(value) });
    }

    /// Has the command gone away?
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the command has gone away.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }

    /// Waits until the last reply is written.
    pub(super) async fn flushed(&self) {
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.0.closed()).await;
    }
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("replies are plain data")
}

/// Removes the socket's file when the engine ends.
pub(super) struct Listening {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens; the caller holds the database's lock, so a socket that is there is a dead engine's.
pub(super) fn listen(home: &Path, events: mpsc::Sender<Event>) -> Result<Listening, Error> {
    let fail = |e: std::io::Error| Error::Home {
        path: home.to_path_buf(),
        reason: format!("control socket: {e}"),
    };
    let path = home.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let dir = std::fs::File::open(home).map_err(fail)?;
    let listener = UnixListener::bind(socket_path(&dir)).map_err(fail)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    let task = tokio::spawn(async move {
        let _dir = dir;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, events.clone()));
                }
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(Listening { path, task })
}

async fn serve(stream: UnixStream, events: mpsc::Sender<Event>) {
    let own = rustix::process::geteuid().as_raw();
    if stream
        .peer_cred()
        .map_or(true, |cred| cred.uid() != own && cred.uid() != 0)
    {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(MAX_LINE));
    let mut line = String::new();
    if lines.read_line(&mut line).await.is_err() {
        return;
    }
    let (sender, mut replies) = mpsc::unbounded_channel();
    let responder = Responder(sender);
    match serde_json::from_str::<Request>(&line) {
        Ok(request) => {
            if events.send(Event::Request(request, responder)).await.is_err() {
                return;
            }
        }
        Err(error) => {
            let message = format!(
                "the command and the engine are of different versions ({error}); run `sync stop` and try again"
            );
            responder.failed(message, false);
        }
    }
    let mut rest = [0u8; 1];
    loop {
        let reply = tokio::select! {
            reply = replies.recv() => reply,
            // The command went away: nobody reads the replies any more.
            _ = lines.read(&mut rest) => return,
        };
        let Some(reply) = reply else { return };
        let last = !matches!(reply, Reply::Event { .. });
        let mut bytes = serde_json::to_vec(&reply).expect("replies are plain data");
        bytes.push(b'\n');
        if write.write_all(&bytes).await.is_err() || last {
            return;
        }
    }
}
