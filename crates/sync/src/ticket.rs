//! The ticket: what `sync share` prints and `sync pair` takes. A versioned value in a text form with a
//! checksum. Never decides whether it is still good: its maker does (see `pairing`).

use alike_core::ids::FolderId;
use iroh::{EndpointAddr, EndpointId};
use iroh_tickets::{ParseError, Ticket as _};
use serde::{Deserialize, Serialize};

/// An invitation into one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// Who made it and where it listens.
    pub(crate) addr: EndpointAddr,
    /// Which of the maker's tickets.
    pub(crate) id: [u8; 8],
    /// What the holder proves to know.
    pub(crate) secret: [u8; 16],
    /// The folder.
    pub(crate) folder: FolderId,
    /// Its name: the default name of the directory on the other side.
    pub(crate) folder_name: String,
}

/// The versions of the byte form.
#[derive(Serialize, Deserialize)]
enum Versioned {
    V1(Ticket),
}

const CHECKSUM: usize = 4;

impl iroh_tickets::Ticket for Ticket {
    const KIND: &'static str = "alike";

    fn encode_bytes(&self) -> Vec<u8> {
        let mut bytes = postcard::to_allocvec(&Versioned::V1(self.clone())).expect("a ticket is plain data");
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(&sum.as_bytes()[..CHECKSUM]);
        bytes
    }

    fn decode_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let bad = || ParseError::verification_failed("checksum");
        let (body, sum) = bytes
            .split_at_checked(bytes.len().saturating_sub(CHECKSUM))
            .ok_or_else(bad)?;
        if blake3::hash(body).as_bytes()[..CHECKSUM] != *sum {
            return Err(bad());
        }
        let Versioned::V1(ticket) = postcard::from_bytes(body)?;
        Ok(ticket)
    }
}

impl Ticket {
    /// The device that made it.
    pub(crate) fn maker(&self) -> EndpointId {
        self.addr.id
    }

    /// The text form.
    pub(crate) fn to_text(&self) -> String {
        self.encode_string()
    }

    /// Reads the text form; spaces and line breaks that a terminal or mail put in do not matter.
    pub(crate) fn from_text(text: &str) -> Result<Self, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if !text.to_ascii_lowercase().starts_with(Self::KIND) {
            return Err("this is no ticket: tickets begin with “alike”; copy the whole line that `sync share` printed".into());
        }
        Self::decode_string(&text.to_ascii_lowercase()).map_err(|_| {
            "the ticket is damaged or cut short; copy the whole line that `sync share` printed".into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_round_trip_and_every_slip_is_noticed() {
        let id = iroh::SecretKey::from_bytes(&[7; 32]).public();
        let ticket = Ticket {
            addr: EndpointAddr::new(id).with_ip_addr("127.0.0.1:4433".parse().unwrap()),
            id: [1; 8],
            secret: [2; 16],
            folder: FolderId([3; 16]),
            folder_name: "photos".into(),
        };
        let text = ticket.to_text();
        assert_eq!(Ticket::from_text(&text).unwrap(), ticket);
        assert_eq!(
            Ticket::from_text(&format!(" {}\n{} ", &text[..20], &text[20..])).unwrap(),
            ticket
        );
        for at in 5..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            assert!(
                Ticket::from_text(std::str::from_utf8(&bytes).unwrap()).is_err(),
                "{at}"
            );
            assert!(Ticket::from_text(&text[..at]).is_err());
        }
        assert!(Ticket::from_text("").is_err());
    }
}
