//! Directories that stay open from one move of a batch to the next: most act in the directory of the one before. A
//! directory that somebody renames meanwhile takes what is put into it along, as if it had been renamed a moment later;
//! in one that is removed nothing can be put any more. Never decides what is there.

use std::sync::{Arc, MutexGuard};

use alike_core::path::RelPath;

use super::{Dir, Root};

/// What is open.
#[derive(Debug, Default)]
pub(super) struct Near {
    tmp: Option<Arc<Dir>>,
    dir: Option<(RelPath, Arc<Dir>)>,
}

/// As long as it lives, directories stay open.
#[derive(Debug)]
pub(crate) struct Nearby<'a>(&'a Root);

impl Drop for Nearby<'_> {
    fn drop(&mut self) {
        *self.0.open_near() = None;
    }
}

impl Root {
    /// To be held over moves that follow each other, by one thread at a time.
    pub(crate) fn nearby(&self) -> Nearby<'_> {
        *self.open_near() = Some(Near::default());
        Nearby(self)
    }

    /// Nobody opens anything while holding it.
    fn open_near(&self) -> MutexGuard<'_, Option<Near>> {
        self.near.lock().expect("not poisoned")
    }

    /// `.alike/tmp`, as it is open already or as `open` opens it.
    pub(super) fn near_tmp(
        &self,
        open: impl FnOnce() -> rustix::io::Result<Dir>,
    ) -> rustix::io::Result<Arc<Dir>> {
        if let Some(Near { tmp: Some(tmp), .. }) = &*self.open_near() {
            return Ok(tmp.clone());
        }
        let tmp = Arc::new(open()?);
        if let Some(near) = &mut *self.open_near() {
            near.tmp = Some(tmp.clone());
        }
        Ok(tmp)
    }

    /// The directory of a move.
    pub(super) fn near_dir(&self, path: &RelPath) -> rustix::io::Result<Arc<Dir>> {
        if let Some(Near {
            dir: Some((at, dir)), ..
        }) = &*self.open_near()
            && at == path
        {
            return Ok(dir.clone());
        }
        let dir = Arc::new(self.place_dir(path)?);
        if let Some(near) = &mut *self.open_near() {
            near.dir = Some((path.clone(), dir.clone()));
        }
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::disk::MoveError;
    use crate::disk::tests::{folder, rel};

    #[test]
    fn what_is_renamed_in_the_middle_of_a_batch_takes_along_what_comes() {
        let f = folder();
        fs::create_dir(f.at("d")).unwrap();
        let create = |name: &str| f.root.create(&f.temp(name), &rel(format!("d/{name}")));
        let near = f.root.nearby();
        create("a").unwrap();
        fs::rename(f.at("d"), f.at("e")).unwrap();
        create("b").unwrap();
        assert_eq!(f.get("e/b"), b"b");
        drop(near);
        assert!(matches!(create("c"), Err(MoveError::Changed)));
        fs::create_dir(f.at("d")).unwrap();
        create("c").unwrap();
        assert_eq!(f.get("d/c"), b"c");
    }

    #[test]
    fn nothing_is_put_into_a_directory_that_went() {
        let f = folder();
        fs::create_dir(f.at("d")).unwrap();
        let near = f.root.nearby();
        f.root.create(&f.temp("a"), &rel("d/a")).unwrap();
        fs::remove_dir_all(f.at("d")).unwrap();
        fs::create_dir(f.at("d")).unwrap();
        let temp = f.temp("b");
        let put = |temp: &[u8]| f.root.create(temp, &rel("d/b"));
        assert!(matches!(put(&temp), Err(MoveError::Changed)));
        drop(near);
        put(&temp).unwrap();
        assert_eq!(f.get("d/b"), b"b");
    }
}
