//! What recovery finds at a path. Never changes anything.

use alike_core::observe::Seen;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::Fingerprint;

use crate::disk::Kind;
use crate::folder::Place;

/// What is at a path now, by content; an error for what cannot be read.
pub(super) fn look_at(place: &Place, path: &RelPath) -> std::io::Result<Option<(Seen, Fingerprint)>> {
    let Some(stat) = place.root.stat(path)? else {
        return Ok(None);
    };
    let (value, exec) = match stat.kind {
        Kind::Dir => (Value::Dir, false),
        Kind::Symlink => {
            let target = place.root.read_link(path)?.into();
            (Value::Symlink { target }, false)
        }
        Kind::File => {
            let file = place.root.open_file(path)?;
            let size = stat.fingerprint.size;
            let (digest, size) = crate::outboard::hash_with_outboard(&file, size, None)?;
            (Value::File { digest, size }, stat.is_exec())
        }
        Kind::Special(what) => return Err(std::io::Error::other(what)),
    };
    Ok(Some((Seen { value, exec }, stat.fingerprint)))
}

/// Where no file keeps an exec bit the disk does not tell: it is what it was to be, or what it was.
pub(super) fn exec_as_kept(
    place: &Place,
    (mut seen, print): (Seen, Fingerprint),
    before: Option<&Seen>,
    after: Option<&Seen>,
) -> (Seen, Fingerprint) {
    if !place.root.keeps_exec() {
        let meant = after.filter(|after| after.value == seen.value);
        seen.exec = meant.or(before).is_some_and(|other| other.exec);
    }
    (seen, print)
}
