//! One live connection to a paired device: the control stream both ways, and a task for every request stream
//! it opens. Never decides what to say; the engine does.

use std::sync::Arc;
use std::time::Duration;

use alike_core::message::{Hello, Message};
use iroh::EndpointId;
use iroh::endpoint::Connection;
use tokio::sync::{Semaphore, mpsc};

use crate::claims::Verified;
use crate::endpoint::{CLOSE_DONE, CLOSE_PROTOCOL};
use crate::serve::{self, Served};
use crate::wire::{self, WireError};

/// Most request streams of one peer served at once; more wait in QUIC's own queue.
const MAX_REQUESTS: usize = 32;
/// A peer that has not said hello after this long is given up.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that said hello.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) device: EndpointId,
    pub(crate) connection: Connection,
    /// Tells this connection from an older or newer one of the same device.
    pub(crate) id: usize,
    /// The other engine's run.
    pub(crate) boot: u64,
    /// The other device's name.
    pub(crate) name: String,
    /// Did this side dial?
    pub(crate) dialled: bool,
    out: mpsc::UnboundedSender<Message>,
}

impl Link {
    /// Queues a message. The queue is bounded by the sessions: one announcement a change of state.
    pub(crate) fn send(&self, message: Message) {
        let _ = self.out.send(message);
    }

    /// Closes the connection; its `Down` follows.
    pub(crate) fn close(&self, reason: &str) {
        self.connection.close(CLOSE_DONE.into(), reason.as_bytes());
    }
}

/// What the engine hears of connections.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// Hellos are exchanged.
    Up(Link),
    /// The peer said something.
    Said {
        device: EndpointId,
        link: usize,
        message: Message,
    },
    /// The connection is over.
    Down {
        device: EndpointId,
        link: usize,
        reason: String,
    },
}

/// Runs a connection to its end.
pub(crate) async fn run(
    connection: Connection,
    hello: Hello,
    served: Arc<Served>,
    events: mpsc::Sender<PeerEvent>,
) {
    let device = connection.remote_id();
    let link = connection.stable_id();
    let result = drive(&connection, hello, served, &events).await;
    let reason = match &result {
        Ok(()) => "closed".to_owned(),
        Err(error) => error.to_string(),
    };
    let code = if matches!(result, Err(WireError::Protocol(_))) {
        CLOSE_PROTOCOL
    } else {
        CLOSE_DONE
    };
    connection.close(code.into(), reason.as_bytes());
    let _ = events.send(PeerEvent::Down { device, link, reason }).await;
}

async fn drive(
    connection: &Connection,
    hello: Hello,
    served: Arc<Served>,
    events: &mpsc::Sender<PeerEvent>,
) -> Result<(), WireError> {
    let dialled = connection.side().is_client();
    let greet = async {
        let (mut send, mut recv) = if dialled {
            let (mut send, recv) = connection.open_bi().await.map_err(WireError::lost)?;
            wire::send(&mut send, &Message::Hello(hello)).await?;
            (send, recv)
        } else {
            let (mut send, recv) = connection.accept_bi().await.map_err(WireError::lost)?;
            wire::send(&mut send, &Message::Hello(hello)).await?;
            (send, recv)
        };
        match wire::recv::<Message>(&mut recv).await? {
            Some(Message::Hello(theirs)) => Ok((theirs, send, recv)),
            Some(_) => Err(WireError::protocol("the first message is no hello")),
            None => {
                let _ = send.finish();
                Err(WireError::lost("closed before hello"))
            }
        }
    };
    let (theirs, mut send, mut recv) = tokio::time::timeout(HELLO_TIMEOUT, greet)
        .await
        .map_err(|_| WireError::lost("no hello in time"))??;
    let (out, mut outbox) = mpsc::unbounded_channel();
    let device = connection.remote_id();
    let id = connection.stable_id();
    let link = Link {
        device,
        connection: connection.clone(),
        id,
        boot: theirs.boot,
        name: theirs.name,
        dialled,
        out,
    };
    let gone = |_| WireError::lost("the engine is gone");
    events.send(PeerEvent::Up(link)).await.map_err(gone)?;

    let write = async {
        while let Some(message) = outbox.recv().await {
            wire::send(&mut send, &message).await?;
        }
        // The engine dropped its handle: this connection was replaced.
        Ok::<(), WireError>(())
    };
    let read = async {
        let mut verified = Verified::default();
        while let Some(message) = wire::recv::<Message>(&mut recv).await? {
            if matches!(message, Message::Hello(_)) {
                return Err(WireError::protocol("a second hello"));
            }
            if let Message::Announce(announce) = &message
                && !verified.check(announce)
            {
                return Err(WireError::protocol("a claim that its author has not signed"));
            }
            events
                .send(PeerEvent::Said {
                    device,
                    link: id,
                    message,
                })
                .await
                .map_err(gone)?;
        }
        Ok(())
    };
    let serve = async {
        let slots = Arc::new(Semaphore::new(MAX_REQUESTS));
        loop {
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let (send, recv) = connection.accept_bi().await.map_err(WireError::lost)?;
            let served = served.clone();
            let connection = connection.clone();
            tokio::spawn(async move {
                let _slot = slot;
                match serve::answer(device, send, recv, &served).await {
                    Err(WireError::Protocol(what)) => {
                        tracing::warn!(peer = %device.fmt_short(), "{what}");
                        connection.close(CLOSE_PROTOCOL.into(), what.as_bytes());
                    }
                    Err(WireError::Lost(what)) => tracing::debug!(peer = %device.fmt_short(), "{what}"),
                    Ok(()) => {}
                }
            });
        }
    };
    tokio::select! {
        end = write => end,
        end = read => end,
        end = serve => end,
    }
}
