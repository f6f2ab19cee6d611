//! A file that is never quiet for long enough to be read: `status` names it, nobody waits, it comes when it is quiet.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::*;

#[test]
fn a_file_that_is_written_all_the_time_is_named_until_it_was_taken() {
    let (_lab, a, b) = paired(|dir| write(dir.join("other"), "0"));
    // Large, so that no look at it comes to its end between two writes; and written to from its first moment here.
    let outside = a.corner.join("machine.img");
    write(&outside, noise("image", 48 << 20));
    let mut image = fs::File::options().append(true).open(&outside).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                image.write_all(b"x").unwrap();
                std::thread::yield_now();
            }
        });
        fs::rename(&outside, a.path("machine.img")).unwrap();
        // Also where something below fails: or else the writer would never end.
        let _stop = StopWith(&stop);
        eventually("status names it", LONG, || {
            let problems = a.field("problems").to_string();
            problems.contains("machine.img") && problems.contains("being written all the time")
        });
        a.wait_in_sync();
        write(a.path("other"), "1");
        eventually("others arrive meanwhile", LONG, || text(b.path("other")) == "1");
        assert!(!b.path("machine.img").exists(), "nobody takes half of it");
    });
    assert_converged(&[&a, &b]);
    eventually("it is not named any more", LONG, || {
        a.field("problems") == serde_json::json!([])
    });
    assert!(b.path("machine.img").exists());
}

struct StopWith<'a>(&'a AtomicBool);

impl Drop for StopWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
