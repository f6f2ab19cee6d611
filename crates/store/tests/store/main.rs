//! The store from outside: what is written is read, after a reopen too, and what must be refused is. Never looks
//! into its tables.

mod archive;
mod check;
mod compact;
mod crash;
mod fixture;
mod folders;
mod gc;
mod medium;
mod model;
mod opening;
mod packs;
mod rows;
mod workload;
