//! `sync devices`: the devices this one is paired with. Never changes any.

use std::time::SystemTime;

use alike_sync::control::{self, DeviceInfo, Request};

use crate::args::List;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: &List) -> anyhow::Result<Exit> {
    let devices: Vec<DeviceInfo> = control::ask(&context.home, &Request::Devices)?;
    if args.json {
        render::json(&devices)?;
    } else if devices.is_empty() {
        render::line("no devices yet: run `sync share DIR`, then `sync pair TICKET` on the other device")?;
    } else {
        render::out(render::table(&rows(&devices, SystemTime::now())))?;
    }
    Ok(Exit::Done)
}

fn rows(devices: &[DeviceInfo], now: SystemTime) -> Vec<Vec<String>> {
    let row = |device: &DeviceInfo| {
        let state = match (device.paused, device.connected, &device.last_seen) {
            (true, ..) => "paused".to_owned(),
            (false, true, _) => format!("connected, {}", render::text(&device.path)),
            (false, false, Some(seen)) => format!("not connected, seen {}", render::moment(seen, now)),
            (false, false, None) => "never connected".to_owned(),
        };
        let folders: Vec<String> = device.folders.iter().map(|name| render::text(name)).collect();
        vec![
            render::text(&device.name),
            render::short(&device.id),
            state,
            folders.join(", "),
        ]
    };
    devices.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_how_a_device_is_reached() {
        let mut device = DeviceInfo {
            id: "ab".repeat(32),
            name: "desk\x1btop".into(),
            connected: true,
            paused: false,
            path: "relay".into(),
            last_seen: None,
            folders: vec!["docs".into(), "src".into()],
        };
        let shown = |device: &DeviceInfo| rows(std::slice::from_ref(device), SystemTime::now())[0].join("|");
        assert_eq!(
            shown(&device),
            "desk\\x1btop|abababababab|connected, relay|docs, src"
        );
        device.connected = false;
        assert!(shown(&device).contains("|never connected|"));
        device.paused = true;
        assert!(shown(&device).contains("|paused|"));
    }
}
