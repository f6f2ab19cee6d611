//! From a ticket to two devices that know each other by key. The holder proves the ticket's secret bound to
//! this very connection; the maker decides. Never keeps state: tickets live in the store.

use std::time::Duration;

use alike_core::message::{PAIR_ALPN, PairReply, PairRequest, Refusal};
use alike_store::TicketRow;
use iroh::endpoint::Connection;
use iroh::{Endpoint, EndpointId};

use crate::endpoint::CLOSE_DONE;
use crate::failpoint::point;
use crate::ticket::Ticket;
use crate::wire::{self, WireError};

/// Wrong proofs after which a ticket is dead.
pub(crate) const MAX_FAILURES: u32 = 5;
/// Dialling the ticket's maker.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// The exchange itself.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// What only this connection's two ends and the ticket's secret give.
fn proof(connection: &Connection, secret: &[u8; 16], holder: EndpointId) -> Result<[u8; 32], WireError> {
    let mut material = [0u8; 32];
    connection
        .export_keying_material(&mut material, b"alike pairing, version 1", holder.as_bytes())
        .map_err(|e| WireError::lost(format!("{e:?}")))?;
    let key = *blake3::hash(secret).as_bytes();
    Ok(*blake3::keyed_hash(&key, &material).as_bytes())
}

/// Does the holder's proof fit this ticket, and is the ticket still good?
pub(crate) fn judge(
    connection: &Connection,
    request: &PairRequest,
    ticket: Option<&TicketRow>,
    now_ms: u64,
) -> Result<(), Refusal> {
    let ticket = ticket.ok_or(Refusal::Unknown)?;
    if ticket.failures >= MAX_FAILURES {
        return Err(Refusal::Revoked);
    }
    let want = proof(connection, &ticket.secret, connection.remote_id()).map_err(|_| Refusal::Unknown)?;
    // blake3's own comparison takes the same time wherever the difference is.
    if blake3::Hash::from_bytes(want) != blake3::Hash::from_bytes(request.proof) {
        return Err(Refusal::Unknown);
    }
    if ticket.revoked {
        Err(Refusal::Revoked)
    } else if ticket.expires_ms <= now_ms {
        Err(Refusal::Expired)
    } else if ticket.uses_left == 0 {
        Err(Refusal::Used)
    } else {
        Ok(())
    }
}

/// The maker's side, first half: reads the request. The engine judges, then [`reply`] ends it.
pub(crate) async fn read_request(
    connection: &Connection,
) -> Result<(PairRequest, iroh::endpoint::SendStream), WireError> {
    let read = async {
        let (send, mut recv) = connection.accept_bi().await.map_err(WireError::lost)?;
        let request = wire::recv(&mut recv)
            .await?
            .ok_or_else(|| WireError::lost("closed before asking"))?;
        Ok((request, send))
    };
    tokio::time::timeout(REPLY_TIMEOUT, read)
        .await
        .map_err(|_| WireError::lost("no request in time"))?
}

/// The maker's side, second half.
pub(crate) async fn reply(mut send: iroh::endpoint::SendStream, reply: &PairReply) -> Result<(), WireError> {
    wire::send(&mut send, reply).await?;
    let _ = send.finish();
    point("pair.replied");
    // The holder closes once it has read the reply: only then is it safe to let go of the connection.
    let _ = tokio::time::timeout(REPLY_TIMEOUT, send.stopped()).await;
    Ok(())
}

/// Why pairing did not work, told to the ticket's holder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PairError {
    #[error(
        "cannot reach the device that made the ticket ({0}); is its engine running, and is there a network between you?"
    )]
    Unreachable(String),
    #[error("{0}")]
    Refused(Refusal),
    #[error(
        "the other device did not let this one in: the ticket has been used, has expired or was revoked; ask for a new one (`sync share`)"
    )]
    NotLetIn,
    #[error("pairing broke off: {0}; try again")]
    Broke(#[from] WireError),
}

/// The holder's side. Returns the maker's welcome and the connection's addresses worth remembering.
pub(crate) async fn redeem(endpoint: &Endpoint, ticket: &Ticket, name: &str) -> Result<PairReply, PairError> {
    let dial = tokio::time::timeout(DIAL_TIMEOUT, endpoint.connect(ticket.addr.clone(), PAIR_ALPN));
    let connection = match dial.await {
        Err(_) => return Err(PairError::Unreachable("no answer".into())),
        Ok(Err(error)) => return Err(PairError::Unreachable(error.to_string())),
        Ok(Ok(connection)) => connection,
    };
    point("pair.dialled");
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(WireError::lost)?;
        let proof = proof(&connection, &ticket.secret, endpoint.id())?;
        point("pair.proof");
        wire::send(
            &mut send,
            &PairRequest {
                ticket: ticket.id,
                proof,
                name: name.to_owned(),
            },
        )
        .await?;
        let _ = send.finish();
        point("pair.proof.sent");
        let reply = wire::recv::<PairReply>(&mut recv).await?;
        point("pair.reply");
        reply.ok_or_else(|| WireError::lost("no answer"))
    };
    let reply = match tokio::time::timeout(REPLY_TIMEOUT, exchange).await {
        Err(_) => return Err(PairError::Broke(WireError::lost("no answer in time"))),
        Ok(Err(error)) => {
            // The gate at the other side's door closes the connection before a stream is read.
            let closed = connection
                .close_reason()
                .map(|r| format!("{r:?}"))
                .unwrap_or_default();
            return Err(if closed.contains("403") {
                PairError::NotLetIn
            } else {
                PairError::Broke(error)
            });
        }
        Ok(Ok(reply)) => reply,
    };
    connection.close(CLOSE_DONE.into(), b"paired");
    match reply {
        PairReply::Refused(refusal) => Err(PairError::Refused(refusal)),
        welcome @ PairReply::Welcome { .. } => Ok(welcome),
    }
}
