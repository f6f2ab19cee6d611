//! One value, one byte string: directories of both kinds of trees round-trip at every size, what decodes
//! encodes to the same bytes again, and no bytes from anywhere make a decoder panic.

mod common;

use std::collections::BTreeSet;

use alike_core::claim::{Claim, Claims};
use alike_core::codec::{DecodeError, Reader, put_bytes, put_varint};
use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::{Dot, FolderId, Hlc, ReplicaId};
use alike_core::message::{
    self, Announce, Bounded, Hello, MAX_BLOBS, MAX_FRAME, MAX_HAVE, MAX_LABEL, MAX_NODES, MAX_REPLICAS,
    Message, MessageError, PairReply, PairRequest, Refusal, Request, Wanted,
};
use alike_core::path::{MAX_PATH, Name, RelPath};
use alike_core::record::{ExecMark, MAX_FILE, Record, Value};
use alike_core::state::StateEntry;
use alike_core::subtree::Subtree;
use alike_core::tree::{self, Item, MAX_LEAF, MAX_TOP, Node};
use common::{Mem, Rng};
use proptest::prelude::*;

fn digest(rng: &mut Rng) -> Digest {
    Digest::of(&rng.next().to_le_bytes())
}

/// Numbers of every length, the ends of the range among them.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => rng.below(256) as u64,
        _ => rng.next() >> rng.below(64),
    }
}

fn dot(rng: &mut Rng) -> Dot {
    Dot {
        replica: ReplicaId(rng.next()),
        seq: number(rng).max(1),
    }
}

fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let most = if rng.percent(5) { most } else { most.min(12) };
    (0..rng.range(1, most)).map(|_| rng.next() as u8).collect()
}

fn names(rng: &mut Rng, count: usize) -> Vec<Name> {
    let mut out = BTreeSet::new();
    while out.len() < count {
        out.extend(Name::new(&bytes(rng, 255)));
    }
    out.into_iter().collect()
}

fn record(rng: &mut Rng) -> Record {
    let (own, hlc) = (dot(rng), Hlc(number(rng)));
    let value = match rng.below(4) {
        0 => Value::Dir,
        1 => Value::Symlink {
            target: bytes(rng, MAX_PATH).into(),
        },
        _ => Value::File {
            digest: digest(rng),
            size: number(rng).min(MAX_FILE),
        },
    };
    let mark = match rng.below(3) {
        0 => (hlc, own),
        1 => (hlc, dot(rng)),
        _ => (Hlc(number(rng)), own),
    };
    let on = rng.percent(50);
    Record {
        dot: own,
        hlc,
        exec: matches!(value, Value::File { .. }).then_some(ExecMark {
            hlc: mark.0,
            dot: mark.1,
            on,
        }),
        mtime: if value == Value::Dir {
            0
        } else {
            number(rng) as i64
        },
        value,
        prev: rng.percent(50).then(|| digest(rng)),
        relocated: rng.percent(30),
        imported: rng.percent(30),
    }
}

fn state_dir(seed: u64, count: usize) -> Vec<StateEntry> {
    let mut rng = Rng::new(seed);
    let names = names(&mut rng, count);
    let entry = |name: Name| {
        let many = rng.pick(&[0, 1, 1, 1, 2, 5]);
        let mut records: Vec<Record> = (0..many).map(|_| record(&mut rng)).collect();
        records.sort_by_key(|r| r.dot);
        let child = (records.is_empty() || rng.percent(20)).then(|| digest(&mut rng));
        StateEntry { name, records, child }
    };
    names.into_iter().map(entry).collect()
}

fn content_dir(seed: u64, count: usize) -> Vec<NamedEntry> {
    let mut rng = Rng::new(seed);
    let names = names(&mut rng, count);
    let entry = |name: Name| NamedEntry {
        name,
        entry: match rng.below(4) {
            0 => Entry::Dir {
                digest: digest(&mut rng),
            },
            1 => Entry::Symlink {
                target: bytes(&mut rng, MAX_PATH).into(),
            },
            _ => Entry::File {
                digest: digest(&mut rng),
                size: number(&mut rng).min(MAX_FILE),
                exec: rng.percent(50),
            },
        },
    };
    names.into_iter().map(entry).collect()
}

