//! Fail points: every one in the code of `alike-sync` is in the list, and every one in the list is in the code.
//! Compares texts only.

use std::collections::BTreeSet;

use super::Broken;

/// Where the list is, from the workspace's root.
pub(super) const LIST: &str = "crates/sync/src/failpoint.rs";
/// Whose code has points.
pub(super) const CODE: &str = "crates/sync/src/";

/// What stands before a name in the code.
const CALLS: [&str; 2] = ["point(\"", "may_fail(\""];

/// The names that a file's code uses.
pub(super) fn used(text: &str) -> BTreeSet<String> {
    CALLS
        .iter()
        .flat_map(|call| text.split(call).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

/// Compares the list's own file with the names used elsewhere.
pub(super) fn check(list: &str, used: &BTreeSet<String>) -> Vec<Broken> {
    let listed = listed(list);
    let missing = used.difference(&listed);
    let unused = listed.difference(used);
    missing
        .map(|name| format!("{LIST}: the point {name} is used, but not in the list"))
        .chain(unused.map(|name| format!("{LIST}: the point {name} is in the list, but nowhere used")))
        .collect()
}

/// The lines of the list that are a name.
fn listed(text: &str) -> BTreeSet<String> {
    let list = text.split("POINTS: &[&str] = &[").nth(1).unwrap_or_default();
    list.lines()
        .take_while(|line| line.trim() != "];")
        .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pub const POINTS: &[&str] = &[\n    // Why.\n    \"a.b\",\n    \"c\",\n];\n\"d\",\n";

    #[test]
    fn the_list_and_the_code_must_agree() {
        let code = used("point(\"a.b\"); x(); may_fail(\"c\")?;");
        assert_eq!(check(TEXT, &code), [""; 0]);
        let broken = check(TEXT, &used("point(\"a.b\"); point(\"d\");"));
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("the point d is used"));
        assert!(broken[1].contains("the point c is in the list"));
    }
}
