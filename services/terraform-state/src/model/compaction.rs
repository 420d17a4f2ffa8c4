//! What is to be done to a state's versions: which go, and which newer one tells each that stays.
//!
//! A version is told by at most 12 others, one after the other, whichever there are; the last of them is whole.

use diesel::prelude::{Queryable, Selectable};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{VersionKind, lock::LockId, retention::Retention};
use crate::{content::pack::MOST_DELTA_BYTES, schema::state_versions};

/// A version by what a plan is made from.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = state_versions)]
pub struct Row {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// What its chunks are sealed to.
    pub body_id: Uuid,
    /// Why it was written.
    pub kind: VersionKind,
    /// Length of its content.
    pub size_bytes: i64,
    /// The lock that it was written under.
    pub lock_id: Option<LockId>,
    /// The key that seals its data key; none where it has none yet.
    pub key_id: Option<Vec<u8>>,
    /// The newer version that it is told by.
    pub base_number: Option<i64>,
    /// The newer version that it was weighed against.
    pub weighed_number: Option<i64>,
    /// Bytes of its chunks.
    pub stored_bytes: i64,
    /// When it was written.
    pub created_at: OffsetDateTime,
}

/// One thing to do, each in a transaction of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give a version a data key: it stands as it did before there were any.
    Renew(i64),
    /// Store a version weighed against a newer one, or whole where there is none.
    Store(i64, Option<i64>),
    /// Take a version away that no other is told by any more.
    Remove(i64),
}

/// What a plan is made under.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What the state keeps.
    pub retention: Retention,
    /// The lock that is held.
    pub lock: Option<LockId>,
    /// Whether an execution of the state has not come to its end: it may refer to any version.
    pub live: bool,
    /// The time.
    pub now: OffsetDateTime,
}

/// What is to be done, in this order; and whether there will be more without a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// Whether to look again in a while.
    pub again: bool,
}

/// Which versions go, of all of a state, newest first.
pub fn gone(rows: &[Row], terms: &Terms) -> Vec<i64> {
    if terms.live {
        return Vec::new();
    }
    let Some((_, old)) = rows.split_first() else {
        return Vec::new();
    };
    let on_the_way =
        |row: &&Row| row.kind == VersionKind::Intermediate && (terms.lock.is_none() || row.lock_id != terms.lock);
    let mut gone: Vec<i64> = old.iter().filter(on_the_way).map(|row| row.number).collect();
    let left: Vec<_> = rows
        .iter()
        .filter(|row| !gone.contains(&row.number))
        .map(|row| (row.number, row.created_at))
        .collect();
    gone.extend(terms.retention.thinned(&left, terms.now));
    gone.sort_unstable();
    gone
}

/// Nothing is told across a multiple of this: what stands there is whole, or else the last one before it that there is.
const KEYFRAME: i64 = 128;

/// The newer version that tells a version, of those that can, newest first; none where it is to be whole. `newest` is the
/// state's current version, whether or not it can tell another.
///
/// The numbers behind the version are cut into blocks of 64, 32, …, 1, the longest first that fits: one that starts behind a
/// multiple of its length, and whose last number was given already. Of the first block that has a version, the last one tells.
/// Where no version is missing, 3 is told by 4, 4 by 8, 8 by 16; and while 11 is the current one, 8 by 10 and 10 by 11. So each
/// step leads to the end of a longer block, and at last through shorter ones to the current version.
fn base(tellers: &[i64], newest: i64, number: i64) -> Option<i64> {
    let mut end = number;
    while end % KEYFRAME != 0 {
        let lengths = (0..=end.trailing_zeros()).rev().map(|power| 1_i64 << power);
        let next = lengths.map(|length| end + length).find(|next| *next <= newest)?;
        let newer = tellers.partition_point(|teller| *teller > next);
        match tellers.get(newer) {
            Some(teller) if *teller > end => return Some(*teller),
            _ => end = next,
        }
    }
    None
}