fn store<T: Item>(entries: &[T]) -> (Digest, Mem) {
    let mut nodes = Mem::new();
    let root = tree::write(entries, &mut |digest, bytes| {
        assert_eq!(digest, tree::node_digest::<T>(&bytes));
        nodes.insert(digest, bytes.into());
    });
    (root, nodes)
}

/// The bytes that a decoded node stands for, written here and not by the crate.
fn encode<T: Item>(node: &Node<T>) -> Vec<u8> {
    let mut out = Vec::new();
    match node {
        Node::Leaf(entries) => {
            out.push(0);
            put_varint(&mut out, entries.len() as u64);
            entries.iter().for_each(|e| e.encode(&mut out));
        }
        Node::Inner(level, children) => {
            out.push(*level);
            put_varint(&mut out, children.len() as u64);
            for (name, digest) in children {
                put_bytes(&mut out, name.as_bytes());
                out.extend_from_slice(&digest.0);
            }
        }
    }
    out
}

/// Decodes to nothing, or to what is written as exactly these bytes.
fn is_canonical<T: Item>(bytes: &[u8]) -> bool {
    match tree::decode::<T>(bytes) {
        Ok(node) => encode(&node) == bytes,
        Err(_) => true,
    }
}

fn round_trips<T: Item + PartialEq + std::fmt::Debug>(entries: &[T]) {
    let (root, nodes) = store(entries);
    assert_eq!(tree::read::<T>(&nodes, root).unwrap(), entries);
    assert_eq!(tree::read_checked::<T>(&nodes, root).unwrap(), entries);
    for bytes in nodes.values() {
        let node = tree::decode::<T>(bytes).unwrap();
        assert_eq!(encode(&node), &bytes[..]);
        match &node {
            Node::Leaf(entries) => assert!(entries.len() <= MAX_LEAF),
            Node::Inner(_, children) => assert!(children.len() <= MAX_LEAF),
        }
    }
    assert_eq!(nodes.len() > 1, entries.len() > MAX_TOP);
}

