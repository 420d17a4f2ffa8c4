//! The life of drift logs: what a check and what a person makes of each.

use std::collections::HashMap;

use diesel::{
    pg::Pg,
    prelude::{Queryable, Selectable},
};
use kit::{Error, Result};

use super::{
    DriftLogId, DriftStatus, Severity,
    plan::Finding,
    rule::{Rule, judge},
};
use crate::schema::drift_logs;

/// What is known of a drift log of the state.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = drift_logs, check_for_backend(Pg))]
pub(crate) struct Known {
    pub(crate) id: DriftLogId,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) status: DriftStatus,
    pub(crate) severity: Severity,
}

/// A drift log that stands elsewhere now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) id: DriftLogId,
    pub(crate) before: DriftStatus,
    pub(crate) after: DriftStatus,
}

/// What a check saw at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `None` for what was never seen before.
    pub(crate) known: Option<DriftLogId>,
    pub(crate) status: DriftStatus,
    pub(crate) severity: Severity,
    /// Whether people are to hear of it.
    pub(crate) told: bool,
    /// Whether it was resolved before.
    pub(crate) reopened: bool,
}

/// What follows from a check.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Of each finding, in their order.
    pub(crate) seen: Vec<Seen>,
    pub(crate) moves: Vec<Move>,
    /// Known drift logs whose fingerprint is by a retired key, and what it is by the primary one.
    pub(crate) renewed: Vec<(DriftLogId, [u8; 32])>,
    /// Known drift logs that are as bad as this now.
    pub(crate) severities: Vec<(DriftLogId, Severity)>,
    pub(crate) resolved: usize,
}

/// What a whole check that found this makes of what was known.
pub(crate) fn decide(known: &[Known], findings: &[Finding], rules: &[Rule]) -> Outcome {
    let mut unseen: HashMap<&[u8], &Known> = known.iter().map(|log| (log.fingerprint.as_slice(), log)).collect();
    let mut outcome = Outcome::default();
    for finding in findings {
        let judgement = judge(rules, finding);
        let log = finding.prints.iter().find_map(|print| unseen.remove(print.as_slice()));
        let status = match (log.map(|log| log.status), judgement.ignored) {
            (Some(DriftStatus::Accepted), _) => DriftStatus::Accepted,
            (_, true) => DriftStatus::Ignored,
            (Some(DriftStatus::Resolved), false) => DriftStatus::Reopened,
            (Some(DriftStatus::Ignored) | None, false) => DriftStatus::Open,
            (Some(status @ (DriftStatus::Open | DriftStatus::Acknowledged | DriftStatus::Reopened)), false) => status,
        };
        if let Some(log) = log {
            if let Some(print) = finding.prints.first()
                && log.fingerprint != *print
            {
                outcome.renewed.push((log.id, *print));
            }
            if log.status != status {
                outcome.moves.push(Move {
                    id: log.id,
                    before: log.status,
                    after: status,
                });
            }
            if log.severity != judgement.severity {
                outcome.severities.push((log.id, judgement.severity));
            }
        }
        outcome.seen.push(Seen {
            known: log.map(|log| log.id),
            status,
            severity: judgement.severity,
            told: status.counts() && log.is_none_or(|log| !log.status.counts()),
            reopened: status == DriftStatus::Reopened && log.is_some_and(|log| log.status == DriftStatus::Resolved),
        });
    }
    // In the order in which they are known, so that the same check always tells the same.
    for log in known {
        if unseen.contains_key(log.fingerprint.as_slice()) && log.status != DriftStatus::Resolved {
            outcome.resolved += 1;
            outcome.moves.push(Move {
                id: log.id,
                before: log.status,
                after: DriftStatus::Resolved,
            });
        }
    }
    outcome
}

/// Where a drift log stands after a person has said where it is to stand.
///
/// # Errors
/// INVALID_REQUEST where nobody may say so.
pub(crate) fn said(before: DriftStatus, after: DriftStatus) -> Result<DriftStatus> {
    let allowed = match after {
        DriftStatus::Acknowledged => matches!(
            before,
            DriftStatus::Open | DriftStatus::Reopened | DriftStatus::Acknowledged
        ),
        DriftStatus::Accepted => before != DriftStatus::Resolved,
        DriftStatus::Resolved => true,
        DriftStatus::Open | DriftStatus::Reopened | DriftStatus::Ignored => false,
    };
    if allowed {
        Ok(after)
    } else {
        Err(Error::violation(
            "drift_log_id",
            format!("is of a drift log that is {}", before.as_str()),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn people_move_only_what_is_theirs_to_move() {
        use DriftStatus::*;
        for (before, after, allowed) in [
            (Open, Acknowledged, true),
            (Reopened, Acknowledged, true),
            (Accepted, Acknowledged, false),
            (Ignored, Acknowledged, false),
            (Resolved, Acknowledged, false),
            (Ignored, Accepted, true),
            (Resolved, Accepted, false),
            (Accepted, Resolved, true),
            (Resolved, Resolved, true),
        ] {
            assert_eq!(said(before, after).is_ok(), allowed, "{before:?} {after:?}");
        }
    }
}
