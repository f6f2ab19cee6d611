//! What all cases share: devices, trees of files, polling. Never asserts a rule of alike by itself.

mod device;
mod faults;
mod lab;
mod map;
mod mount;
mod past;
mod poll;
mod process;
mod tree;
mod verify;

pub(crate) use device::Device;
pub(crate) use faults::{Dice, Hold, fail_points, fail_points_of};
pub(crate) use lab::{Lab, assert_converged, fail_binary, pair, paired, paired_in_part, settle, sync_binary};
pub(crate) use map::Map;
pub(crate) use mount::{BTRFS, EXT4, Image, Make, Tmpfs, XFS};
pub(crate) use past::{assert_was, copy_of, generation, json};
pub(crate) use poll::{LONG, eventually, poll};
pub(crate) use tree::{
    ModeGuard, Node, append, assert_same_tree, bytes_below, conflict_name, inodes, mtimes, names,
    newest_move_below, noise, set_mode, set_mtime, snapshot, text, write,
};
pub(crate) use verify::{flip, found, object, problem, verify};
