//! What users saved is durable before anybody is told of it: else a power cut could take it away again here, and
//! what is left (an empty file, an old one, none) would count as somebody's edit, and go to all the others. Never
//! changes the folder.

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;

use super::scanner::ScanInput;
use super::{Folder, Problem};
use crate::disk::CLONED_FROM;
use crate::failpoint::{may_fail, point};
use crate::scan::Finding;

/// The content, if it may have been cloned when it was hashed.
fn cloned(value: &Value) -> Option<&Digest> {
    match value {
        Value::File { digest, size } if *size > CLONED_FROM => Some(digest),
        Value::File { .. } | Value::Symlink { .. } | Value::Dir => None,
    }
}

impl Folder {
    /// Makes durable what was found. `false`: that failed; nothing of it may be recorded, and everything is looked at
    /// again later.
    pub(super) fn is_durable(&mut self, changed: &[Finding], touched: &[Finding]) -> bool {
        let written = |finding: &&Finding| {
            let before = finding.base.as_ref().and_then(|row| row.fingerprint);
            finding.seen.as_ref().map(|(_, print)| *print) != before
        };
        let all: Vec<&Finding> = changed.iter().chain(touched).filter(written).collect();
        let is_file =
            |f: &&&Finding| matches!(&f.seen, Some((seen, _)) if matches!(seen.value, Value::File { .. }));
        let files: Vec<&RelPath> = all.iter().filter(is_file).map(|f| &f.path).collect();
        let paths: Vec<&RelPath> = all.iter().map(|f| &f.path).collect();
        if paths.is_empty() {
            return true;
        }
        // What is recorded now will be the past, and what was there before is so: of an edit in place, nothing else has it.
        let before = all.iter().filter_map(|f| Some(&f.base.as_ref()?.mat.value));
        let now = all.iter().filter_map(|f| Some(&f.seen.as_ref()?.0.value));
        let clones: Vec<&Digest> = before.chain(now).filter_map(cloned).collect();
        let root = &self.place.root;
        let result = may_fail("commit.sync").and_then(|()| root.sync_paths(&files, &paths, &clones));
        point("commit.synced");
        let Err(error) = result else { return true };
        tracing::warn!(folder = %self.place.row.name, "making durable what was saved failed: {error}");
        self.scan_problems.insert(
            RelPath::root(),
            Problem {
                reason: format!("what was saved cannot be made durable: {error}"),
                hint:
                    "look at the disk (`dmesg`); it is tried again by itself, and nothing is sent until then"
                        .into(),
            },
        );
        self.dropped = true;
        let _ = self.rescan.send(ScanInput::Later);
        false
    }
}
