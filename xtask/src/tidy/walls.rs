//! Which crate may depend on which: the walls of `docs/architecture.md`, read from `cargo metadata`.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Broken;

/// What a package may name. `None` = anything that no other rule forbids.
struct Wall {
    package: &'static str,
    normal: Option<&'static [&'static str]>,
    dev: Option<&'static [&'static str]>,
    never: &'static [&'static str],
}

const OURS: &[&str] = &["alike-core", "alike-store", "alike-sync", "alike-cli"];

const WALLS: &[Wall] = &[
    Wall {
        package: "alike-core",
        normal: Some(&["blake3", "postcard", "serde", "thiserror"]),
        dev: Some(&["proptest"]),
        never: &[],
    },
    Wall {
        package: "alike-store",
        normal: Some(&[
            "alike-core",
            "lz4_flex",
            "redb",
            "postcard",
            "rustix",
            "serde",
            "thiserror",
        ]),
        dev: Some(&["proptest", "tempfile"]),
        never: &[],
    },
    Wall {
        package: "alike-sync",
        normal: None,
        dev: None,
        never: &["alike-cli"],
    },
    Wall {
        package: "alike-cli",
        normal: None,
        dev: None,
        never: &["alike-core", "alike-store"],
    },
    Wall {
        package: "alike-benches",
        normal: None,
        dev: Some(&[]),
        never: &["alike-cli"],
    },
    Wall {
        package: "xtask",
        normal: None,
        dev: None,
        never: OURS,
    },
    Wall {
        package: "alike-tests",
        normal: None,
        dev: None,
        never: OURS,
    },
];

/// Names that only `alike-sync` may use, and what is measured beside it: whatever starts with `iroh`, the watcher and
/// the async runtime.
fn is_io(name: &str) -> bool {
    name.starts_with("iroh") || name == "notify" || name == "tokio"
}

/// Every dependency that goes through a wall.
pub(super) fn check(metadata: &Value) -> Result<Vec<Broken>> {
    let mut broken = Vec::new();
    for package in metadata["packages"]
        .as_array()
        .context("`cargo metadata` lists no packages")?
    {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some(wall) = WALLS.iter().find(|wall| wall.package == name) else {
            broken.push(format!(
                "{name}: has no wall yet, add it to xtask/src/tidy/walls.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"]
            .as_array()
            .context("a package without dependencies")?
        {
            let on = dependency["name"]
                .as_str()
                .context("a dependency without a name")?;
            let is_dev = dependency["kind"] == "dev";
            let allowed = if is_dev { wall.dev } else { wall.normal };
            let io_allowed =
                ["alike-sync", "alike-benches"].contains(&name) || (name == "alike-cli" && on == "tokio");
            if allowed.is_some_and(|list| !list.contains(&on))
                || wall.never.contains(&on)
                || (is_io(on) && !io_allowed)
            {
                let kind = if is_dev { "dev-depend" } else { "depend" };
                broken.push(format!("{name}: must not {kind} on {on}"));
            }
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(package: &str, dependency: &str, kind: Option<&str>) -> Vec<Broken> {
        let metadata = json!({"packages": [
            {"name": package, "dependencies": [{"name": dependency, "kind": kind}]}
        ]});
        check(&metadata).expect("well formed")
    }

    #[test]
    fn what_is_allowed_passes() {
        assert_eq!(one("alike-core", "blake3", None), [""; 0]);
        assert_eq!(one("alike-core", "proptest", Some("dev")), [""; 0]);
        assert_eq!(one("alike-store", "alike-core", None), [""; 0]);
        assert_eq!(one("alike-sync", "iroh-tickets", None), [""; 0]);
        assert_eq!(one("alike-cli", "tokio", None), [""; 0]);
        assert_eq!(one("alike-tests", "rustix", Some("dev")), [""; 0]);
    }

    #[test]
    fn what_goes_through_a_wall_is_named() {
        assert_eq!(
            one("alike-core", "tokio", None),
            ["alike-core: must not depend on tokio"]
        );
        assert_eq!(
            one("alike-core", "proptest", None),
            ["alike-core: must not depend on proptest"]
        );
        assert_eq!(
            one("alike-core", "cc", Some("build")),
            ["alike-core: must not depend on cc"]
        );
        assert_eq!(
            one("alike-store", "iroh", None),
            ["alike-store: must not depend on iroh"]
        );
        assert_eq!(
            one("alike-store", "tokio", Some("dev")),
            ["alike-store: must not dev-depend on tokio"]
        );
        assert_eq!(
            one("alike-sync", "alike-cli", None),
            ["alike-sync: must not depend on alike-cli"]
        );
        assert_eq!(
            one("alike-cli", "alike-store", None),
            ["alike-cli: must not depend on alike-store"]
        );
        assert_eq!(
            one("alike-cli", "iroh", None),
            ["alike-cli: must not depend on iroh"]
        );
        assert_eq!(
            one("xtask", "alike-sync", None),
            ["xtask: must not depend on alike-sync"]
        );
        assert_eq!(
            one("alike-tests", "alike-core", Some("dev")),
            ["alike-tests: must not dev-depend on alike-core"]
        );
    }

    #[test]
    fn a_new_package_needs_a_wall() {
        assert_eq!(one("alike-web", "serde", None).len(), 1);
    }
}
