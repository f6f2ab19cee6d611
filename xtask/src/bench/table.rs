//! Sections as Markdown.

use std::fmt::Write;

use super::results::{ALIKE, Aim, Case, Column, Row, Section, Unit};

/// Fewer runs than this need no range beside the median.
const RANGE_FROM: usize = 2;

/// Without the heading and without plots.
pub(super) fn section(section: &Section) -> String {
    let mut text = format!("{}\n", section.about);
    for case in &section.cases {
        text += "\n";
        text += &self::case(case);
    }
    if !section.aims.is_empty() {
        text += "\n| alike must | at most | measured | |\n| --- | --- | --- | --- |\n";
        for aim in &section.aims {
            text += &self::aim(aim);
        }
    }
    text
}

/// One table.
pub(super) fn case(case: &Case) -> String {
    let mut columns: Vec<Column> = case.rows.iter().flat_map(Row::columns).collect();
    columns.sort();
    columns.dedup();
    // Only times are compared: of the rest there may be none.
    let is_time = columns.first().is_some_and(|c| unit(*c) == Unit::Seconds);
    let compared = case.rows.len() > 1 && case.row(ALIKE).is_some() && is_time;
    let mut text = format!("**{}**\n\n|", case.title);
    let mut rule = String::from("| --- |");
    for (n, column) in columns.iter().enumerate() {
        let _ = write!(text, " | {}", title(*column));
        rule += " --- |";
        if n == 0 && compared {
            text += " | alike / it";
            rule += " --- |";
        }
    }
    let _ = writeln!(text, " |\n{rule}");
    let runs = case.rows.iter().map(|row| row.runs.len()).max();
    for row in &case.rows {
        let _ = write!(text, "| {}", row.peer);
        let fewer = row.failed.is_none() && row.stopped().is_none() && Some(row.runs.len()) < runs;
        match row.runs.len() {
            1 if fewer => text += " (one run)",
            n if fewer => {
                let _ = write!(text, " ({n} runs)");
            }
            _ => {}
        }
        if let Some(why) = &row.failed {
            let _ = write!(text, " (failed: {})", why.replace(['|', '\n'], " "));
        }
        for (n, column) in columns.iter().enumerate() {
            let _ = write!(text, " | {}", cell(row, *column, n == 0));
            if n == 0 && compared {
                let _ = write!(text, " | {}", ratio(case, row));
            }
        }
        text += " |\n";
    }
    text
}

fn cell(row: &Row, column: Column, first: bool) -> String {
    let Some(median) = row.median(column) else {
        return String::new();
    };
    let values = row.values(column);
    let mut text = value(median, unit(column));
    if first {
        if let (true, Some(low), Some(high)) = (values.len() >= RANGE_FROM, values.first(), values.last()) {
            let _ = write!(
                text,
                " ({}–{})",
                value(*low, unit(column)),
                value(*high, unit(column))
            );
        }
        if let Some(why) = row.stopped() {
            let _ = write!(text, ", {why}");
        }
    }
    text
}

fn ratio(case: &Case, row: &Row) -> String {
    if row.peer == ALIKE {
        return String::new();
    }
    let bound = if row.stopped().is_some() { "< " } else { "" };
    case.ratio(&row.peer).map_or(String::new(), |ratio| {
        format!("{bound}{}", value(ratio, Unit::Times))
    })
}

fn aim(aim: &Aim) -> String {
    let verdict = match aim.got {
        Some(got) if got <= aim.at_most => "met",
        Some(_) => "**missed**",
        None => "not measured",
    };
    let got = aim.got.map_or(String::new(), |got| value(got, aim.unit));
    format!(
        "| {} | {} | {got} | {verdict} |\n",
        aim.what,
        value(aim.at_most, aim.unit)
    )
}

/// A figure with its unit, in three digits.
pub(super) fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value <= 0.0 => "0 s".to_owned(),
        Unit::Seconds if value < 1e-6 => format!("{} ns", digits(value * 1e9)),
        Unit::Seconds if value < 1e-3 => format!("{} µs", digits(value * 1e6)),
        Unit::Seconds if value < 1.0 => format!("{} ms", digits(value * 1e3)),
        Unit::Seconds => format!("{} s", digits(value)),
        Unit::Bytes if value < 1024.0 => format!("{value:.0} B"),
        Unit::Bytes if value < 1_048_576.0 => format!("{} KiB", digits(value / 1024.0)),
        Unit::Bytes => format!("{} MiB", digits(value / 1_048_576.0)),
        Unit::Times => digits(value),
        Unit::Number => format!("{value:.0}"),
    }
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

/// What a figure is, for a table's head.
pub(super) fn title(column: Column) -> &'static str {
    match column {
        Column::Seconds => "time",
        Column::Median => "median",
        Column::P99 => "99 %",
        Column::Worst => "longest",
        Column::Count => "of",
        Column::Wire => "on the wire",
        Column::Database => "database grew",
        Column::CpuFrom => "CPU from",
        Column::CpuTo => "CPU to",
        Column::PeakFrom => "peak memory from",
        Column::PeakTo => "peak memory to",
        Column::RestFrom => "memory from",
        Column::RestTo => "memory to",
    }
}

pub(super) fn unit(column: Column) -> Unit {
    match column {
        Column::Seconds | Column::Median | Column::P99 | Column::Worst | Column::CpuFrom | Column::CpuTo => {
            Unit::Seconds
        }
        Column::Count => Unit::Number,
        Column::Wire
        | Column::Database
        | Column::PeakFrom
        | Column::PeakTo
        | Column::RestFrom
        | Column::RestTo => Unit::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Figures;

    #[test]
    fn a_table_names_what_was_stopped_what_failed_and_what_was_run_less_often() {
        let mut case = Case::new("work");
        case.add(
            ALIKE,
            1,
            Figures::only(&[(Column::Seconds, 1.0), (Column::Wire, 2048.0)]),
        );
        let mut slow = Figures::only(&[(Column::Seconds, 300.0)]);
        slow.stopped = Some("stopped at 96 %".to_owned());
        case.add("slow", 1, slow);
        case.fail("broken", "no | way".to_owned());
        case.add(ALIKE, 2, Figures::only(&[(Column::Seconds, 1.0)]));
        case.add("patient", 1, Figures::only(&[(Column::Seconds, 2.0)]));
        let expected = "\
**work**

| | time | alike / it | on the wire |
| --- | --- | --- | --- |
| alike | 1.00 s (1.00 s–1.00 s) |  | 2.00 KiB |
| slow | 300 s, stopped at 96 % | < 0.0033 |  |
| broken (failed: no   way) |  |  |  |
| patient (one run) | 2.00 s | 0.50 |  |
";
        assert_eq!(self::case(&case), expected);
    }
}
