//! What was measured, as values: figures of a run, rows of a case, cases of a section, and what alike must reach.

use std::collections::BTreeMap;

/// alike's own name among the rows.
pub(super) const ALIKE: &str = "alike";

/// What a figure is. The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    /// Until it is done.
    Seconds,
    /// Median of many, in seconds.
    Median,
    /// 99 % of many are within this, in seconds.
    P99,
    /// The longest of many, in seconds.
    Worst,
    /// How many there were.
    Count,
    /// Bytes on the loopback.
    Wire,
    /// Bytes by which the database grew.
    Database,
    /// Seconds of CPU time where the content is at first.
    CpuFrom,
    /// Seconds of CPU time where it goes.
    CpuTo,
    /// Bytes of memory at most.
    PeakFrom,
    /// Bytes of memory at most.
    PeakTo,
    /// Bytes of memory at rest.
    RestFrom,
    /// Bytes of memory at rest.
    RestTo,
}

/// One run of one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    values: BTreeMap<Column, f64>,
    /// Why it is not whole, for a person: its seconds are a lower bound then.
    pub(super) stopped: Option<String>,
}

impl Figures {
    pub(super) fn set(&mut self, column: Column, value: f64) {
        self.values.insert(column, value);
    }

    pub(super) fn get(&self, column: Column) -> Option<f64> {
        self.values.get(&column).copied()
    }

    /// The one that counts.
    pub(super) fn first(&self) -> Option<(Column, f64)> {
        self.values.first_key_value().map(|(c, v)| (*c, *v))
    }

    pub(super) fn only(columns: &[(Column, f64)]) -> Figures {
        Figures {
            values: columns.iter().copied().collect(),
            stopped: None,
        }
    }

    /// What many single times say.
    pub(super) fn of_times(mut seconds: Vec<f64>) -> Figures {
        seconds.sort_by(f64::total_cmp);
        let at = |part: f64| seconds[((seconds.len() as f64 * part).ceil() as usize).max(1) - 1];
        if seconds.is_empty() {
            return Figures::only(&[(Column::Count, 0.0)]);
        }
        Figures::only(&[
            (Column::Median, at(0.5)),
            (Column::P99, at(0.99)),
            (Column::Worst, at(1.0)),
            (Column::Count, seconds.len() as f64),
        ])
    }
}

/// All runs of one peer.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) peer: String,
    /// By the number of the run.
    pub(super) runs: BTreeMap<usize, Figures>,
    /// It could not do this at all: why.
    pub(super) failed: Option<String>,
}

impl Row {
    pub(super) fn columns(&self) -> Vec<Column> {
        let mut columns: Vec<Column> = self
            .runs
            .values()
            .flat_map(|f| f.values.keys().copied())
            .collect();
        columns.sort();
        columns.dedup();
        columns
    }

    pub(super) fn values(&self, column: Column) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.values().filter_map(|f| f.get(column)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    pub(super) fn median(&self, column: Column) -> Option<f64> {
        median(self.values(column))
    }

    /// Why it is not whole, if one run was not.
    pub(super) fn stopped(&self) -> Option<&str> {
        self.runs.values().find_map(|f| f.stopped.as_deref())
    }
}

/// The same work, done by all.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

impl Case {
    pub(super) fn new(title: impl Into<String>) -> Case {
        Case {
            title: title.into(),
            rows: Vec::new(),
        }
    }

    fn row_mut(&mut self, peer: &str) -> &mut Row {
        let at = self.rows.iter().position(|r| r.peer == peer).unwrap_or_else(|| {
            self.rows.push(Row {
                peer: peer.to_owned(),
                runs: BTreeMap::new(),
                failed: None,
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    pub(super) fn add(&mut self, peer: &str, run: usize, figures: Figures) {
        self.row_mut(peer).runs.insert(run, figures);
    }

    pub(super) fn fail(&mut self, peer: &str, why: String) {
        self.row_mut(peer).failed = Some(why);
    }

    pub(super) fn row(&self, peer: &str) -> Option<&Row> {
        self.rows.iter().find(|r| r.peer == peer && !r.runs.is_empty())
    }

    /// Median of one figure of one peer.
    pub(super) fn median(&self, peer: &str, column: Column) -> Option<f64> {
        self.row(peer)?.median(column)
    }

    /// The greatest figure of one peer.
    pub(super) fn most(&self, peer: &str, column: Column) -> Option<f64> {
        self.row(peer)?.values(column).last().copied()
    }

    /// alike divided by `peer`, median of the runs that both have, by the figure that counts. If `peer` was stopped
    /// it is an upper bound.
    pub(super) fn ratio(&self, peer: &str) -> Option<f64> {
        let (alike, other) = (self.row(ALIKE)?, self.row(peer)?);
        let pairs = alike.runs.iter().filter_map(|(run, figures)| {
            let (column, value) = figures.first()?;
            Some(value / other.runs.get(run)?.get(column)?)
        });
        median(pairs.collect())
    }
}

/// Something that `alike` must reach.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub(super) what: String,
    pub(super) at_most: f64,
    /// Nothing: it could not be measured.
    pub(super) got: Option<f64>,
    pub(super) unit: Unit,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Bytes,
    Times,
    Number,
}

/// One workload.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) title: String,
    /// What is done, for a person who wants to do it again.
    pub(super) about: String,
    pub(super) cases: Vec<Case>,
    pub(super) aims: Vec<Aim>,
    /// Where alike itself did not do what it should.
    pub(super) failures: Vec<String>,
}

impl Section {
    pub(super) fn new(title: impl Into<String>, about: impl Into<String>, cases: Vec<Case>) -> Section {
        let failures = cases
            .iter()
            .flat_map(|case| case.rows.iter().map(move |row| (case, row)));
        let failures = failures.filter(|(_, row)| row.peer == ALIKE);
        Section {
            title: title.into(),
            about: about.into(),
            failures: failures
                .filter_map(|(case, row)| Some(format!("{}: {}", case.title, row.failed.as_ref()?)))
                .collect(),
            cases,
            aims: Vec::new(),
        }
    }

    /// `got` must be at most `at_most`.
    pub(super) fn aim(&mut self, what: &str, got: Option<f64>, at_most: f64, unit: Unit) {
        self.aims.push(Aim {
            what: what.to_owned(),
            at_most,
            got,
            unit,
        });
    }
}

/// The one in the middle; of an even number the greater of the two.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_runs_that_both_have() {
        let mut case = Case::new("x");
        for (run, alike, other) in [(1, 2.0, 4.0), (2, 3.0, 4.0), (3, 100.0, 0.0)] {
            case.add(ALIKE, run, Figures::only(&[(Column::Seconds, alike)]));
            if other > 0.0 {
                case.add("other", run, Figures::only(&[(Column::Seconds, other)]));
            }
        }
        assert_eq!(case.ratio("other"), Some(0.75));
        assert_eq!(case.ratio("nobody"), None);
        assert_eq!(case.median(ALIKE, Column::Seconds), Some(3.0));
    }

    #[test]
    fn ninety_nine_of_a_hundred() {
        let figures = Figures::of_times((1..=100).rev().map(f64::from).collect());
        assert_eq!(figures.get(Column::Median), Some(50.0));
        assert_eq!(figures.get(Column::P99), Some(99.0));
        assert_eq!(figures.get(Column::Worst), Some(100.0));
        assert_eq!(Figures::of_times(vec![7.0]).get(Column::P99), Some(7.0));
    }
}
