//! A case as a picture: one bar a peer, as long as its median, with a line from its least to its greatest run. SVG
//! written by hand; it reads on light and dark pages.

use std::fmt::Write;

use super::results::{ALIKE, Case, Column};
use super::table::{title, unit, value};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 230.0;
/// Room for the figure behind the longest bar.
const FIGURES: f64 = 190.0;
const BAR: f64 = 22.0;
const STEP: f64 = 32.0;
const TOP: f64 = 44.0;
/// Figures further apart than this are drawn on a logarithmic axis.
const APART: f64 = 100.0;

/// The picture; `None` where there is nothing to compare.
pub(super) fn case(case: &Case) -> Option<String> {
    let rows: Vec<_> = case.rows.iter().filter(|r| !r.runs.is_empty()).collect();
    let column = rows.iter().flat_map(|r| r.columns()).min()?;
    let mut bars = Vec::new();
    for row in rows {
        let values = row.values(column);
        let (Some(median), Some(low), Some(high)) = (row.median(column), values.first(), values.last())
        else {
            continue;
        };
        bars.push((row, median, *low, *high));
    }
    if bars.len() < 2 {
        return None;
    }
    let most = bars.iter().map(|b| b.3).fold(0.0, f64::max);
    let least = bars.iter().map(|b| b.2).fold(f64::MAX, f64::min);
    let scale = Scale::new(least, most);
    let height = TOP + STEP * bars.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\" fill=\"#222222\">{}</text>\n",
        escape(&heading(case, column, scale.log))
    );
    for (n, (row, median, low, high)) in bars.iter().enumerate() {
        let y = TOP + STEP * n as f64;
        let (length, middle) = (scale.at(*median), y + BAR / 2.0);
        let colour = if row.peer == ALIKE { "#1f77b4" } else { "#b0b7bf" };
        let mut figure = value(*median, unit(column));
        if let Some(why) = row.stopped() {
            figure = format!("{figure}, {why}");
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#222222\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222222\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#222222\">{}</text>",
            LABELS - 8.0,
            middle + 5.0,
            escape(&row.peer),
            LABELS + scale.at(*low),
            LABELS + scale.at(*high),
            LABELS + scale.at(*high).max(length) + 8.0,
            middle + 5.0,
            escape(&figure),
        );
    }
    svg += "</svg>\n";
    Some(svg)
}

fn heading(case: &Case, column: Column, log: bool) -> String {
    let axis = if log { ", logarithmic" } else { "" };
    format!("{} ({}{axis}; shorter is better)", case.title, title(column))
}

/// From figures to lengths.
struct Scale {
    least: f64,
    most: f64,
    log: bool,
}

impl Scale {
    fn new(least: f64, most: f64) -> Scale {
        Scale {
            least,
            most: most.max(f64::MIN_POSITIVE),
            log: least > 0.0 && most / least > APART,
        }
    }

    fn at(&self, figure: f64) -> f64 {
        let room = WIDTH - LABELS - FIGURES;
        if self.log {
            // A tenth of the room is for the least.
            let part = (figure / self.least).ln() / (self.most / self.least).ln();
            room * (0.1 + 0.9 * part)
        } else {
            room * figure / self.most
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Figures;

    #[test]
    fn one_bar_a_peer() {
        let mut case = Case::new("a & b");
        case.add(ALIKE, 1, Figures::only(&[(Column::Seconds, 2.0)]));
        assert_eq!(super::case(&case), None);
        case.add("other", 1, Figures::only(&[(Column::Seconds, 4.0)]));
        let svg = super::case(&case).expect("two to compare");
        assert!(svg.contains("a &amp; b (time; shorter is better)"), "{svg}");
        assert!(
            svg.contains("width=\"170.0\"") && svg.contains("width=\"340.0\""),
            "{svg}"
        );
        case.add("slow", 1, Figures::only(&[(Column::Seconds, 4000.0)]));
        let svg = super::case(&case).expect("three to compare");
        assert!(
            svg.contains("logarithmic") && svg.contains("width=\"34.0\""),
            "{svg}"
        );
    }
}
