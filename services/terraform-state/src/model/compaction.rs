//! What is to be done to a state's versions: which go, and which newer one tells each that stays.

use diesel::prelude::{Queryable, Selectable};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{VersionKind, lock::LockId, retention::Retention, version::group_end};
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

/// What is to be done to a state's versions, all of them, newest first.
pub fn plan(rows: &[Row], terms: &Terms) -> Plan {
    let gone = gone(rows, terms);
    let mut steps = Vec::new();
    let mut newer: Option<&Row> = None;
    for row in rows.iter().filter(|row| gone.binary_search(&row.number).is_err()) {
        if row.key_id.is_none() {
            steps.push(Step::Renew(row.number));
        }
        let short = |row: &Row| row.size_bytes <= MOST_DELTA_BYTES;
        let base = newer.filter(|newer| newer.number <= group_end(row.number) && short(newer) && short(row));
        let base = base.map(|newer| newer.number);
        if row.weighed_number != base {
            steps.push(Step::Store(row.number, base));
        }
        newer = Some(row);
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
    use super::*;

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

    #[test]
    fn every_thirty_second_version_is_whole_and_the_others_are_told_by_the_next() {
        let told = |rows: &[Row]| -> Vec<(i64, i64)> {
            let steps = plan(rows, &terms()).steps.into_iter();
            steps
                .map(|step| match step {
                    Step::Store(number, Some(base)) => (number, base),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        let all = told(&rows(1..=70));
        assert_eq!(all.len(), 67);
        for whole in [70, 64, 32] {
            assert!(all.iter().all(|(number, _)| *number != whole), "{whole}");
        }
        assert!(all.iter().all(|(number, base)| *base == number + 1));
        // Where one is missing, the one before it is told by the one behind it; and the last of a group is whole.
        assert_eq!(told(&rows([30, 31, 33, 35])), [(33, 35), (30, 31)]);
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
