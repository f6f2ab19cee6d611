//! The books of the disk model: what was ever written, killed and displaced, over all devices. Never decides
//! what a device does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alike_core::ids::Dot;
use alike_core::path::RelPath;
use alike_core::record::{Record, Value};

/// All that ever happened, over all devices.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) made: BTreeMap<Dot, (RelPath, Record)>,
    pub(crate) killed: BTreeSet<Dot>,
    /// For each write of a home, the writes of it that its user had before.
    pub(crate) past: HashMap<Dot, BTreeSet<Dot>>,
    /// Contents ever written, and those that a user overwrote or deleted having them on disk.
    pub(crate) written: BTreeMap<Vec<u8>, String>,
    pub(crate) gone: BTreeSet<Vec<u8>>,
    pub(crate) contents: Vec<String>,
    /// Paths where a crash left in doubt which version a user overwrote.
    pub(crate) doubtful: BTreeSet<RelPath>,
}

impl Log {
    pub(crate) fn past_of(&self, dots: &[Dot]) -> BTreeSet<Dot> {
        dots.iter().flat_map(|d| self.past[d].iter().copied()).collect()
    }
}

/// Names content in the books: digests for files, targets for links.
pub(crate) fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    value.key().map(|key| key.0.to_vec())
}
