//! The things that a user of the soak does, one function each. Never decides which and when.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{HOT, MAX_DELETED, User, count};

impl User {
    pub(super) fn make_file(&mut self) -> io::Result<()> {
        let (path, id, size, pieces) = (
            self.a_place(),
            self.hands.ledger.new_id(),
            self.a_size(),
            self.random.between(1, 3),
        );
        if self.random.percent(3) {
            return self.hands.create_empty(&path);
        }
        self.hands.create(&path, id, size, pieces, "new file")
    }

    /// The same content at the same place, on whatever device.
    pub(super) fn make_twin(&mut self) -> io::Result<()> {
        let round = self.hands.ledger.books().rounds;
        let n = self.random.below(3) as u64;
        let path = self.hands.root.join(format!("hot/twin {round} {n}"));
        let id = 0xf0_0000_0000 + round * 10 + n;
        self.hands.create(&path, id, 300, 1, "new twin")
    }

    pub(super) fn make_big(&mut self) -> io::Result<()> {
        if !self.random.percent(40) {
            return Ok(());
        }
        let size = match self.random.below(8) {
            0 => self.random.between(8 << 20, 20 << 20),
            _ => self.random.between(1 << 20, 3 << 20),
        };
        // Few of them: the disk is not what is tested here.
        let path = self.hands.root.join(format!("work/big{}", self.random.below(4)));
        let (id, pieces) = (self.hands.ledger.new_id(), self.random.between(1, 6));
        if path.exists() {
            let temp = path.with_extension("part");
            let exchange = self.random.percent(50);
            return self.hands.save_over(&path, &temp, id, size, exchange);
        }
        self.hands.create(&path, id, size, pieces, "new big file")
    }

    pub(super) fn make_dir(&mut self) -> io::Result<()> {
        let path = self.a_place();
        self.hands.mkdir(&path, "new directory")?;
        let mut at = path;
        for _ in 0..self.random.below(4) {
            at = at.join(std::ffi::OsString::from_vec(self.a_name()));
            if self.random.percent(50) {
                self.hands.mkdir(&at, "deeper")?;
            } else {
                let (id, size) = (self.hands.ledger.new_id(), self.a_size());
                return self.hands.create(&at, id, size, 1, "new file in it");
            }
        }
        Ok(())
    }

    pub(super) fn make_link(&mut self) -> io::Result<()> {
        let path = self.a_place();
        self.link_at(&path, "new link")
    }

    fn link_at(&mut self, path: &Path, why: &str) -> io::Result<()> {
        let id = self.hands.ledger.new_id();
        let to = match self.random.below(3) {
            0 => Some(PathBuf::from(
                self.random.pick(&[".", "..", "../hot", "doc1.txt", "n3"]),
            )),
            _ => None,
        };
        self.hands.link(path, to.as_deref(), id, why)
    }

    pub(super) fn overwrite(&mut self) -> io::Result<()> {
        let path = self.an_editable()?;
        let (id, size, pieces, gap) = (
            self.hands.ledger.new_id(),
            self.a_size(),
            self.random.between(1, 3),
            self.a_gap(),
        );
        self.hands.overwrite(&path, id, size, pieces, gap)
    }

    pub(super) fn append(&mut self) -> io::Result<()> {
        let path = match self.random.below(10) {
            0 => self.a_file()?,
            _ => self.an_editable()?,
        };
        for _ in 0..self.random.between(1, 3) {
            let (id, gap) = (self.hands.ledger.new_id(), self.a_gap());
            self.hands.append(&path, id, gap)?;
        }
        Ok(())
    }

    pub(super) fn edit(&mut self) -> io::Result<()> {
        let path = self.an_editable()?;
        let (id, at, gap) = (
            self.hands.ledger.new_id(),
            self.random.below(1 << 20),
            self.a_gap(),
        );
        self.hands.edit(&path, id, at, gap)
    }

    pub(super) fn truncate(&mut self) -> io::Result<()> {
        let (path, to) = (self.an_editable()?, self.random.below(1 << 20));
        self.hands.truncate(&path, to)
    }

    pub(super) fn save_by_rename(&mut self) -> io::Result<()> {
        let path = self.a_file()?;
        self.serial += 1;
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let temp = match self.random.below(3) {
            0 if name.len() < 240 => {
                path.with_file_name(std::ffi::OsString::from_vec([&name[..], b"~"].concat()))
            }
            1 => path.with_file_name("4913"),
            _ => path.with_file_name(format!(".tmp-{}-{}", self.hands.device, self.serial)),
        };
        let (id, size, exchange) = (self.hands.ledger.new_id(), self.a_size(), self.random.percent(50));
        self.hands.save_over(&path, &temp, id, size, exchange)
    }

    /// Renames the old version away, writes the new one, deletes the old one.
    pub(super) fn save_with_backup(&mut self) -> io::Result<()> {
        let path = self.an_editable()?;
        self.serial += 1;
        let backup = path.with_file_name(format!(".bak-{}-{}", self.hands.device, self.serial));
        self.hands.rename(&path, &backup, "backup")?;
        let (id, size) = (self.hands.ledger.new_id(), self.a_size());
        self.hands.create(&path, id, size, 1, "new version")?;
        self.hands.unlink(&backup, "backup goes")
    }

