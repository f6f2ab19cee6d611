//! `sync share DIR`: makes a ticket and shows it so that it is easily carried to the other device.

use std::time::SystemTime;

use alike_sync::control::{self, Request, Shared};

use crate::args::Share;
use crate::context::{Context, existing_dir};
use crate::render::Paint;
use crate::{Exit, background, qr, render};

/// Columns of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;

pub(crate) fn run(context: &Context, args: Share) -> anyhow::Result<Exit> {
    let dir = existing_dir(&args.dir)?;
    background::ensure(context)?;
    let request = Request::Share {
        dir,
        name: args.name,
        read_only: args.read_only,
        expires_secs: args.expires.as_secs(),
        uses: args.uses,
    };
    let shared: Shared = control::ask(&context.home, &request)?;
    if args.json {
        render::json(&shared)?;
    } else if render::stdout_is_terminal() {
        let width = render::terminal_width().unwrap_or(USUAL_WIDTH);
        render::out(for_person(
            &shared,
            args.read_only,
            width,
            SystemTime::now(),
            context.paint(),
        ))?;
    } else {
        render::line(&shared.ticket)?;
    }
    Ok(Exit::Done)
}

fn for_person(shared: &Shared, read_only: bool, width: usize, now: SystemTime, paint: Paint) -> String {
    let folder = &shared.folder;
    let access = if read_only { ", for reading only" } else { "" };
    let mut shown = format!(
        "sharing {} at {}{access}\n\non the other device, run:\n\n  {}\n\n",
        paint.bold(&render::text(&folder.name)),
        render::path(&folder.path),
        paint.bold(&format!("sync pair {}", shared.ticket)),
    );
    if let Some(code) = qr::code(&shared.ticket, width, paint) {
        shown.push_str(&code);
        shown.push('\n');
    }
    shown.push_str(&format!(
        "for {}; expires {} ({}); take it back with `sync revoke {}`\n",
        render::things(shared.uses.into(), "device", "devices"),
        render::moment(&shared.expires, now),
        render::text(&shared.expires),
        render::text(&shared.ticket_id),
    ));
    shown
}

#[cfg(test)]
mod tests {
    use alike_sync::control::Tracked;

    use super::*;

    #[test]
    fn a_person_gets_the_other_sides_command_and_a_code_that_fits() {
        let folder = Tracked {
            folder_id: "f".into(),
            name: "docs".into(),
            path: "/home/me/docs".into(),
        };
        let expires = "2026-01-02T00:00:00Z".to_owned();
        let shared = Shared {
            folder,
            ticket: "alikeabc".into(),
            ticket_id: "17".into(),
            expires,
            uses: 1,
        };
        let now = humantime::parse_rfc3339("2026-01-01T00:00:00Z").expect("valid");
        let shown = for_person(&shared, true, 80, now, Paint::new(false));
        assert!(
            shown.starts_with("sharing docs at /home/me/docs, for reading only\n"),
            "{shown}"
        );
        assert!(
            shown.contains("\n  sync pair alikeabc\n") && shown.contains('█'),
            "{shown}"
        );
        assert!(
            shown.contains("for 1 device; expires in 24 h") && shown.contains("sync revoke 17"),
            "{shown}"
        );
        assert!(!for_person(&shared, false, 20, now, Paint::new(false)).contains('█'));
    }
}
