//! Hints: files of the state directory that tell what could be found out again. A version byte, then postcard. Losing one, or
//! one that makes no sense, costs time and never a byte: so none is made durable, and what fails is only logged.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the file says, if it is of this version.
pub(crate) fn load<T: DeserializeOwned + Default>(file: &Path, version: u8) -> T {
    let bytes = fs::read(file).unwrap_or_default();
    match bytes.split_first() {
        Some((first, rest)) if *first == version => postcard::from_bytes(rest).unwrap_or_default(),
        _ => T::default(),
    }
}

/// Writes it anew, in one piece.
pub(crate) fn save<T: Serialize>(file: &Path, version: u8, value: &T) {
    let write = || {
        let bytes = postcard::to_allocvec(value).map_err(io::Error::other)?;
        let new = file.with_extension("new");
        fs::write(&new, [&[version], bytes.as_slice()].concat())?;
        fs::rename(&new, file)
    };
    said(file, write());
}

/// There is nothing to tell any more.
pub(crate) fn remove(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => said(file, removed),
    }
}

fn said(file: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!("{}: {error}", file.display());
    }
}
