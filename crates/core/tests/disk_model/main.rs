//! Level 2 of the model: devices with HEAD, MAT and DISK, whose users edit, whose scans and applies are cut by
//! crashes, which pair late and disagree about the year. It drives `observe`, `plan`, `view`, `edit` and
//! `merge` as the engine does, and checks what users would miss: bytes, deletions, and quiet without reason.
//! Never touches a real disk.

mod check;
#[path = "../common/mod.rs"]
mod common;
mod device;
mod log;
mod user;
mod world;

use common::run_seeds;
use world::World;

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..world.rng.range(6, 60) {
        world.step();
    }
    world.settle();
    world.check();
}

#[test]
fn devices_converge_on_disk_lose_nothing_and_quarrel_only_with_reason() {
    run_seeds("disk model", 1500, history);
}
