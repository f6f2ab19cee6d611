//! The pure core of alike: values and decisions. It never touches a file system, a network, a clock or a
//! random source; everything here is a function of its arguments, and so can be tested by the thousand.

pub mod claim;
pub mod codec;
pub mod conflict;
pub mod diff;
pub mod digest;
pub mod edit;
pub mod entry;
pub mod ids;
pub mod merge;
pub mod message;
pub mod observe;
pub mod path;
pub mod plan;
pub mod record;
pub mod retention;
mod rewrite;
pub mod session;
pub mod state;
pub mod subtree;
pub mod tree;
pub mod view;
