//! One folder with one peer: when to announce, when to pull. A state machine without time, sockets or trees:
//! inputs in, outputs out. Never merges; its driver does and says what came of it.

use crate::ids::Vector;
use crate::message::Announce;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The connection is up.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// Our state, or what is left to do for it, changed.
    Ours(Announce),
    /// The peer said so.
    Theirs(Announce),
    /// The peer no longer takes part.
    Withdrawn,
    /// The pull that was asked for ended; merged or not, it is no longer under way.
    PullEnded {
        /// Did it get everything and merge it?
        merged: bool,
    },
    /// Try again what failed.
    Retry,
    /// The peer wants to hear our state (again).
    Asked,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the peer.
    Send(Announce),
    /// Fetch the peer's state and merge it.
    Pull(Announce),
}

/// The state of a folder's exchange with one peer.
#[derive(Debug, Default)]
pub struct Session {
    connected: bool,
    ours: Option<Announce>,
    theirs: Option<Announce>,
    sent: Option<Announce>,
    pulling: Option<Announce>,
    /// What the last pull was of, if it failed: not tried again until told.
    failed: Option<Announce>,
    /// What the last pull was of, if it was merged: merging it again changes nothing.
    taken: Option<Announce>,
    /// The peer takes no part for now.
    withdrawn: bool,
    /// The peer has spoken on this connection.
    heard: bool,
}

impl Session {
    /// Takes one input; returns what to do, in order.
    pub fn handle(&mut self, input: Input) -> Vec<Output> {
        match input {
            Input::Connected => {
                let ours = self.ours.take();
                *self = Session {
                    connected: true,
                    ours,
                    ..Session::default()
                };
            }
            Input::Disconnected => {
                let (ours, theirs) = (self.ours.take(), self.theirs.take());
                *self = Session {
                    ours,
                    theirs,
                    ..Session::default()
                };
            }
            Input::Ours(announce) => self.ours = Some(announce),
            Input::Theirs(announce) => {
                self.theirs = Some(announce);
                self.withdrawn = false;
                self.heard = true;
            }
            Input::Withdrawn => {
                self.theirs = None;
                self.withdrawn = true;
            }
            Input::PullEnded { merged } => {
                let pulled = self.pulling.take();
                (self.taken, self.failed) = if merged { (pulled, None) } else { (None, pulled) };
            }
            Input::Retry => self.failed = None,
            Input::Asked => self.sent = None,
        }
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(ours) = self.ours.as_ref().filter(|_| self.connected) else {
            return out;
        };
        let seen_here = ours.claims.vector();
        let theirs = self.theirs.as_ref().map(|t| (t, t.claims.vector()));
        let said = Announce {
            heard: self.heard,
            ..ours.clone()
        };
        let unheard = Announce {
            heard: false,
            ..ours.clone()
        };
        // That we have heard the peer is news only to one that would pull.
        let pulls = theirs
            .as_ref()
            .is_some_and(|(theirs, seen)| has_news((ours, &seen_here), (theirs, seen)));
        let known = self
            .sent
            .as_ref()
            .is_some_and(|sent| *sent == said || (*sent == unheard && !pulls));
        if !known {
            self.sent = Some(said.clone());
            out.push(Output::Send(said));
        }
        // Who has not heard us yet may still find that it has to give its newest writes other dots.
        let Some((theirs, seen)) = theirs.filter(|(theirs, _)| theirs.heard) else {
            return out;
        };
        let same = |a: &Announce| a.state == theirs.state && a.claims == theirs.claims;
        let known = [&self.failed, &self.taken].into_iter().flatten().any(same);
        if has_news((theirs, &seen), (ours, &seen_here)) && self.pulling.is_none() && !known {
            self.pulling = Some(theirs.clone());
            out.push(Output::Pull(theirs.clone()));
        }
        out
    }

    /// What the peer said last, in this connection or the last one.
    pub fn theirs(&self) -> Option<&Announce> {
        self.theirs.as_ref()
    }

    /// Is a state of the peer on its way here?
    pub fn is_pulling(&self) -> bool {
        self.pulling.is_some()
    }

    /// Is a connection up?
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Does the peer take part: connected, and not withdrawn?
    pub fn takes_part(&self) -> bool {
        self.connected && !self.withdrawn
    }

    /// Do both have the same state, on both disks?
    pub fn in_sync(&self) -> bool {
        match (&self.ours, &self.theirs) {
            (Some(ours), Some(theirs)) => {
                self.connected
                    && self.pulling.is_none()
                    && ours.state == theirs.state
                    && ours.root == theirs.root
                    && ours.pending_files + theirs.pending_files == 0
            }
            _ => false,
        }
    }
}

