//! One name: what is there, against what the index says. Never walks.

use std::io;

use alike_core::observe::Seen;
use alike_core::path::{MAX_PATH, Name, RelPath};
use alike_core::record::Value;
use alike_store::IndexRow;

use super::{Finding, Found, Wrote};
use crate::clock::now_ns;
use crate::disk::{Content, Dir, Kind, Root, Stat};

/// Longest symlink target (bytes); Linux has no longer ones.
const MAX_TARGET: usize = MAX_PATH - 1;
/// How often a link that changes while it is read is tried.
const TRIES: usize = 2;

/// What is known of a file system: of the clock that its times come from, and of its exec bits.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// When the scan began (ns since 1970).
    pub(super) start: i64,
    /// How coarse times are (ns).
    pub(super) grain: i64,
    /// Is it this machine's clock?
    pub(super) is_ours: bool,
    /// Do files keep exec bits?
    pub(super) keeps_exec: bool,
    /// What is written through a memory map shows so long (ns) after the last change that did; `None`: perhaps never.
    pub(super) maps_show_after: Option<i64>,
}

/// How coarse the times of most file systems are: a tick of the kernel (ns).
const GRAIN: i64 = 10_000_000;
/// And of those that keep even seconds, or whose times come from elsewhere (ns).
const COARSE_GRAIN: i64 = 2_000_000_000;
/// Grain of a time that was kept without a fraction: an old ext3, a server, an archive. 2 s, as on FAT.
const WHOLE_SECONDS: i64 = 2_000_000_000;

impl Clock {
    /// As it is now.
    pub(super) fn new(root: &Root) -> Clock {
        let fine = root.keeps_fine_times();
        Clock {
            start: now_ns(),
            grain: if fine { GRAIN } else { COARSE_GRAIN },
            is_ours: fine,
            keeps_exec: root.keeps_exec(),
            maps_show_after: (root.maps_show_after()).map(|after| after.as_nanos() as i64),
        }
    }

    /// Could it change again without its fingerprint telling? So it is if a change now would get the times
    /// that it has already. (Times that are still to come would not be given now.)
    fn is_racy(&self, stat: &Stat) -> bool {
        let print = &stat.fingerprint;
        let coarse = print.ctime_ns % 1_000_000_000 == 0;
        let grain = if coarse {
            self.grain.max(WHOLE_SECONDS)
        } else {
            self.grain
        };
        let since = self.start.saturating_sub(grain);
        let until = |time: i64| !self.is_ours || time <= now_ns().saturating_add(grain);
        [print.mtime_ns, print.ctime_ns]
            .into_iter()
            .any(|time| time >= since && until(time))
    }

    /// Was it changed so lately that a program that has it mapped could go on writing to it, and nothing would tell?
    pub(super) fn may_hide_a_map(&self, stat: &Stat) -> bool {
        self.maps_show_after
            .is_some_and(|after| stat.fingerprint.ctime_ns >= self.start.saturating_sub(after))
    }
}

/// Does the index say all there is to say about a file or link?
pub(super) fn is_unchanged(stat: &Stat, base: Option<&IndexRow>) -> bool {
    base.is_some_and(|row| {
        let same_kind = match row.mat.value {
            Value::File { .. } => stat.kind == Kind::File,
            Value::Symlink { .. } => stat.kind == Kind::Symlink,
            Value::Dir => false,
        };
        same_kind && !row.racy && row.fingerprint == Some(stat.fingerprint)
    })
}

/// What a look at a file or link came to.
pub(super) enum Look {
    /// Something to say, or nothing new.
    Found(Option<Found>),
    /// It is not there any more.
    Gone(Option<IndexRow>),
    /// The run was cancelled.
    Stopped,
}

/// The finding of a file with this content. `held`: while it was read, its times told nothing.
pub(super) fn of_content(
    path: RelPath,
    content: io::Result<Content>,
    base: Option<IndexRow>,
    clock: Clock,
    held: bool,
) -> Look {
    match content {
        Ok(Content::Is { digest, stat }) => {
            let size = stat.fingerprint.size;
            let value = Value::File { digest, size };
            Look::Found(compare(path, value, &stat, base, clock, held))
        }
        Ok(Content::Changing) => Look::Found(Some(Found::Busy(path))),
        Ok(Content::Gone) => Look::Gone(base),
        Ok(Content::Stopped) => Look::Stopped,
        Err(e) => Look::Found(Some(unreadable(path, &e))),
    }
}

/// The finding of a file that the disk cannot read. Where nobody has written to it since it was hashed, its content is
/// not what has changed. It is read again at the next look: the disk may be well by then.
pub(super) fn of_unreadable(
    path: RelPath,
    e: &io::Error,
    stat: Option<Stat>,
    base: Option<IndexRow>,
    clock: Clock,
) -> Look {
    let known = base.clone().zip(stat);
    if let Some((row, stat)) = known
        && stat.kind == Kind::File
        && matches!(row.mat.value, Value::File { .. })
        && row
            .fingerprint
            .is_some_and(|before| before.is_same_edit(&stat.fingerprint))
        && let Some(mut found) = compare(path.clone(), row.mat.value, &stat, base, clock, true)
    {
        if let Found::Changed(finding) | Found::Touched(finding) = &mut found {
            finding.unreadable = true;
        }
        return Look::Found(Some(found));
    }
    Look::Found(Some(unreadable(path, e)))
}