/// Every byte of a node changed in several ways, every truncation, a byte more.
fn survives_damage<T: Item>(bytes: &[u8], rng: &mut Rng) {
    assert!(is_canonical::<T>(bytes));
    for at in 0..bytes.len() {
        assert!(tree::decode::<T>(&bytes[..at]).is_err(), "cut at {at}");
        let mut damaged = bytes.to_vec();
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff, rng.range(1, 255) as u8] {
            damaged[at] = bytes[at] ^ flip;
            assert!(is_canonical::<T>(&damaged), "byte {at} ^ {flip}");
        }
    }
    assert!(tree::decode::<T>(&[bytes, &[0]].concat()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn state_directories_round_trip(seed: u64, count in prop_oneof![0usize..40, 1000usize..1100, 0usize..3000]) {
        round_trips(&state_dir(seed, count));
    }

    #[test]
    fn content_directories_round_trip(seed: u64, count in prop_oneof![0usize..40, 1000usize..1100, 0usize..3000]) {
        round_trips(&content_dir(seed, count));
    }

    #[test]
    fn damaged_nodes_are_refused_or_canonical(seed: u64, count in 0usize..6) {
        let mut rng = Rng::new(seed);
        for bytes in store(&state_dir(seed, count)).1.values().filter(|b| b.len() < 4000) {
            survives_damage::<StateEntry>(bytes, &mut rng);
        }
        for bytes in store(&content_dir(seed, count)).1.values().filter(|b| b.len() < 4000) {
            survives_damage::<NamedEntry>(bytes, &mut rng);
        }
    }

    #[test]
    fn one_changed_entry_changes_the_digest_and_few_nodes(seed: u64, at in 0usize..2500) {
        let mut entries = state_dir(seed, 2500);
        let (before, old) = store(&entries);
        entries[at].records = vec![record(&mut Rng::new(!seed))];
        let (after, new) = store(&entries);
        prop_assert_ne!(before, after);
        prop_assert!(new.keys().filter(|d| !old.contains_key(*d)).count() <= 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(is_canonical::<StateEntry>(&bytes));
        prop_assert!(is_canonical::<NamedEntry>(&bytes));
        messages_hold(&bytes);
        if let Ok(name) = Name::new(&bytes) {
            prop_assert_eq!(name.as_bytes(), &bytes[..]);
        }
        if let Ok(path) = RelPath::parse(&bytes) {
            let joined = path.components().fold(RelPath::root(), |at, name| at.join(&name));
            prop_assert_eq!(joined, path);
        }
    }

    /// Random bytes seldom get past the first field; these do.
    #[test]
    fn random_tails_never_panic(seed: u64, keep in 0usize..200, tail in proptest::collection::vec(any::<u8>(), 0..80)) {
        for bytes in store(&state_dir(seed, 2)).1.values() {
            let spliced = [&bytes[..keep.min(bytes.len())], &tail].concat();
            prop_assert!(is_canonical::<StateEntry>(&spliced));
        }
        let mut rng = Rng::new(seed);
        let bytes = message::encode(&message(&mut rng));
        messages_hold(&[&bytes[..keep.min(bytes.len())], &tail].concat());
    }

    #[test]
    fn records_and_numbers_round_trip(seed: u64) {
        let mut rng = Rng::new(seed);
        let (one, value) = (record(&mut rng), number(&mut rng));
        let mut bytes = Vec::new();
        one.encode(&mut bytes);
        put_varint(&mut bytes, value);
        let mut reader = Reader(&bytes);
        prop_assert_eq!(Record::decode(&mut reader), Ok(one));
        prop_assert_eq!(reader.varint(), Ok(value));
        prop_assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn messages_round_trip_and_hold_when_damaged(seed: u64) {
        let mut rng = Rng::new(seed);
        let made = message(&mut rng);
        let bytes = message::encode(&made);
        prop_assert_eq!(message::decode::<Message>(&bytes), Ok(made));
        let made = request(&mut rng);
        let bytes = message::encode(&made);
        prop_assert_eq!(message::decode::<Request>(&bytes), Ok(made));
        for _ in 0..8 {
            let mut damaged = bytes.clone();
            let at = rng.below(damaged.len());
            damaged[at] = rng.next() as u8;
            messages_hold(&damaged);
            messages_hold(&damaged[..at]);
        }
        prop_assert!(message::decode::<Request>(&[&bytes[..], &[0]].concat()).is_err());
    }
}

fn label(rng: &mut Rng) -> String {
    "é".repeat(rng.below(MAX_LABEL / 2 + 1))
}

fn folder(rng: &mut Rng) -> FolderId {
    FolderId([rng.next() as u8; 16])
}

fn claim(seq: u64) -> Claim {
    Claim {
        device: [0xff; 32],
        nonce: [0xff; 16],
        seq,
        chain: Digest([0xff; 32]),
        ended: false,
        signature: [[0xff; 32]; 2],
    }
}

fn message(rng: &mut Rng) -> Message {
    match rng.below(4) {
        0 => Message::Hello(Hello {
            boot: rng.next(),
            name: label(rng),
        }),
        1 => Message::Withdraw(folder(rng)),
        2 => Message::Ask(folder(rng)),
        _ => {
            let mut claims = Claims::default();
            for _ in 0..rng.below(20) {
                let claim = claim(rng.next().max(1));
                claims.take(ReplicaId(rng.next()), claim);
            }
            Message::Announce(Announce {
                folder: folder(rng),
                state: rng.percent(80).then(|| digest(rng)),
                claims,
                heard: rng.percent(50),
                root: digest(rng),
                pending_files: number(rng),
                pending_bytes: number(rng),
                settled: rng.percent(50),
            })
        }
    }
}

fn wanted(rng: &mut Rng) -> Wanted {
    match rng.below(2) {
        0 => Wanted::Node(digest(rng)),
        _ => Wanted::Below {
            parent: digest(rng),
            first: rng.below(2000) as u32,
            count: 1 + rng.below(100) as u32,
        },
    }
}

fn request(rng: &mut Rng) -> Request {
    let folder = folder(rng);
    let count = rng.below(30);
    match rng.below(6) {
        0 => Request::Nodes {
            folder,
            nodes: (0..count).map(|_| wanted(rng)).collect(),
        },
        1 => Request::Blobs {
            folder,
            digests: (0..count).map(|_| digest(rng)).collect(),
        },
        2 => Request::Have {
            folder,
            digests: (0..count).map(|_| digest(rng)).collect(),
        },
        3 => Request::Values {
            folder,
            digest: digest(rng),
            size: 1 << 30,
            most: 1 << rng.below(6),
            subtrees: Subtree::whole(1 << 30).below(1 << (6 + rng.below(10))),
        },
        4 => Request::Chunks {
            folder,
            digest: digest(rng),
            size: 1 << 30,
            start: rng.below(1 << 29) as u64,
            len: 1 + rng.below(1 << 29) as u64,
        },
        _ => Request::Ranges {
            folder,
            digest: digest(rng),
            size: 1 << 30,
            runs: (0..count as u64)
                .map(|i| (3 * i, 3 * i + 1 + rng.below(3) as u64))
                .collect(),
        },
    }
}

/// Whatever decodes is within its limits, and is itself when sent on.
fn messages_hold(bytes: &[u8]) {
    fn one<T: Bounded + serde::Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Ok(message) = message::decode::<T>(bytes) {
            assert_eq!(message.check(), Ok(()));
            assert_eq!(message::decode::<T>(&message::encode(&message)), Ok(message));
        }
    }
    one::<Message>(bytes);
    one::<Request>(bytes);
    one::<PairRequest>(bytes);
    one::<PairReply>(bytes);
}

#[test]
fn messages_over_a_limit_are_refused() {
    let folder = FolderId([1; 16]);
    let digests = |count| vec![Digest::of(b"x"); count];
    let is_over = |result: Result<(), MessageError>| matches!(result, Err(MessageError::Limit(_)));
    let request = |request: Request| message::decode::<Request>(&message::encode(&request)).map(drop);
    for (count, over) in [(MAX_NODES, false), (MAX_NODES + 1, true)] {
        let nodes = digests(count).into_iter().map(Wanted::Node).collect();
        assert_eq!(is_over(request(Request::Nodes { folder, nodes })), over);
        let (parent, first) = (Digest::of(b"x"), u32::MAX);
        let below = |count: usize| Wanted::Below {
            parent,
            first,
            count: count as u32,
        };
        let nodes = vec![below(1), below(count - 1)];
        assert_eq!(is_over(request(Request::Nodes { folder, nodes })), over);
        let nodes = vec![below(0)];
        assert_eq!(
            request(Request::Nodes { folder, nodes }),
            Err(MessageError::Malformed)
        );
    }
    for (count, over) in [(MAX_BLOBS, false), (MAX_BLOBS + 1, true)] {
        let digests = digests(count);
        assert_eq!(is_over(request(Request::Blobs { folder, digests })), over);
    }
    for (count, over) in [(MAX_HAVE, false), (MAX_HAVE + 1, true)] {
        let digests = digests(count);
        assert_eq!(is_over(request(Request::Have { folder, digests })), over);
    }
    for (count, over) in [(MAX_REPLICAS, false), (MAX_REPLICAS + 1, true)] {
        let mut claims = Claims::default();
        (0..count).for_each(|r| claims.take(ReplicaId(u64::MAX - r as u64), claim(u64::MAX)));
        let announce = Message::Announce(Announce {
            folder,
            state: None,
            claims,
            heard: true,
            root: Digest::of(b""),
            pending_files: 0,
            pending_bytes: 0,
            settled: true,
        });
        let bytes = message::encode(&announce);
        assert_eq!(is_over(message::decode::<Message>(&bytes).map(drop)), over);
    }
    for (len, over) in [(MAX_LABEL, false), (MAX_LABEL + 1, true)] {
        let name = "n".repeat(len);
        let pair = PairRequest {
            ticket: [0; 8],
            proof: [0; 32],
            name: name.clone(),
        };
        assert_eq!(
            is_over(message::decode::<PairRequest>(&message::encode(&pair)).map(drop)),
            over
        );
        let reply = PairReply::Welcome {
            name: "n".into(),
            folder,
            folder_name: name,
            read_only: false,
        };
        assert_eq!(
            is_over(message::decode::<PairReply>(&message::encode(&reply)).map(drop)),
            over
        );
    }
    messages_hold(&message::encode(&PairReply::Refused(Refusal::Expired)));
    assert!(is_over(
        message::decode::<Message>(&vec![0; MAX_FRAME + 1]).map(drop)
    ));
    // A length that lies: nothing of that size may be allocated, and nothing panics.
    let mut lie = vec![0];
    lie.extend([1; 16]);
    lie.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    assert_eq!(message::decode::<Request>(&lie), Err(MessageError::Malformed));
}

#[test]
fn lengths_in_nodes_are_bounded_before_anything_is_read() {
    let too_many = |level: u8, count: u64| {
        let mut bytes = vec![level];
        put_varint(&mut bytes, count);
        tree::decode::<StateEntry>(&bytes).map(drop)
    };
    for level in [0, 1, 8] {
        assert!(matches!(
            too_many(level, MAX_LEAF as u64 + 1),
            Err(DecodeError::Limit(_))
        ));
        assert!(matches!(too_many(level, u64::MAX), Err(DecodeError::Limit(_))));
    }
    assert!(matches!(too_many(9, 0), Err(DecodeError::Limit(_))));
}

/// What re-encodes to the same bytes may still say one thing in two orders.
#[test]
fn disorder_and_repetition_are_refused() {
    let entries = state_dir(1, 3);
    let mut rng = Rng::new(2);
    let mut records: Vec<Record> = (0..3).map(|_| record(&mut rng)).collect();
    records.sort_by_key(|r| r.dot);
    let leaf = |entries: &[StateEntry]| {
        let mut bytes = vec![0];
        put_varint(&mut bytes, entries.len() as u64);
        entries.iter().for_each(|e| e.encode(&mut bytes));
        tree::decode::<StateEntry>(&bytes).map(drop)
    };
    let with = |order: &[usize]| StateEntry {
        records: order.iter().map(|&i| records[i].clone()).collect(),
        ..entries[0].clone()
    };
    assert_eq!(leaf(&[with(&[0, 1, 2])]), Ok(()));
    for order in [&[1, 0][..], &[0, 2, 1], &[0, 0], &[0, 1, 1]] {
        assert!(leaf(&[with(order)]).is_err(), "{order:?}");
    }
    let entry = |i: usize| entries[i].clone();
    assert_eq!(leaf(&entries), Ok(()));
    assert!(leaf(&[entry(1), entry(0)]).is_err());
    assert!(leaf(&[entry(0), entry(0)]).is_err());
    let nothing = StateEntry {
        records: Vec::new(),
        child: None,
        ..entry(0)
    };
    assert!(leaf(&[nothing]).is_err());
}

/// The flag says that the mark is the write's own; spelling it out is a second form of the same record.
#[test]
fn an_own_exec_mark_that_is_spelled_out_and_seq_0_are_refused() {
    const EXEC_OWN: u8 = 1 << 6;
    let (dot, hlc) = (
        Dot {
            replica: ReplicaId(7),
            seq: 9,
        },
        Hlc(11),
    );
    let one = Record {
        dot,
        hlc,
        value: Value::File {
            digest: Digest::of(b"x"),
            size: 1,
        },
        exec: Some(ExecMark { hlc, dot, on: true }),
        mtime: 5,
        prev: None,
        relocated: false,
        imported: false,
    };
    let mut bytes = Vec::new();
    one.encode(&mut bytes);
    assert_eq!(Record::decode(&mut Reader(&bytes)), Ok(one));
    let mut spelled = bytes.clone();
    spelled[0] &= !EXEC_OWN;
    spelled.extend(7u64.to_le_bytes());
    let end = spelled.len();
    put_varint(&mut spelled, 9);
    put_varint(&mut spelled, 11);
    assert!(Record::decode(&mut Reader(&spelled)).is_err());
    spelled[end] = 10;
    assert!(Record::decode(&mut Reader(&spelled)).is_ok(), "another's mark");
    spelled[end] = 0;
    assert!(Record::decode(&mut Reader(&spelled)).is_err(), "seq 0");
    bytes[9] = 0;
    assert!(Record::decode(&mut Reader(&bytes)).is_err(), "seq 0");
}

#[test]
fn a_file_of_impossible_size_is_refused() {
    let mut rng = Rng::new(3);
    let mut over = record(&mut rng);
    for (size, fits) in [(MAX_FILE, true), (MAX_FILE + 1, false), (u64::MAX, false)] {
        let digest = Digest::of(b"x");
        over.value = Value::File { digest, size };
        over.exec = Some(ExecMark {
            hlc: over.hlc,
            dot: over.dot,
            on: false,
        });
        let mut bytes = Vec::new();
        over.encode(&mut bytes);
        assert_eq!(Record::decode(&mut Reader(&bytes)).is_ok(), fits, "{size}");
    }
}
