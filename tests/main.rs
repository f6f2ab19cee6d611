//! The one black-box test binary: real `sync` processes, real folders, a real (loopback) network.
//! Never names a crate of the project: it sees what a user and a script see, and nothing else.

// A failing test shows what its engines printed, a random one its seed.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod cases;
mod harness;
