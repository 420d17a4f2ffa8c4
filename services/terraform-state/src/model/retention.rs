//! Retention: which of a state's old versions are kept.

use std::collections::BTreeSet;

use diesel::prelude::{AsChangeset, Queryable, Selectable};
use time::{Date, OffsetDateTime};

use crate::schema::states;

/// What a state keeps of its versions. The current one is always kept, whatever stands here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = states, treat_none_as_null = true)]
pub struct Retention {
    /// So many of the newest, 1 to 100,000; all of them where there is none, and then the other two are 0.
    pub keep_versions: Option<i32>,
    /// Beyond those, the newest of each day for so many days, 0 to 3,650.
    pub keep_days: i32,
    /// Beyond those, the newest of each week for so many weeks, 0 to 520.
    pub keep_weeks: i32,
}

impl Retention {
    /// The most of each.
    pub const MOST: (i32, i32, i32) = (100_000, 3650, 520);

    /// Which versions go, of all of a state with their times, newest first. Days and weeks (from Monday) are UTC's, and
    /// the day and week that `now` lies in are their first.
    pub fn thinned(&self, versions: &[(i64, OffsetDateTime)], now: OffsetDateTime) -> Vec<i64> {
        let Some(newest) = self.keep_versions else {
            return Vec::new();
        };
        let newest = usize::try_from(newest).unwrap_or(1).max(1);
        let today = now.to_offset(time::UtcOffset::UTC).date();
        let (mut days, mut weeks) = (BTreeSet::new(), BTreeSet::new());
        let mut gone = Vec::new();
        for (at, (number, written)) in versions.iter().enumerate() {
            let day = written.to_offset(time::UtcOffset::UTC).date();
            let week = monday(day);
            let aged = i64::from(today.to_julian_day()) - i64::from(day.to_julian_day());
            let weeks_aged = (i64::from(monday(today)) - i64::from(week)) / 7;
            // The first that is seen of a day is its newest, whether or not it is kept for another reason.
            let first_of_day = days.insert(day) && aged < i64::from(self.keep_days);
            let first_of_week = weeks.insert(week) && weeks_aged < i64::from(self.keep_weeks);
            if at >= newest && !first_of_day && !first_of_week {
                gone.push(*number);
            }
        }
        gone
    }
}

/// The Monday of a date's week, as a Julian day.
fn monday(day: Date) -> i32 {
    day.to_julian_day() - i32::from(day.weekday().number_days_from_monday())
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    /// Versions 10, 9, … of these hours before `now`.
    fn versions(now: OffsetDateTime, hours: &[i64]) -> Vec<(i64, OffsetDateTime)> {
        let numbered = hours.iter().zip(0..);
        numbered
            .map(|(ago, at)| (10 - at, now - Duration::hours(*ago)))
            .collect()
    }

    #[test]
    fn what_goes_is_neither_among_the_newest_nor_the_last_of_a_day_or_week_that_is_kept() {
        // A Wednesday.
        let now = datetime!(2026-11-25 12:00 UTC);
        let written = versions(now, &[0, 1, 2, 24, 25, 48, 24 * 7, 24 * 8, 24 * 15]);
        let thinned = |keep_versions, keep_days, keep_weeks| {
            Retention {
                keep_versions,
                keep_days,
                keep_weeks,
            }
            .thinned(&written, now)
        };
        assert_eq!(thinned(None, 0, 0), [0_i64; 0]);
        assert_eq!(thinned(Some(1), 0, 0), [9, 8, 7, 6, 5, 4, 3, 2]);
        assert_eq!(thinned(Some(8), 0, 0), [2]);
        assert_eq!(thinned(Some(1), 2, 0), [9, 8, 6, 5, 4, 3, 2]);
        assert_eq!(thinned(Some(1), 3, 0), [9, 8, 6, 4, 3, 2]);
        // Of the week before, the newest is 4; of the one before that, 2.
        assert_eq!(thinned(Some(1), 0, 2), [9, 8, 7, 6, 5, 3, 2]);
        assert_eq!(thinned(Some(2), 3, 3), [8, 6, 3]);
        assert_eq!(thinned(Some(100), 0, 0), [0_i64; 0]);
    }

    #[test]
    fn the_newest_stays_whatever_is_asked() {
        let now = datetime!(2026-11-25 12:00 UTC);
        let old = versions(now, &[24 * 400, 24 * 500]);
        let least = Retention {
            keep_versions: Some(1),
            keep_days: 1,
            keep_weeks: 1,
        };
        assert_eq!(least.thinned(&old, now), [9]);
    }
}