/// Has one state anything for the other? Not if its vector is strictly behind, or counts what the other knows to be void:
/// then it pulls, and announces again.
fn has_news((of, seen): (&Announce, &Vector), (by, known): (&Announce, &Vector)) -> bool {
    if of.claims.ends_unknown_to(&by.claims).next().is_some() {
        true
    } else if by.claims.void_some_of(&of.claims) {
        false
    } else if seen == known {
        of.state != by.state
    } else {
        !seen.is_covered_by(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::{Claim, Claims};
    use crate::digest::Digest;
    use crate::ids::{FolderId, ReplicaId};

    fn announce(state: &[u8], seen: &[(u64, u64)]) -> Announce {
        let mut claims = Claims::default();
        for &(replica, seq) in seen {
            let claim = Claim {
                device: [0; 32],
                nonce: [0; 16],
                seq,
                chain: Digest::of(b"chain"),
                ended: false,
                signature: [[0; 32]; 2],
            };
            claims.take(ReplicaId(replica), claim);
        }
        Announce {
            folder: FolderId([0; 16]),
            state: Some(Digest::of(state)),
            claims,
            heard: true,
            root: Digest::of(state),
            pending_files: 0,
            pending_bytes: 0,
            settled: true,
        }
    }

    #[test]
    fn nothing_changed_costs_one_message_each_way() {
        let mut session = Session::default();
        assert!(session.handle(Input::Ours(announce(b"a", &[(1, 1)]))).is_empty());
        assert_eq!(session.handle(Input::Connected).len(), 1);
        assert!(
            session
                .handle(Input::Theirs(announce(b"a", &[(1, 1)])))
                .is_empty()
        );
        assert!(session.in_sync());
    }

    #[test]
    fn only_the_side_that_lacks_something_pulls_and_once_at_a_time() {
        let (old, new) = (announce(b"a", &[(1, 1)]), announce(b"b", &[(1, 2)]));
        let mut ahead = Session::default();
        ahead.handle(Input::Connected);
        ahead.handle(Input::Ours(new.clone()));
        // Not pulled; but the peer, which pulls, has to hear that it was heard.
        assert_eq!(
            ahead.handle(Input::Theirs(old.clone())),
            [Output::Send(new.clone())]
        );
        let mut behind = Session::default();
        behind.handle(Input::Ours(old));
        behind.handle(Input::Connected);
        assert_eq!(
            behind.handle(Input::Theirs(new.clone())),
            [Output::Pull(new.clone())]
        );
        let newer = announce(b"c", &[(1, 3)]);
        assert!(
            behind.handle(Input::Theirs(newer.clone())).is_empty(),
            "one pull at a time"
        );
        behind.handle(Input::Ours(new));
        assert_eq!(
            behind.handle(Input::PullEnded { merged: true }),
            [Output::Pull(newer)]
        );
    }

    #[test]
    fn a_state_that_was_merged_is_not_pulled_again() {
        // Equal vectors, different states, and nothing that a merge would change: once is enough.
        let (ours, theirs) = (announce(b"a", &[(1, 1)]), announce(b"b", &[(1, 1)]));
        let mut session = Session::default();
        session.handle(Input::Ours(ours));
        session.handle(Input::Connected);
        assert_eq!(
            session.handle(Input::Theirs(theirs.clone())),
            [
                Output::Send(announce(b"a", &[(1, 1)])),
                Output::Pull(theirs.clone())
            ]
        );
        assert!(session.handle(Input::PullEnded { merged: true }).is_empty());
        assert!(session.handle(Input::Theirs(theirs)).is_empty());
    }

    #[test]
    fn who_withdrew_is_not_waited_for() {
        let mut session = Session::default();
        session.handle(Input::Connected);
        session.handle(Input::Theirs(announce(b"a", &[(1, 1)])));
        assert!(session.takes_part());
        session.handle(Input::Withdrawn);
        assert!(!session.takes_part());
        session.handle(Input::Theirs(announce(b"a", &[(1, 1)])));
        assert!(session.takes_part());
    }

    #[test]
    fn a_failed_pull_is_tried_again_only_when_told_or_when_the_peer_moves() {
        let (old, new) = (announce(b"a", &[(1, 1)]), announce(b"b", &[(1, 2)]));
        let mut session = Session::default();
        session.handle(Input::Ours(old));
        session.handle(Input::Connected);
        session.handle(Input::Theirs(new.clone()));
        assert!(session.handle(Input::PullEnded { merged: false }).is_empty());
        assert_eq!(session.handle(Input::Retry), [Output::Pull(new)]);
    }

    #[test]
    fn an_end_is_pulled_first_and_nothing_from_who_does_not_know_it() {
        // The end takes back what the other counts: its vector is behind, and still it is news.
        let (ended, other) = (announce(b"a", &[(1, 5)]), announce(b"b", &[(1, 7)]));
        let end = Claim {
            ended: true,
            ..ended.claims.get(ReplicaId(1)).expect("it is there").clone()
        };
        let mut ended = ended;
        ended.claims.take(ReplicaId(1), end);
        let mut knows = Session::default();
        knows.handle(Input::Ours(ended.clone()));
        knows.handle(Input::Connected);
        let told = knows.handle(Input::Theirs(other.clone()));
        assert_eq!(told, [Output::Send(ended.clone())]);
        let mut lacks = Session::default();
        lacks.handle(Input::Ours(other));
        lacks.handle(Input::Connected);
        assert_eq!(
            lacks.handle(Input::Theirs(ended.clone())).pop(),
            Some(Output::Pull(ended))
        );
    }

    #[test]
    fn nothing_is_pulled_from_a_peer_that_has_not_heard_us() {
        let (old, new) = (announce(b"a", &[(1, 1)]), announce(b"b", &[(1, 2)]));
        let mut session = Session::default();
        session.handle(Input::Ours(old));
        session.handle(Input::Connected);
        let unheard = Announce {
            heard: false,
            ..new.clone()
        };
        assert!(session.handle(Input::Theirs(unheard)).is_empty());
        assert_eq!(
            session.handle(Input::Theirs(new.clone())),
            [Output::Pull(new.clone())]
        );
        // In a new connection it may be a process that began with another database.
        session.handle(Input::Disconnected);
        assert_eq!(session.handle(Input::Connected).len(), 1);
        let unheard = Announce { heard: false, ..new };
        assert!(session.handle(Input::Theirs(unheard)).is_empty());
    }
}