/// What is to be done to a state's versions, all of them, newest first.
pub fn plan(rows: &[Row], terms: &Terms) -> Plan {
    let gone = gone(rows, terms);
    let mut steps = Vec::new();
    let kept = || rows.iter().filter(|row| gone.binary_search(&row.number).is_err());
    let short = |row: &&Row| row.size_bytes <= MOST_DELTA_BYTES;
    let tellers: Vec<i64> = kept().filter(short).map(|row| row.number).collect();
    let newest = rows.first().map_or(0, |row| row.number);
    for row in kept() {
        if row.key_id.is_none() {
            steps.push(Step::Renew(row.number));
        }
        let base = Some(row)
            .filter(short)
            .and_then(|row| base(&tellers, newest, row.number));
        if row.weighed_number != base {
            steps.push(Step::Store(row.number, base));
        }
    }
    // The oldest first: it is told by newer ones.
    steps.extend(gone.iter().map(|number| Step::Remove(*number)));
    let waiting = rows.iter().skip(1).any(|row| row.kind == VersionKind::Intermediate);
    let aging = terms
        .retention
        .keep_versions
        .is_some_and(|keep| rows.len() > usize::try_from(keep).unwrap_or(0));
    Plan {
        steps,
        again: waiting || aging,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    /// The most versions that one is told by, one after the other.
    const MOST_TOLD: usize = 12;

    fn row(number: i64) -> Row {
        Row {
            number,
            id: Uuid::nil(),
            body_id: Uuid::nil(),
            kind: VersionKind::Normal,
            size_bytes: 10,
            lock_id: None,
            key_id: Some(vec![0; 4]),
            base_number: None,
            weighed_number: None,
            stored_bytes: 1,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn rows(numbers: impl IntoIterator<Item = i64>) -> Vec<Row> {
        let mut rows: Vec<Row> = numbers.into_iter().map(row).collect();
        rows.reverse();
        rows
    }

    fn terms() -> Terms {
        Terms {
            retention: Retention::default(),
            lock: None,
            live: false,
            now: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Which newer version tells each, of a state with these.
    fn told(numbers: impl IntoIterator<Item = i64>) -> BTreeMap<i64, i64> {
        let steps = plan(&rows(numbers), &terms()).steps.into_iter();
        steps
            .map(|step| match step {
                Step::Store(number, Some(base)) => (number, base),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// How many others the longest chain takes to a whole version.
    fn longest(told: &BTreeMap<i64, i64>) -> usize {
        let length = |from: &i64| std::iter::successors(Some(*from), |number| told.get(number).copied()).count() - 1;
        told.keys().map(length).max().unwrap_or(0)
    }

    #[test]
    fn the_last_of_a_block_tells_the_last_of_the_block_before_it() {
        let chain = |told: &BTreeMap<i64, i64>| -> Vec<i64> {
            std::iter::successors(Some(1), |number| told.get(number).copied()).collect()
        };
        let hundred = told(1..=100);
        assert_eq!(hundred.len(), 99);
        assert_eq!(chain(&hundred), [1, 2, 4, 8, 16, 32, 64, 96, 100]);
        assert_eq!((hundred[&95], hundred[&93], hundred[&97]), (96, 94, 98));
        assert_eq!(
            chain(&told(1..=127)),
            [1, 2, 4, 8, 16, 32, 64, 96, 112, 120, 124, 126, 127]
        );
        // Every 128th is whole, and the current one.
        let many = told(1..=300);
        let whole: Vec<i64> = (1..=300).filter(|number| !many.contains_key(number)).collect();
        assert_eq!(whole, [128, 256, 300]);
        // Where one is missing, the last one of its block tells in its place; or it is whole in its place.
        assert_eq!(
            chain(&told((1..=100).filter(|number| ![32, 96].contains(number)))),
            [1, 2, 4, 8, 16, 31, 64, 95, 100]
        );
        let many = told((1..=130).filter(|number| *number != 128));
        assert_eq!((many.get(&127), many[&126], many[&129]), (None, 127, 130));
    }

    #[test]
    fn a_chain_is_short_whichever_versions_are_there_and_a_write_changes_few() {
        for newest in 1..=300 {
            assert!(longest(&told(1..=newest)) <= MOST_TOLD, "{newest}");
        }
        let mut seed = 1_u64;
        for newest in 200..=500 {
            let there = |_: &i64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 62 == 0
            };
            let numbers: Vec<i64> = (1..newest).filter(there).chain([newest]).collect();
            assert!(longest(&told(numbers)) <= MOST_TOLD, "{newest}");
        }
        let mut changed = 0;
        for newest in 1..1024 {
            let (before, after) = (told(1..=newest), told(1..=newest + 1));
            changed += after
                .iter()
                .filter(|(number, base)| before.get(number) != Some(base))
                .count();
        }
        assert!(changed < 2 * 1024, "{changed}");
    }

    #[test]
    fn no_version_goes_while_another_is_told_by_it() {
        let mut rows = rows(1..=40);
        for keep_weeks in [0, 1] {
            for row in &mut rows {
                // One in a day, of which some are kept.
                row.created_at = OffsetDateTime::UNIX_EPOCH + time::Duration::days(row.number);
            }
            let retention = Retention {
                keep_versions: (keep_weeks > 0).then_some(3),
                keep_weeks: 5 * keep_weeks,
                ..Retention::default()
            };
            let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(40);
            let terms = Terms {
                retention,
                now,
                ..terms()
            };
            for step in plan(&rows, &terms).steps {
                match step {
                    Step::Store(number, base) => {
                        assert!(base.is_none_or(|base| rows.iter().any(|row| row.number == base)));
                        let row = rows.iter_mut().find(|row| row.number == number).unwrap();
                        (row.base_number, row.weighed_number) = (base, base);
                    }
                    Step::Remove(number) => {
                        assert!(rows.iter().all(|row| row.base_number != Some(number)), "{number}");
                        rows.retain(|row| row.number != number);
                    }
                    Step::Renew(number) => panic!("{number} has a key"),
                }
            }
            assert_eq!(plan(&rows, &terms).steps, []);
        }
        let left: Vec<i64> = rows.iter().map(|row| row.number).collect();
        assert_eq!(left, [40, 39, 38, 31, 24, 17]);
    }

    #[test]
    fn what_was_weighed_is_left_alone_until_its_neighbour_changes() {
        let mut rows = rows([1, 2, 3]);
        (rows[2].weighed_number, rows[1].weighed_number) = (Some(2), Some(3));
        assert_eq!(plan(&rows, &terms()).steps, []);
        rows.remove(1);
        assert_eq!(plan(&rows, &terms()).steps, [Step::Store(1, Some(3))]);
        rows[0].size_bytes = MOST_DELTA_BYTES + 1;
        assert_eq!(plan(&rows, &terms()).steps, [Step::Store(1, None)]);
        rows[1].key_id = None;
        assert_eq!(plan(&rows, &terms()).steps, [Step::Renew(1), Step::Store(1, None)]);
    }

    #[test]
    fn what_was_on_the_way_goes_when_its_lock_has_gone_and_no_execution_runs() {
        let mut rows = rows([1, 2, 3]);
        let lock = LockId::parse("l");
        rows[1].kind = VersionKind::Intermediate;
        (rows[1].lock_id, rows[1].weighed_number, rows[2].weighed_number) = (lock.clone(), Some(3), Some(2));
        let held = Terms { lock, ..terms() };
        let live = Terms { live: true, ..terms() };
        for waits in [&held, &live] {
            let Plan { steps, again } = plan(&rows, waits);
            assert_eq!((steps, again), (vec![], true));
        }
        // First what it tells is told by another one.
        let expected = [Step::Store(1, Some(3)), Step::Remove(2)];
        assert_eq!(plan(&rows, &terms()).steps, expected);
        // The current version stays, whatever it is.
        rows.remove(0);
        (rows[0].weighed_number, rows[1].weighed_number) = (None, Some(2));
        assert_eq!(plan(&rows, &terms()).steps, []);
    }

    #[test]
    fn retention_never_takes_what_an_execution_may_refer_to() {
        let retention = Retention {
            keep_versions: Some(1),
            ..Retention::default()
        };
        let terms = Terms { retention, ..terms() };
        assert_eq!(gone(&rows([1, 2, 3]), &terms), [1, 2]);
        assert_eq!(gone(&rows([1, 2, 3]), &Terms { live: true, ..terms }), [0_i64; 0]);
    }
}
