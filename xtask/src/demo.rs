//! `cargo xtask demo`: two devices on this machine, from the first ticket to a conflict, in under a minute.
//! Ends only the engines that it started, and removes everything that it made.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::device::{Device, until};
use crate::{cargo, target_dir};

/// Builds the command and runs the show.
pub(crate) fn run() -> Result<()> {
    say("Building the `sync` command (development profile: quicker to build, slower to run than a release).");
    let status = cargo(&["build", "--package", "alike-cli"]).status()?;
    ensure!(status.success(), "cargo build: {status}");
    let bin = target_dir()?.join("debug/sync");
    let place = tempfile::Builder::new().prefix("alike-demo-").tempdir()?;
    let result = show(&bin, place.path());
    place.close().context("remove what the demo made")?;
    if result.is_ok() {
        say("Everything went as it should. Both engines are stopped and all files of the demo are removed.");
    }
    result
}

fn show(bin: &Path, place: &Path) -> Result<()> {
    say(
        "Two devices, `laptop` and `desktop`, each with a state directory of its own; no relay, no discovery.",
    );
    let mut laptop = Device::start(bin, place, "laptop")?;
    let mut desktop = Device::start(bin, place, "desktop")?;
    let result = first_sync(&laptop, &desktop)
        .and_then(|()| live_edits(&laptop, &desktop))
        .and_then(|()| conflict(&laptop, &desktop))
        .and_then(|()| same_root(&laptop, &desktop));
    if result.is_err() {
        for device in [&laptop, &desktop] {
            eprintln!("--- engine of {} ---\n{}---", device.name, device.log());
        }
    }
    result.and(laptop.stop()).and(desktop.stop())
}

fn first_sync(laptop: &Device, desktop: &Device) -> Result<()> {
    laptop.write("notes.txt", "Buy milk.\n")?;
    laptop.write("src/main.rs", "fn main() {}\n")?;
    for n in 0..200 {
        laptop.write(
            &format!("photos/{:03}.jpg", n),
            &format!("picture {n}\n").repeat(500),
        )?;
    }
    say("The laptop has a folder with 202 files. It shares it, and the desktop pairs with the ticket:");
    let ticket = laptop.sync(["share".as_ref(), laptop.folder.as_os_str()])?;
    let ticket = ticket.trim();
    println!("    laptop$  sync share Documents\n    {ticket}");
    println!("    desktop$ sync pair <ticket> Documents");
    let start = Instant::now();
    desktop.sync(["pair".as_ref(), ticket.as_ref(), desktop.folder.as_os_str()])?;
    desktop.sync(["wait", "--timeout", "60s"])?;
    took("paired, and all files are there", start);
    ensure!(
        desktop.read("photos/199.jpg") == laptop.read("photos/199.jpg"),
        "the last photo is not the same"
    );
    ensure!(
        desktop.read("src/main.rs").is_some(),
        "src/main.rs did not arrive"
    );
    Ok(())
}

fn live_edits(laptop: &Device, desktop: &Device) -> Result<()> {
    say("Both sides watch from now on. Each edit is timed from the save to its arrival on the other disk:");
    arrives(laptop, desktop, "notes.txt", "Buy milk and bread.\n")?;
    arrives(
        desktop,
        laptop,
        "src/main.rs",
        "fn main() { println!(\"hello\"); }\n",
    )?;
    arrives(laptop, desktop, "new/directory/with/a file.txt", "All at once.\n")?;
    println!("    desktop: deletes photos/000.jpg");
    let start = Instant::now();
    fs::remove_file(desktop.folder.join("photos/000.jpg"))?;
    until("the deletion arrives on the laptop", || {
        Ok(laptop.read("photos/000.jpg").is_none())
    })?;
    took("gone on the laptop", start);
    Ok(())
}

fn conflict(laptop: &Device, desktop: &Device) -> Result<()> {
    say("Now a conflict: the desktop is paused, and both sides edit the same file.");
    desktop.sync(["pause"])?;
    println!("    desktop$ sync pause");
    let edits = ["Buy milk, bread and cheese.\n", "Buy nothing, we eat out.\n"];
    laptop.write("notes.txt", edits[0])?;
    desktop.write("notes.txt", edits[1])?;
    println!(
        "    laptop:  notes.txt = {:?}\n    desktop: notes.txt = {:?}",
        edits[0], edits[1]
    );
    desktop.sync(["resume"])?;
    println!("    desktop$ sync resume\n    desktop$ sync wait");
    let start = Instant::now();
    desktop.sync(["wait", "--timeout", "60s"])?;
    laptop.sync(["wait", "--timeout", "60s"])?;
    took("both sides agree", start);
    let mut contents = Vec::new();
    for name in names_with(&desktop.folder, "notes")? {
        let (here, there) = (desktop.read(&name), laptop.read(&name));
        ensure!(here == there, "{name} is not the same on both sides");
        println!("    on both: {name} = {:?}", here.clone().unwrap_or_default());
        contents.extend(here);
    }
    contents.sort();
    ensure!(contents == edits, "both edits are kept, but found: {contents:?}");
    println!("    Nothing is lost: the newer edit has the name, the other is a copy beside it.");
    Ok(())
}

fn same_root(laptop: &Device, desktop: &Device) -> Result<()> {
    say("A folder's content has one root. Equal root = equal folder:");
    let mut roots = Vec::new();
    for device in [laptop, desktop] {
        let root = device
            .sync(["hash".as_ref(), device.folder.as_os_str()])?
            .trim()
            .to_owned();
        println!(
            "    {:8} sync hash Documents\n    {root}",
            format!("{}$", device.name)
        );
        roots.push(root);
    }
    ensure!(
        roots[0] == roots[1] && roots[0].len() == 64,
        "the roots are not equal"
    );
    Ok(())
}

/// `from` saves a file, and it must appear on `to`.
fn arrives(from: &Device, to: &Device, file: &str, content: &str) -> Result<()> {
    println!("    {}: saves {file}", from.name);
    let start = Instant::now();
    from.write(file, content)?;
    until(&format!("{file} arrives on the {}", to.name), || {
        Ok(to.read(file).as_deref() == Some(content))
    })?;
    took(&format!("arrived on the {}", to.name), start);
    Ok(())
}

/// Names in `dir` that start with `prefix`, sorted.
fn names_with(dir: &Path, prefix: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(
            entry?
                .file_name()
                .into_string()
                .ok()
                .filter(|name| name.starts_with(prefix)),
        );
    }
    names.sort();
    Ok(names)
}

fn say(line: &str) {
    println!("\n==> {line}");
}

fn took(what: &str, start: Instant) {
    println!(
        "      {what} after {:.0} ms",
        start.elapsed().as_secs_f64() * 1000.0
    );
}
