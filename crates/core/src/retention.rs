//! Which generations are kept. Pure: a list of times in, a list of numbers out; never touches what they name.

use std::collections::HashSet;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The newest generations that are always kept, whatever their age.
    pub newest: u64,
    /// Everything younger than this is kept (milliseconds).
    pub all_ms: u64,
    /// Of what is older, the last of each day is kept up to this age (milliseconds) …
    pub daily_ms: u64,
    /// … and the last of each 30 days for ever.
    pub monthly: bool,
}

impl Default for Policy {
    /// Everything for 30 days, then one a day for a year, then one a month: what a person wants back was lost lately,
    /// or belongs to "before that summer".
    fn default() -> Self {
        Policy {
            newest: 10,
            all_ms: 30 * DAY_MS,
            daily_ms: 365 * DAY_MS,
            monthly: true,
        }
    }
}

/// The generations that go. `all`: number and time (milliseconds since 1970), in any order.
pub fn expired(all: &[(u64, u64)], pinned: &dyn Fn(u64) -> bool, now_ms: u64, policy: &Policy) -> Vec<u64> {
    let mut newest_first = all.to_vec();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut days = HashSet::new();
    let mut months = HashSet::new();
    let mut gone = Vec::new();
    for (at, (number, time)) in newest_first.into_iter().enumerate() {
        // A time that is still to come (a clock was set back) is young.
        let age = now_ms.saturating_sub(time);
        let first_of_day = days.insert(time / DAY_MS);
        let first_of_month = months.insert(time / (30 * DAY_MS));
        let kept = (at as u64) < policy.newest.max(1)
            || pinned(number)
            || age < policy.all_ms
            || (age < policy.daily_ms && first_of_day)
            || (policy.monthly && first_of_month);
        if !kept {
            gone.push(number);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn ago(days: u64) -> u64 {
        NOW - days * DAY_MS
    }

    #[test]
    fn a_year_of_hourly_changes_is_thinned_by_the_day() {
        let all: Vec<(u64, u64)> = (0..24 * 400)
            .map(|h| (h + 1, NOW - (24 * 400 - h) * DAY_MS / 24))
            .collect();
        let gone: HashSet<u64> = expired(&all, &|_| false, NOW, &Policy::default())
            .into_iter()
            .collect();
        let kept: Vec<u64> = all
            .iter()
            .filter(|(n, _)| !gone.contains(n))
            .map(|(_, t)| *t)
            .collect();
        let young = kept.iter().filter(|t| NOW - **t < 30 * DAY_MS).count();
        assert_eq!(young, 24 * 30 - 1);
        let daily = kept
            .iter()
            .filter(|t| (31 * DAY_MS..364 * DAY_MS).contains(&(NOW - **t)))
            .count();
        assert!((332..=335).contains(&daily), "{daily}");
        let old = kept.iter().filter(|t| NOW - **t > 366 * DAY_MS).count();
        assert!((1..=3).contains(&old), "{old}");
    }

    #[test]
    fn the_newest_and_the_pinned_stay_whatever_their_age() {
        let all = [(1, ago(5000)), (2, ago(5000)), (3, ago(5000)), (4, ago(4999))];
        let policy = Policy {
            newest: 1,
            all_ms: 0,
            daily_ms: 0,
            monthly: false,
        };
        assert_eq!(expired(&all, &|n| n == 2, NOW, &policy), [3, 1]);
        assert_eq!(
            expired(&all[..1], &|_| false, NOW, &Policy { newest: 0, ..policy }),
            [0u64; 0]
        );
        assert_eq!(
            expired(
                &[(1, NOW + DAY_MS), (2, NOW)],
                &|_| false,
                NOW,
                &Policy { all_ms: 1, ..policy }
            ),
            [0u64; 0]
        );
    }

    proptest! {
        #[test]
        fn what_is_kept_once_is_not_dropped_by_asking_again(
            times in prop::collection::vec(0u64..800, 1..80),
            newest in 0u64..5,
        ) {
            let all: Vec<(u64, u64)> = times.iter().enumerate().map(|(i, d)| (i as u64, ago(*d))).collect();
            let policy = Policy { newest, ..Policy::default() };
            let gone = expired(&all, &|_| false, NOW, &policy);
            let left: Vec<_> = all.iter().copied().filter(|(n, _)| !gone.contains(n)).collect();
            prop_assert_eq!(expired(&left, &|_| false, NOW, &policy), Vec::<u64>::new());
            let newest = all.iter().map(|(n, _)| *n).max().expect("there is one");
            prop_assert!(!gone.contains(&newest));
        }
    }
}
