//! The form of values: one version byte, then postcard, nothing after it. Never knows which table it is for.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Fault;

/// The version byte of all values so far.
const FORM: u8 = 1;

/// Writes `value` into `out`, replacing what was there.
pub(crate) fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    out.clear();
    out.push(FORM);
    *out = postcard::to_extend(value, std::mem::take(out)).expect("rows have no maps of unknown length");
}

/// `value` in its stored form.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// Reads a value of the table `table`.
pub(crate) fn decode<T: DeserializeOwned>(table: &str, bytes: &[u8]) -> Result<T, Fault> {
    let damaged = |why: &str| Fault::Corrupt(format!("a row of table {table}: {why}"));
    match bytes.split_first() {
        Some((&FORM, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged("bytes left over")),
            Err(e) => Err(damaged(&e.to_string())),
        },
        Some((form, _)) => Err(damaged(&format!("unknown form {form}"))),
        None => Err(damaged("empty")),
    }
}
