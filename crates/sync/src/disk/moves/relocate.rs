//! A file that goes from one path of the folder to another, with nothing copied: aside first, where it is looked at
//! again before it is anywhere else.

use alike_core::path::RelPath;
use alike_store::Fingerprint;

use super::as_expected;
use crate::disk::{Expected, MoveError, Root};
use crate::failpoint::point;

/// Why a file did not go from one path to another.
#[derive(Debug)]
pub(crate) enum NotRelocated {
    /// It could not be taken from where it is.
    Source(MoveError),
    /// It could not be put where it should be.
    Target {
        error: MoveError,
        /// Its old path was taken meanwhile, so that it could not go back; its bytes are kept.
        displaced: bool,
    },
}

impl Root {
    /// Puts the file that `expect` describes where nothing is.
    pub(crate) fn relocate(
        &self,
        from: &RelPath,
        expect: &Expected,
        to: &RelPath,
    ) -> Result<Fingerprint, NotRelocated> {
        let source = NotRelocated::Source;
        let place = self.place(from).map_err(source)?;
        let tmp = self.tmp_for(from).map_err(source)?;
        let before = as_expected(&place, expect).map_err(source)?;
        place.must_be_closed().map_err(source)?;
        point("move.relocate");
        self.meanwhile();
        let aside = self.take_aside(&tmp, &place, &before).map_err(source)?;
        self.meanwhile();
        let put = self.create(&aside, to).map_err(|error| NotRelocated::Target {
            displaced: self.put_back(&tmp, &aside, &place).is_err(),
            error,
        })?;
        point("move.relocated");
        Ok(put)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::super::tests::then;
    use super::*;
    use crate::disk::tests::{Folder, folder, rel};

    fn with_a_file() -> (Folder, Expected) {
        let f = folder();
        f.put("a", "it");
        fs::create_dir(f.at("d")).unwrap();
        let expect = f.expect("a");
        (f, expect)
    }

    #[test]
    fn the_file_itself_goes() {
        let (f, expect) = with_a_file();
        let inode = fs::metadata(f.at("a")).unwrap().ino();
        let print = f.root.relocate(&rel("a"), &expect, &rel("d/b")).unwrap();
        assert_eq!(print, f.print("d/b"));
        assert_eq!((f.get("d/b"), print.ino), (b"it".to_vec(), inode));
        assert!(!f.at("a").exists());
        assert!(f.object("it").is_none(), "nothing was displaced");
        assert_eq!(f.temps(), 0);
    }

    #[test]
    fn what_is_not_as_expected_stays() {
        let (f, expect) = with_a_file();
        let at = f.at("a");
        then(&f, move || fs::write(at, "an edit").unwrap());
        let error = f.root.relocate(&rel("a"), &expect, &rel("d/b"));
        assert!(matches!(error, Err(NotRelocated::Source(MoveError::Changed))));
        assert_eq!(f.get("a"), b"an edit");
        let error = f.root.relocate(&rel("a"), &expect, &rel("d/b"));
        assert!(matches!(error, Err(NotRelocated::Source(MoveError::Changed))));
        assert!(!f.at("d/b").exists());
        assert_eq!(f.temps(), 0);
    }

    #[test]
    fn a_target_that_is_taken_or_has_no_directory_sends_it_back() {
        let (f, expect) = with_a_file();
        f.put("d/b", "somebody's");
        for to in ["d/b", "none/b"] {
            let expect = Expected {
                fingerprint: Some(f.print("a")),
                ..expect.clone()
            };
            let error = f.root.relocate(&rel("a"), &expect, &rel(to));
            let Err(NotRelocated::Target { error, displaced }) = error else {
                panic!("{error:?}")
            };
            assert!(matches!(error, MoveError::Changed) && !displaced, "{error:?}");
            assert_eq!(f.get("a"), b"it");
        }
        assert_eq!(f.get("d/b"), b"somebody's");
        assert_eq!(f.temps(), 0);
    }

    #[test]
    fn a_file_that_can_go_neither_there_nor_back_is_kept() {
        let (f, expect) = with_a_file();
        let (a, b) = (f.at("a"), f.at("d/b"));
        then(&f, || ());
        then(&f, move || {
            fs::write(b, "somebody's").unwrap();
            fs::write(a, "somebody's too").unwrap();
        });
        let error = f.root.relocate(&rel("a"), &expect, &rel("d/b"));
        let Err(NotRelocated::Target { displaced, .. }) = error else {
            panic!("{error:?}")
        };
        assert!(displaced);
        assert_eq!(
            (f.get("a"), f.get("d/b")),
            (b"somebody's too".to_vec(), b"somebody's".to_vec())
        );
        assert_eq!(f.object("it").unwrap(), b"it");
        assert_eq!(f.temps(), 0);
    }
}
