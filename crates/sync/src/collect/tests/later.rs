//! What one collection may not take is taken by the next, however young: its generation is remembered until then.

use super::*;

/// A large content that only the first of two generations has, in the displaced versions.
const OLD: usize = 6;
const NEW: usize = 12;

fn two_generations() -> World {
    let mut world = World::new(1);
    for (id, before) in [(OLD, None), (NEW, Some(OLD))] {
        let commit = world.commit(0, &Tree::from([((0, 0), id)]), true, true);
        before.into_iter().for_each(|id| world.displace(0, id));
        world.store.commit(world.folders[0].key, commit).unwrap();
        world.landed();
    }
    world::let_the_clock_tick();
    world
}

/// Keeps the newest generation alone, and what no generation ever had. Is the old content still there?
fn collect_in(
    world: &World,
    is_open: bool,
    reached: &mut dyn FnMut(&'static str) -> Result<(), Error>,
) -> bool {
    let folder = &world.folders[0];
    let places = Vec::from_iter(is_open.then(|| folder.place.clone()));
    let mut work = Work {
        store: &world.store,
        places: &places,
        compacts: false,
        unnamed: u64::MAX,
        patience: Duration::ZERO,
        nodes: Sweep::default(),
        archive: Archiving::in_blocks_of(300, 4_000),
        reached,
    };
    let asked = Wanted::Asked {
        keep: Some(1),
        older_ms: None,
    };
    let _ = work.run(&[(folder.key, asked)], false);
    let left = world
        .store
        .snapshot()
        .unwrap()
        .generations(folder.key, 9)
        .unwrap();
    assert_eq!(left.len(), 1);
    world.object(0, OLD).is_some()
}

#[test]
fn displaced_once_more_meanwhile() {
    let world = two_generations();
    let again = |at: &'static str, world: &World| {
        let is_there = collect_in(world, true, &mut |point| {
            if point == at {
                world.displace(0, OLD);
            }
            Ok(())
        });
        world::let_the_clock_tick();
        is_there
    };
    assert!(again("gc.marked", &world));
    assert!(again("gc.objects", &world));
    assert!(!again("never", &world));
}

/// HEAD named it for a moment, after everything was marked, and the index does still.
#[test]
fn committed_while_packs_are_collected() {
    let mut world = World::new(1);
    let small = |id| Tree::from([((0, 0), id)]);
    let key = world.folders[0].key;
    for id in [1, 2] {
        world.store.pack(&digest(id), &content(id)).unwrap();
        let commit = world.commit(0, &small(id), true, true);
        world.store.commit(key, commit).unwrap();
        world.landed();
    }
    let again = world.commit(0, &small(1), false, true);
    let merged = world.commit(0, &small(2), false, false);
    let mut commits = vec![merged, again];
    collect_in(&world, true, &mut |point| {
        if point == "gc.marked" {
            world.store.pack(&digest(1), &content(1))?;
            while let Some(commit) = commits.pop() {
                world.store.commit(key, commit)?;
            }
        }
        Ok(())
    });
    for _ in 0..2 {
        assert_eq!(world.store.packed(&digest(1)).unwrap(), Some(content(1)));
        collect_in(&world, true, &mut |_| Ok(()));
    }
}

#[test]
fn in_a_folder_that_is_not_open() {
    let world = two_generations();
    assert!(collect_in(&world, false, &mut |_| Ok(())));
    assert!(!collect_in(&world, true, &mut |_| Ok(())));
}

#[test]
fn while_somebody_reads_the_generation() {
    let world = two_generations();
    let key = world.folders[0].key;
    let first = world.store.snapshot().unwrap().generation(key, 1).unwrap();
    let hold = world.store.hold(key, &first.unwrap()).unwrap();
    assert!(collect_in(&world, true, &mut |_| Ok(())));
    drop(hold);
    assert!(!collect_in(&world, true, &mut |_| Ok(())));
}

#[test]
fn when_the_first_is_cut_off() {
    for at in ["gc.dropped", "gc.marked", "gc.packs", "gc.objects"] {
        let world = two_generations();
        let mut cut_off = |point| if point == at { Err(busy()) } else { Ok(()) };
        assert!(collect_in(&world, true, &mut cut_off), "{at}");
        assert!(!collect_in(&world, true, &mut |_| Ok(())), "{at}");
    }
}

/// A content that two generations have, and that is packed, was displaced too: `spoil` may be in the way of its going.
fn is_copy_there(spoil: impl FnOnce(&World) -> Option<fs::File>) -> bool {
    const SMALL: usize = 1;
    let mut world = World::new(1);
    world.store.pack(&digest(SMALL), &content(SMALL)).unwrap();
    for id in [SMALL, NEW] {
        let commit = world.commit(0, &Tree::from([((0, 0), id)]), true, true);
        world.store.commit(world.folders[0].key, commit).unwrap();
        world.landed();
    }
    world.displace(0, SMALL);
    world::let_the_clock_tick();
    let held = spoil(&world);
    let folder = &world.folders[0];
    let policy = Wanted::Asked {
        keep: None,
        older_ms: Some(u64::MAX),
    };
    let work = |dry| {
        Work {
            store: &world.store,
            places: std::slice::from_ref(&folder.place),
            compacts: false,
            unnamed: u64::MAX,
            patience: Duration::ZERO,
            nodes: Sweep::default(),
            archive: Archiving::in_blocks_of(300, 4_000),
            reached: &mut |_| Ok(()),
        }
        .run(&[(folder.key, policy)], dry)
        .expect("it is collected")
    };
    let foreseen = work(true);
    let done = work(false);
    drop(held);
    let is_there = world.object(0, SMALL).is_some();
    if !is_there {
        assert_eq!(world.store.packed(&digest(SMALL)).unwrap(), Some(content(SMALL)));
        assert_eq!((foreseen.removed_objects, done.removed_objects), (1, 1));
        assert_eq!(foreseen.freed_bytes, done.freed_bytes);
    }
    is_there
}

#[test]
fn what_is_packed_is_not_kept_once_more() {
    let object = |world: &World| {
        let hex = digest(1).to_hex();
        let path = format!(".alike/objects/{}/{hex}", &hex[..2]);
        world.folders[0].place.root.path().join(path)
    };
    assert!(!is_copy_there(|_| None));
    // Somebody who had it open has saved since, or may yet.
    assert!(is_copy_there(|world| {
        fs::write(object(world), "a later save").unwrap();
        world::let_the_clock_tick();
        None
    }));
    assert!(is_copy_there(|world| {
        Some(fs::File::options().append(true).open(object(world)).unwrap())
    }));
    // What is packed is damaged.
    assert!(is_copy_there(|world| {
        let pack = world.dir.path().join("packs/00000000");
        let mut bytes = fs::read(&pack).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&pack, bytes).unwrap();
        None
    }));
}