    pub(super) fn delete_file(&mut self) -> io::Result<()> {
        let path = self.pick(|meta| !meta.is_dir())?;
        if self.random.percent(30) {
            self.hands.unlink(&path, "unlink")
        } else {
            self.hands.discard(&path, "delete")
        }
    }

    pub(super) fn delete_dir(&mut self) -> io::Result<()> {
        let path = self.a_dir()?;
        if count(&path, MAX_DELETED + 1) > MAX_DELETED {
            return Ok(());
        }
        if self.random.percent(40) {
            self.hands.remove_tree(&path)
        } else {
            self.hands.discard(&path, "delete the directory")
        }
    }

    pub(super) fn rename_file(&mut self) -> io::Result<()> {
        let (from, to) = (self.pick(|meta| !meta.is_dir())?, self.a_place());
        self.hands.rename(&from, &to, "rename")
    }

    pub(super) fn rename_over(&mut self) -> io::Result<()> {
        let (from, to) = (self.a_file()?, self.pick(|meta| !meta.is_dir())?);
        let exchange = self.random.percent(50);
        if from == to {
            return Ok(());
        }
        self.hands.move_over(&from, &to, exchange)
    }

    pub(super) fn rename_dir(&mut self) -> io::Result<()> {
        let from = self.a_dir()?;
        let to = match self.random.below(3) {
            0 => self.pick(fs::Metadata::is_dir)?,
            _ => self.a_place(),
        };
        self.hands.rename(&from, &to, "rename the directory")
    }

    pub(super) fn swap_type(&mut self) -> io::Result<()> {
        let path = match self.random.below(2) {
            0 => self.hands.root.join(self.random.pick(HOT)),
            _ => self.pick(|_| true)?,
        };
        let Ok(meta) = fs::symlink_metadata(&path) else {
            let (id, size) = (self.hands.ledger.new_id(), self.a_size());
            return self.hands.create(&path, id, size, 1, "new in a hot place");
        };
        if meta.is_dir() && count(&path, MAX_DELETED + 1) > MAX_DELETED {
            return Ok(());
        }
        self.hands.discard(&path, "to become something else")?;
        match self.random.below(3) {
            0 => {
                self.hands.mkdir(&path, "becomes a directory")?;
                for n in 0..self.random.below(3) {
                    let (id, size) = (self.hands.ledger.new_id(), self.a_size());
                    let member = path.join(["one", "two.txt"][n]);
                    self.hands.create(&member, id, size, 1, "in it")?;
                }
                Ok(())
            }
            1 => self.link_at(&path, "becomes a link"),
            _ => {
                let (id, size) = (self.hands.ledger.new_id(), self.a_size());
                self.hands.create(&path, id, size, 1, "becomes a file")
            }
        }
    }

    pub(super) fn retarget(&mut self) -> io::Result<()> {
        let path = self.pick(fs::Metadata::is_symlink)?;
        if self.random.percent(50) {
            self.hands.unlink(&path, "to be linked anew")?;
            return self.link_at(&path, "linked anew");
        }
        self.serial += 1;
        let temp = path.with_file_name(format!(".ln-{}-{}", self.hands.device, self.serial));
        self.link_at(&temp, "new link beside")?;
        let exchange = self.random.percent(50);
        self.hands.move_over(&temp, &path, exchange)
    }

    pub(super) fn chmod(&mut self) -> io::Result<()> {
        let path = self.a_file()?;
        self.hands.flip_exec(&path)
    }

    /// A new file with an old time, as tar and cp -p make.
    pub(super) fn old_file(&mut self) -> io::Result<()> {
        let path = self.a_place();
        let (id, size) = (self.hands.ledger.new_id(), self.a_size());
        self.hands.create(&path, id, size, 1, "new old file")?;
        let ago = Duration::from_secs(self.random.between(1, 400 * 86_400) as u64);
        self.hands.set_time(&path, ago)
    }

    pub(super) fn touch(&mut self) -> io::Result<()> {
        let (path, ago) = (self.a_file()?, self.random.between(0, 5000));
        self.hands.set_time(&path, Duration::from_secs(ago as u64))
    }

    /// As a program does that writes out a whole directory.
    pub(super) fn many_at_once(&mut self) -> io::Result<()> {
        let dir = self
            .hands
            .root
            .join("work")
            .join(format!("out{}", self.random.below(3)));
        if !dir.is_dir() {
            self.hands.mkdir(&dir, "of many at once")?;
        }
        for n in 0..self.random.between(5, 25) {
            let path = dir.join(format!("obj{n}.o"));
            let (id, size) = (self.hands.ledger.new_id(), self.a_size());
            let _ = match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_file() => self.hands.overwrite(&path, id, size, 1, Duration::ZERO),
                Ok(_) => Ok(()),
                Err(_) => self.hands.create(&path, id, size, 1, "one of many"),
            };
        }
        Ok(())
    }
}
