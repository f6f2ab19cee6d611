//! `sync unpair DEVICE`: forgets a device. Never touches files.

use alike_sync::control::{self, Named, Request};

use crate::args::Unpair;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Unpair) -> anyhow::Result<Exit> {
    let done: Named = control::ask(&context.home, &Request::Unpair { device: args.device })?;
    render::line(&format!("unpaired: {}", render::text(&done.name)))?;
    Ok(Exit::Done)
}
