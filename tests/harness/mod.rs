//! What all cases share: devices, trees of files, polling. Never asserts a rule of alike by itself.

mod device;
mod lab;
mod mount;
mod poll;
mod process;
mod tree;

pub(crate) use device::Device;
pub(crate) use lab::{Lab, assert_converged, pair, paired, settle};
pub(crate) use mount::Tmpfs;
pub(crate) use poll::{LONG, eventually};
pub(crate) use tree::{
    ModeGuard, Node, append, assert_same_tree, conflict_name, inodes, mtimes, names, noise, set_mode,
    set_mtime, snapshot, text, write,
};
