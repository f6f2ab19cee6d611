//! The page docs/benchmarks.md: each workload has a section between two marks, and only those that were run are
//! replaced. Whatever stands outside the marks is a person's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::machine::Machine;
use super::results::Section;
use super::{plot, table};

/// Its name.
pub(super) const NAME: &str = "benchmarks.md";
/// The directory of its plots, beside it.
const PLOTS: &str = "benchmarks";

/// Puts a section into the page in `dir`, and its plots beside it.
pub(super) fn write(dir: &Path, name: &str, section: &Section, machine: &Machine) -> Result<()> {
    let plots = dir.join(PLOTS);
    fs::create_dir_all(&plots)?;
    let mut text = format!("## {}\n\n{}\n\n", section.title, machine.line());
    text += &table::section(section);
    for (n, case) in section.cases.iter().enumerate() {
        let file = format!("{name}-{}.svg", n + 1);
        let path = plots.join(&file);
        match plot::case(case) {
            Some(svg) => {
                fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
                text += &format!("\n![{}]({PLOTS}/{file})\n", case.title);
            }
            None if path.exists() => fs::remove_file(&path)?,
            None => {}
        }
    }
    let page = dir.join(NAME);
    let old = match fs::read_to_string(&page) {
        Ok(old) => old,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "# Benchmarks\n".to_owned(),
        Err(e) => return Err(e).with_context(|| format!("read {}", page.display())),
    };
    fs::write(&page, replace(&old, name, &text)).with_context(|| format!("write {}", page.display()))
}

/// `page` with `text` as the section `name`; at the end if there was none.
fn replace(page: &str, name: &str, text: &str) -> String {
    let (begin, end) = (
        format!("<!-- bench {name} -->"),
        format!("<!-- /bench {name} -->"),
    );
    let whole = format!("{begin}\n{}\n{end}", text.trim_end());
    match (page.find(&begin), page.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{whole}{}", &page[..from], &page[to + end.len()..])
        }
        _ => format!("{}\n\n{whole}\n", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::replace;

    #[test]
    fn a_section_takes_the_place_of_the_old_one() {
        let page = replace("# Benchmarks\n\nBy hand.\n", "a", "## A\n\n1\n");
        assert_eq!(
            page,
            "# Benchmarks\n\nBy hand.\n\n<!-- bench a -->\n## A\n\n1\n<!-- /bench a -->\n"
        );
        let page = replace(&page, "b", "## B\n");
        let page = replace(&page, "a", "## A\n\n2\n");
        assert_eq!(
            page,
            "# Benchmarks\n\nBy hand.\n\n<!-- bench a -->\n## A\n\n2\n<!-- /bench a -->\n\n\
             <!-- bench b -->\n## B\n<!-- /bench b -->\n"
        );
    }
}
