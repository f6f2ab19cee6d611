//! Which verb does what: one file a verb. Never does the work itself.

mod checkout;
mod completions;
mod conflicts;
mod devices;
mod diff;
mod engine;
mod forget;
mod gc;
mod hash;
mod hold;
mod log;
mod man;
mod pair;
mod past;
mod pause;
mod pin;
mod resolve;
mod restore;
mod revoke;
mod share;
mod status;
mod stop;
mod tickets;
mod unpair;
mod verify;
mod wait;
mod watch;

use crate::Exit;
use crate::args::{Asked, Verb};
use crate::context::Context;
use crate::render;

/// Does what was asked for.
pub(crate) fn run(asked: Asked) -> anyhow::Result<Exit> {
    let verb = match asked {
        Asked::Verb(verb) => verb,
        Asked::Engine => return Ok(engine::run()),
        Asked::Later(name) => {
            render::error(&format!(
                "`sync {name}` is not in this version yet (see `sync --help`)"
            ));
            return Ok(Exit::Failed);
        }
    };
    // These three ask nobody and need no state directory.
    match &verb {
        Verb::Hash(args) => return hash::run(args),
        Verb::Completions(args) => return completions::run(args),
        Verb::Man(args) => return man::run(args),
        _ => {}
    }
    let context = Context::new()?;
    match verb {
        Verb::Share(args) => share::run(&context, args),
        Verb::Pair(args) => pair::run(&context, args),
        Verb::Watch(args) => watch::run(&context, &args),
        Verb::Stop => stop::run(&context),
        Verb::Status(args) => status::run(&context, &args),
        Verb::Wait(args) => wait::run(&context, args),
        Verb::Devices(args) => devices::run(&context, &args),
        Verb::Unpair(args) => unpair::run(&context, args),
        Verb::Forget(args) => forget::run(&context, args),
        Verb::Log(args) => log::run(&context, args),
        Verb::Diff(args) => diff::run(&context, args),
        Verb::Restore(args) => restore::run(&context, args),
        Verb::Checkout(args) => checkout::run(&context, args),
        Verb::Pin(args) => pin::run(&context, args, true),
        Verb::Unpin(args) => pin::run(&context, args, false),
        Verb::Gc(args) => gc::run(&context, args),
        Verb::Verify(args) => verify::run(&context, args),
        Verb::Conflicts(args) => conflicts::run(&context, args),
        Verb::Resolve(args) => resolve::run(&context, &args),
        Verb::Accept(args) => hold::accept(&context, args),
        Verb::Reject(args) => hold::reject(&context, args),
        Verb::Pause(args) => pause::pause(&context, args),
        Verb::Resume(args) => pause::resume(&context, args),
        Verb::Tickets(args) => tickets::run(&context, &args),
        Verb::Revoke(args) => revoke::run(&context, args),
        Verb::Hash(_) | Verb::Completions(_) | Verb::Man(_) => unreachable!("done above"),
    }
}
