//! The cases, one file a subject; each test is named for what it shows. Holds no helpers: those are in `harness`.

mod bad_dirs;
mod bad_tickets;
mod conflicts;
mod contract;
mod control;
mod coreutils;
mod crashes;
mod crashes_pairing;
mod edited_meanwhile;
mod edits;
mod engine;
mod first_sync;
mod full;
mod held;
mod pairing;
mod readers;
mod resolve;
mod restarts;
mod safety;
mod table;
mod three;
mod types;
mod usage;
mod waiting;
mod watching;
