//! The hidden `sync engine`: being the engine in the background. Says on standard output that it is ready, or why
//! it is not, to the command that started it; everything else goes to standard error, which is its log.

use std::fs::OpenOptions;

use crate::context::Context;
use crate::foreground::{self, Hangup};
use crate::{Exit, background, render};

pub(crate) fn run() -> Exit {
    // Out of the terminal's session: neither its end nor its Ctrl-C is meant for us. Fails only where we lead a
    // group already (a service manager started us), and then there is nothing to leave.
    let _ = rustix::process::setsid();
    match serve() {
        Ok(()) => Exit::Done,
        Err(error) => {
            let why = render::escape_lines(&format!("{error:#}"));
            // The command that waits for us shows it; after the start nobody reads it any more.
            let _ = render::line(&why);
            render::error(&why);
            Exit::Failed
        }
    }
}

fn serve() -> anyhow::Result<()> {
    let context = Context::new()?;
    let config = context.config()?;
    foreground::log(&config, "info")?;
    background::make_home(&context.home)?;
    foreground::run(config, Hangup::Ignored, |_| {
        let _ = render::line(background::READY);
        // The command must not wait for a pipe that stays open as long as we live.
        if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(null);
        }
    })
}
