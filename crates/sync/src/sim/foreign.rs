//! File systems that cannot hold all that others can: case does not count in names, or no file keeps an exec bit.
//! What they lack is nobody's deletion or edit. Never random.

use alike_core::path::RelPath;

use super::regressions::{Two, rel, two_of};

/// The second machine is another world.
fn folding() -> Two {
    two_of(|machines| machines[1].disk.get_mut().folds = true)
}

impl Two {
    fn rounds(&self) {
        for _ in 0..6 {
            self.round();
        }
    }

    fn files(&self, machine: usize) -> Vec<String> {
        let mut disk = self.machines[machine].disk.borrow_mut();
        let paths: Vec<RelPath> = disk.tree().into_keys().collect();
        let text = |path: &RelPath| {
            let node = disk.at(path).expect("listed");
            match disk.kind(node) {
                super::disk::Kind::File => String::from_utf8_lossy(&disk.bytes(node)).into_owned(),
                _ => String::new(),
            }
        };
        paths
            .iter()
            .map(|path| format!("{path}: {}", text(path)))
            .collect()
    }

    fn problems(&self, machine: usize) -> String {
        let process = self.process(machine).expect("it runs");
        let parked = &process.place.parked;
        let snapshot = process.place.store.snapshot().expect("it opens");
        let pending = snapshot.pending_total(process.place.key).expect("it is read");
        assert_eq!(pending.0, parked.total().0, "nobody waits for more");
        format!("{:?}", parked.problems(9))
    }
}

#[test]
fn of_two_names_that_clash_one_is_here_and_the_other_is_reported() {
    let sim = folding();
    sim.put(0, "README", "upper");
    sim.put(0, "readme", "lower");
    sim.put(0, "d/file", "in d");
    sim.put(0, "D/file", "in D");
    sim.look(0);
    sim.rounds();
    assert_eq!(sim.files(1), ["D: ", "D/file: in D", "README: upper"]);
    let said = sim.problems(1);
    assert!(
        said.contains("for that of \\\"README\\\"") && said.contains("for that of \\\"D\\\""),
        "{said}"
    );
    assert_eq!(sim.machines[0].tree().len(), 6, "never a deletion");

    // Others are unaffected, and so is the one that is here.
    sim.put(0, "other", "o");
    sim.put(0, "readme", "lower, edited");
    sim.put(1, "README", "upper, edited there");
    sim.look(1);
    sim.rounds();
    assert_eq!(
        sim.files(0),
        [
            "D: ",
            "D/file: in D",
            "README: upper, edited there",
            "d: ",
            "d/file: in d",
            "other: o",
            "readme: lower, edited"
        ]
    );
    assert_eq!(
        sim.files(1),
        ["D: ", "D/file: in D", "README: upper, edited there", "other: o"]
    );

    // Hints name what somebody asked for, not what is listed.
    for name in ["readme", "d/file", "d", "ReadMe"] {
        sim.process(1)
            .expect("it runs")
            .dirty
            .borrow_mut()
            .insert(rel(name));
    }
    while !sim.process(1).expect("it runs").dirty.borrow().is_empty() {
        sim.scan(1, false);
    }
    sim.rounds();
    assert_eq!(sim.machines[0].tree().len(), 7);
    assert_eq!(sim.machines[1].tree().len(), 4);

    // The clash ends, here and there.
    sim.catch_up(1);
    sim.remove(1, &rel("README"));
    sim.catch_up(0);
    sim.rename(0, &rel("D"), &rel("e"));
    sim.look(0);
    sim.look(1);
    sim.rest();
    assert_eq!(
        sim.files(1),
        [
            "d: ",
            "d/file: in d",
            "e: ",
            "e/file: in D",
            "other: o",
            "readme: lower, edited"
        ]
    );
    assert_eq!(sim.problems(1), "[]");
}

#[test]
fn a_clash_survives_a_restart() {
    let sim = folding();
    sim.put(0, "README", "upper");
    sim.put(0, "readme", "lower");
    sim.look(0);
    sim.rounds();
    sim.stop(1);
    sim.rounds();
    assert_eq!(sim.files(1), ["README: upper"]);
    assert!(sim.problems(1).contains("README"));
    assert_eq!(sim.machines[0].tree().len(), 2);
}

#[test]
fn a_rename_that_changes_only_the_case_goes_both_ways() {
    let sim = folding();
    sim.put(0, "a", "file");
    sim.put(0, "d/x/file", "deep");
    sim.look(0);
    sim.rest();
    for (machine, back) in [(0, false), (1, true), (1, false), (0, true)] {
        sim.catch_up(machine);
        for (lower, upper) in [("a", "A"), ("d", "D")] {
            let (from, to) = if back { (upper, lower) } else { (lower, upper) };
            sim.rename(machine, &rel(from), &rel(to));
        }
        sim.look(machine);
        sim.rest();
        let wanted = if back {
            ["a: file", "d: ", "d/x: ", "d/x/file: deep"]
        } else {
            ["A: file", "D: ", "D/x: ", "D/x/file: deep"]
        };
        assert_eq!(sim.files(0), wanted, "by {machine}");
        assert_eq!(sim.files(1), wanted, "by {machine}");
    }
}

/// Somebody renames on the side where case does not count while the other edits or removes the file.
#[test]
fn a_rename_of_case_while_the_other_side_writes_loses_nothing() {
    for edits in [true, false] {
        let sim = folding();
        sim.put(0, "a", "old");
        sim.put(0, "b", "other");
        sim.look(0);
        sim.rest();
        if edits {
            sim.put(0, "a", "edited");
        } else {
            sim.catch_up(0);
            sim.remove(0, &rel("a"));
        }
        sim.look(0);
        sim.merge();
        // HEAD has it, the disk does not know yet.
        sim.catch_up(1);
        sim.rename(1, &rel("a"), &rel("A"));
        sim.rounds();
        let files = sim.files(0).join(", ");
        assert!(files.contains("A: old"), "{files}");
        assert_eq!(files.contains("a: edited"), edits, "{files}");
        let here = sim.files(1).join(", ");
        assert!(here.contains("A: old"), "{here}");
    }
}

#[test]
fn an_exec_bit_that_no_file_here_keeps_is_kept_for_the_others() {
    let sim = two_of(|machines| machines[1].ways.exec = false);
    let is_exec = |machine: usize| {
        let disk = sim.machines[machine].disk.borrow();
        disk.at(&rel("tool")).is_some_and(|node| disk.is_exec(node))
    };
    let set = |exec: bool| {
        sim.catch_up(0);
        let now = sim.file_time(0);
        let mut disk = sim.machines[0].disk.borrow_mut();
        let node = disk.at(&rel("tool")).expect("it is there");
        disk.alter(node, now, |attr| attr.mode = if exec { 0o755 } else { 0o644 });
        drop(disk);
        sim.look(0);
        sim.rounds();
    };
    sim.put(0, "tool", "#!/bin/sh");
    sim.look(0);
    sim.rounds();
    set(true);
    assert!(is_exec(0) && !is_exec(1));
    assert_eq!(sim.problems(1), "[]");
    sim.put(1, "tool", "#!/bin/bash");
    sim.look(1);
    sim.rounds();
    assert_eq!(sim.files(0), ["tool: #!/bin/bash"]);
    assert!(is_exec(0), "an edit there clears nothing");
    sim.stop(1);
    sim.rounds();
    assert!(is_exec(0));
    set(false);
    sim.put(0, "tool", "#!/bin/zsh");
    sim.look(0);
    sim.rounds();
    assert_eq!(sim.files(1), ["tool: #!/bin/zsh"]);
    assert!(!is_exec(0));
}