/// The finding of a link.
pub(super) fn of_link(dir: &Dir, name: &Name, path: RelPath, base: Option<IndexRow>, clock: Clock) -> Look {
    for _ in 0..TRIES {
        let before = match dir.stat(name.as_bytes()) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Look::Gone(base),
            Err(e) => return Look::Found(Some(unreadable(path, &e))),
        };
        if before.kind != Kind::Symlink {
            break;
        }
        let target = match dir.read_link(name.as_bytes()) {
            Ok(target) => target,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => continue,
            Err(e) => return Look::Found(Some(unreadable(path, &e))),
        };
        if !matches!(dir.stat(name.as_bytes()), Ok(Some(after)) if after == before) {
            continue;
        }
        if target.len() > MAX_TARGET {
            return Look::Found(Some(Found::Problem {
                path,
                reason: "the symbolic link points to a path that is too long".to_owned(),
                hint: "make it point to a shorter one".to_owned(),
            }));
        }
        let value = Value::Symlink {
            target: target.into(),
        };
        return Look::Found(compare(path, value, &before, base, clock, false));
    }
    Look::Found(Some(Found::Busy(path)))
}

/// The finding of a directory, if the index does not know it as this one. Its times say nothing that its
/// members do not; another inode means that a whole other tree may have been moved here.
pub(super) fn of_dir(path: RelPath, stat: &Stat, base: Option<IndexRow>) -> Option<Found> {
    let same = base.as_ref().is_some_and(|row| row.mat.value == Value::Dir);
    let known = |row: &IndexRow| {
        row.fingerprint
            .is_none_or(|print| print.ino == stat.fingerprint.ino)
    };
    if same && base.as_ref().is_some_and(known) {
        return None;
    }
    let seen = Seen {
        value: Value::Dir,
        exec: false,
    };
    let finding = Finding {
        path,
        seen: Some((seen, stat.fingerprint)),
        racy: false,
        base,
        mtime: 0,
        wrote: Wrote::Unknown,
        unreadable: false,
    };
    Some(if same {
        Found::Touched(finding)
    } else {
        Found::Changed(finding)
    })
}

fn compare(
    path: RelPath,
    value: Value,
    stat: &Stat,
    base: Option<IndexRow>,
    clock: Clock,
    held: bool,
) -> Option<Found> {
    let exec = if clock.keeps_exec {
        stat.is_exec()
    } else {
        // What no file here can say is as it was.
        let was = |row: &IndexRow| matches!(value, Value::File { .. }) && row.mat.exec;
        base.as_ref().is_some_and(was)
    };
    let seen = Seen { value, exec };
    let racy = held || clock.is_racy(stat);
    let same = base
        .as_ref()
        .is_some_and(|row| row.mat.value == seen.value && row.mat.exec == seen.exec);
    if same
        && base
            .as_ref()
            .is_some_and(|row| row.fingerprint == Some(stat.fingerprint) && row.racy == racy)
    {
        return None;
    }
    let finding = Finding {
        path,
        seen: Some((seen, stat.fingerprint)),
        racy,
        base,
        mtime: stat.fingerprint.mtime_ns,
        wrote: Wrote::Unknown,
        unreadable: false,
    };
    Some(if same {
        Found::Touched(finding)
    } else {
        Found::Changed(finding)
    })
}

/// What there is to say about something that is no file, link or directory.
pub(super) fn special(path: RelPath, what: &str) -> Found {
    Found::Problem {
        path,
        reason: format!("it is a {what}"),
        hint: "only files, directories and symbolic links are kept equal; move it away or ignore it"
            .to_owned(),
    }
}

/// About a mount.
pub(super) fn elsewhere(path: RelPath) -> Found {
    Found::Problem {
        path,
        reason: "another file system is mounted there".to_owned(),
        hint: "share that directory as a folder of its own, or ignore it".to_owned(),
    }
}

/// About a path over the limits.
pub(super) fn too_long(path: RelPath) -> Found {
    Found::Problem {
        path,
        reason: "the path is too long or nested too deeply".to_owned(),
        hint: "at most 4,096 bytes and 256 levels can be kept equal; shorten it".to_owned(),
    }
}

/// About rules that nobody can read.
pub(super) fn unreadable_rules(path: RelPath, reason: &str) -> Found {
    Found::Problem {
        path,
        reason: format!("nothing in it is synced, because its .syncignore cannot be read: {reason}"),
        hint: "make it a file that you can read, or remove it".to_owned(),
    }
}

/// About rules of which some make no sense.
pub(super) fn bad_rules(path: RelPath, reason: &str) -> Found {
    Found::Problem {
        path,
        reason: format!("not all of these rules count: {reason}"),
        hint: "mend the pattern; the syntax is that of .gitignore".to_owned(),
    }
}

/// About a path that cannot be read.
pub(super) fn unreadable(path: RelPath, e: &io::Error) -> Found {
    let hint = match e.kind() {
        io::ErrorKind::PermissionDenied => "make it readable for you, or ignore it",
        _ => "check the disk",
    };
    Found::Problem {
        path,
        reason: format!("it cannot be read: {e}"),
        hint: hint.to_owned(),
    }
}
