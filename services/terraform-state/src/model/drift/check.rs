//! A check, ready to be written: everything that it found is sealed in its place.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use diesel::{
    pg::Pg,
    prelude::{Insertable, Queryable, Selectable},
};
use kit::{
    Result,
    crypto::{KeyRing, OpenError},
    ids::OrgId,
};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::{
    Address, Cause, CheckId, DriftKind, DriftLogId, Drifted, NewDriftLog, Printer, ResourceType, Side,
    life::{Outcome, Seen},
    place,
    plan::{Drift, Finding, Tally},
    unopened,
    view::{Three, View},
};
use crate::{
    model::{StateId, masking::Values},
    schema::{drift_checks, drift_logs, drift_views},
};

/// What a check found, ready to be written.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) id: CheckId,
    pub(crate) findings: Vec<Finding>,
    /// Of each finding, as it is kept if it is new.
    kept: Vec<Kept>,
    pub(crate) tally: Tally,
    pub(crate) errored: bool,
    pub(crate) view: Vec<ViewRow>,
    pub(crate) truncated: bool,
}

#[derive(Debug)]
struct Kept {
    id: DriftLogId,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

impl Check {
    /// The check that found this, its values sealed for the state's organization.
    pub(crate) fn new(drift: Drift, printer: &Printer) -> Check {
        let Printer { ring, org, state } = printer;
        let id = CheckId::new();
        // Read newest first, the logs of a check then stand in the plan's order.
        let mut ids: Vec<DriftLogId> = drift.findings.iter().map(|_| DriftLogId::new()).collect();
        ids.reverse();
        let kept = ids.into_iter().zip(&drift.findings).map(|(id, finding)| {
            let seal = |value: Option<&Value>, side: Side| {
                value.map(|value| ring.seal(value.to_string().as_bytes(), &place(*org, *state, id, side)))
            };
            let values = finding.values.as_ref();
            let (before, after) = match values {
                Some(Values { before, after }) => (before.as_ref(), after.as_ref()),
                None => (None, None),
            };
            Kept {
                id,
                before: seal(before, Side::Before),
                after: seal(after, Side::After),
            }
        });
        let kept = kept.collect();
        let View { rows, truncated } = drift.view;
        let rows = (0_i32..).zip(rows).map(|(place, row)| {
            let sealed = row.values.as_ref().filter(|three| three.iter().any(Option::is_some));
            let sealed = sealed.map(|three| {
                let text = serde_json::to_vec(three).expect("values become JSON");
                ring.seal(&text, &viewed(*org, *state, id, place))
            });
            ViewRow {
                org_id: *org,
                state_id: *state,
                place,
                check_id: id,
                address: row.address,
                resource_type: row.resource_type,
                path: row.path,
                cause: row.cause,
                sealed,
                masked: row.values.is_none(),
            }
        });
        Check {
            id,
            kept,
            tally: drift.tally,
            errored: drift.errored,
            view: rows.collect(),
            truncated,
            findings: drift.findings,
        }
    }

    /// The rows of what is new, and where each finding's row is.
    pub(crate) fn rows(&self, outcome: &Outcome) -> (Vec<NewDriftLog>, Vec<DriftLogId>) {
        let mut rows = Vec::new();
        let mut ids = Vec::new();
        for ((finding, kept), seen) in self.findings.iter().zip(&self.kept).zip(&outcome.seen) {
            ids.push(seen.known.unwrap_or(kept.id));
            if seen.known.is_some() {
                continue;
            }
            rows.push(NewDriftLog {
                id: kept.id,
                address: finding.address.clone(),
                resource_type: finding.resource_type.clone(),
                kind: finding.kind,
                path: finding.path.clone(),
                before: kept.before.clone(),
                after: kept.after.clone(),
                masked: finding.kind == DriftKind::Changed && finding.values.is_none(),
                fingerprint: finding.prints.first().map(|print| print.to_vec()).unwrap_or_default(),
                status: seen.status,
                severity: seen.severity,
            });
        }
        (rows, ids)
    }

    /// The resources that have something that counts as drift, in the plan's order.
    pub(crate) fn drifted(&self, seen: &[Seen]) -> Vec<Drifted> {
        let mut told: HashSet<&Address> = HashSet::new();
        let counts = self.findings.iter().zip(seen).filter(|(_, seen)| seen.status.counts());
        counts
            .filter(|(finding, _)| told.insert(&finding.address))
            .map(|(finding, _)| Drifted {
                address: finding.address.clone(),
                kind: finding.kind,
            })
            .collect()
    }
}

/// A check's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = drift_checks, check_for_backend(Pg))]
pub(crate) struct CheckRow {
    pub(crate) org_id: OrgId,
    pub(crate) id: CheckId,
    pub(crate) state_id: StateId,
    pub(crate) number: i64,
    pub(crate) errored: bool,
    pub(crate) drifted_resources: i32,
    pub(crate) normalised_resources: i32,
    pub(crate) moved_resources: i32,
    pub(crate) unapplied_resources: i32,
    pub(crate) failed_checks: i32,
    pub(crate) truncated: bool,
}

/// A row of a view, its values sealed.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = drift_views, check_for_backend(Pg))]
pub(crate) struct ViewRow {
    pub(crate) org_id: OrgId,
    pub(crate) state_id: StateId,
    pub(crate) place: i32,
    pub(crate) check_id: CheckId,
    pub(crate) address: Address,
    pub(crate) resource_type: ResourceType,
    pub(crate) path: String,
    pub(crate) cause: Cause,
    pub(crate) sealed: Option<Vec<u8>>,
    pub(crate) masked: bool,
}

/// The values of a drift log, sealed.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = drift_logs, check_for_backend(Pg))]
pub(crate) struct SealedLog {
    pub(crate) id: DriftLogId,
    pub(crate) state_id: StateId,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
}

impl SealedLog {
    /// The value of a side, sealed by the ring's current key; nothing where there is none.
    ///
    /// # Errors
    /// As [`ViewRow::values`].
    pub(crate) fn resealed(&self, ring: &KeyRing, org: OrgId, side: Side) -> Option<Result<Vec<u8>>> {
        let sealed = match side {
            Side::Before => self.before.as_deref()?,
            Side::After => self.after.as_deref()?,
        };
        let place = place(org, self.state_id, self.id, side);
        Some(resealed(ring, sealed, &place).map_err(|error| unopened("drift_log", self.id.to_string(), error)))
    }
}

/// A value, sealed by the ring's current key. What does not open was damaged, and is not to look as if it were not.
fn resealed(ring: &KeyRing, sealed: &[u8], place: &[u8]) -> std::result::Result<Vec<u8>, OpenError> {
    ring.open(sealed, place)?;
    ring.rewrap(sealed, place)
}

impl ViewRow {
    /// The values, sealed by the ring's current key.
    ///
    /// # Errors
    /// As [`ViewRow::values`].
    pub(crate) fn resealed(&self, ring: &KeyRing) -> Result<Vec<u8>> {
        let place = viewed(self.org_id, self.state_id, self.check_id, self.place);
        let sealed = self.sealed.as_deref().unwrap_or_default();
        resealed(ring, sealed, &place).map_err(|error| unopened("three_way_row", self.place.to_string(), error))
    }

    /// The values in the design, in the state and in reality.
    ///
    /// # Errors
    /// KEY_MISSING where the ring lacks their key, CONTENT_CORRUPT where they are not what was sealed here.
    pub(crate) fn values(&self, ring: &KeyRing) -> Result<Three> {
        let Some(sealed) = &self.sealed else {
            return Ok([None, None, None]);
        };
        let failed = |error| unopened("three_way_row", self.place.to_string(), error);
        let place = viewed(self.org_id, self.state_id, self.check_id, self.place);
        let plain = ring.open(sealed, &place).map_err(failed)?;
        serde_json::from_slice(plain.expose_secret()).map_err(|_| failed(OpenError::Corrupt))
    }
}

fn viewed(org: OrgId, state: StateId, check: CheckId, place: i32) -> Vec<u8> {
    format!("terraform_state.drift_views|{org}|{state}|{check}|{place}").into_bytes()
}

/// How many checks there were and what they found, since the service started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    clean: AtomicU64,
    drifted: AtomicU64,
    errored: AtomicU64,
    changed: AtomicU64,
    deleted: AtomicU64,
}

impl Figures {
    /// Counts a check that was written.
    pub(crate) fn count(&self, errored: bool, resources: &[Drifted]) {
        let Counts {
            clean,
            drifted,
            errored: failed,
            changed,
            deleted,
        } = &*self.0;
        let check = match (errored, resources.is_empty()) {
            (true, _) => failed,
            (false, true) => clean,
            (false, false) => drifted,
        };
        check.fetch_add(1, Relaxed);
        for resource in resources {
            match resource.kind {
                DriftKind::Changed => changed,
                DriftKind::Deleted => deleted,
            }
            .fetch_add(1, Relaxed);
        }
    }

    /// Checks by what they found.
    pub(crate) fn checks(&self) -> Vec<(String, f64)> {
        let Counts {
            clean,
            drifted,
            errored,
            ..
        } = &*self.0;
        labelled("drift", &[("none", clean), ("found", drifted), ("errored", errored)])
    }

    /// Drifted resources by what became of them.
    pub(crate) fn resources(&self) -> Vec<(String, f64)> {
        labelled("kind", &[("changed", &self.0.changed), ("deleted", &self.0.deleted)])
    }
}

fn labelled(label: &str, counts: &[(&str, &AtomicU64)]) -> Vec<(String, f64)> {
    let counts = counts.iter();
    counts
        .map(|(value, count)| (format!("{label}=\"{value}\""), count.load(Relaxed) as f64))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kit::Reason;
    use time::OffsetDateTime;

    use super::*;
    use crate::model::drift::{DriftLog, life::decide, plan};

    fn row(printer: &Printer, check: CheckId, new: &NewDriftLog) -> DriftLog {
        DriftLog {
            org_id: printer.org,
            id: new.id,
            state_id: printer.state,
            check_id: check,
            address: new.address.clone(),
            resource_type: new.resource_type.clone(),
            kind: new.kind,
            path: new.path.clone(),
            before: new.before.clone(),
            after: new.after.clone(),
            masked: new.masked,
            detected_at: OffsetDateTime::UNIX_EPOCH,
            status: new.status,
            severity: new.severity,
            last_check_id: check,
            last_seen_at: OffsetDateTime::UNIX_EPOCH,
            times_seen: 1,
            opened_at: OffsetDateTime::UNIX_EPOCH,
            resolved_at: None,
        }
    }

    fn logs(ring: &KeyRing) -> Vec<DriftLog> {
        let plan = include_str!("../../../tests/plans/refresh_only.json");
        let printer = Printer {
            ring: ring.clone(),
            org: OrgId::new(),
            state: StateId::new(),
        };
        let drift = plan::read(plan.as_bytes(), &printer).unwrap();
        let check = Check::new(drift, &printer);
        let (rows, _) = check.rows(&decide(&[], &check.findings, &[]));
        rows.iter().map(|new| row(&printer, check.id, new)).collect()
    }

    #[test]
    fn the_logs_of_a_check_stand_in_the_plans_order_when_read_newest_first() {
        let logs = logs(&KeyRing::ephemeral());
        let paths: Vec<_> = logs.iter().map(|log| log.path.as_str()).collect();
        assert_eq!(paths, ["", "password", "size", "tags[\"env\"]", "tags[\"owner\"]"]);
        assert!(logs.windows(2).all(|pair| pair[0].id > pair[1].id));
    }

    #[test]
    fn values_open_in_their_own_place_only() {
        let ring = KeyRing::ephemeral();
        let logs = logs(&ring);
        let shown: Vec<_> = logs.iter().map(|log| log.values(&ring).unwrap()).collect();
        let text = |text: &str| Some(Value::from(text));
        let expected = [
            [None, None],
            [None, None],
            [Some(Value::from(2)), Some(Value::from(8))],
            [text("dev"), text("prod")],
            [None, text("mallory")],
        ];
        assert_eq!(shown, expected);
        let masked: Vec<_> = logs.iter().map(|log| log.masked).collect();
        assert_eq!(masked, [false, true, false, false, false]);

        let refused = |changed: DriftLog| changed.values(&ring).unwrap_err().reason();
        let env = &logs[3];
        let swapped = DriftLog {
            before: env.after.clone(),
            after: env.before.clone(),
            ..env.clone()
        };
        let of_another = DriftLog {
            before: logs[2].before.clone(),
            ..env.clone()
        };
        let in_another_state = DriftLog {
            state_id: StateId::new(),
            ..env.clone()
        };
        let of_another_organization = DriftLog {
            org_id: OrgId::new(),
            ..env.clone()
        };
        for changed in [swapped, of_another, in_another_state, of_another_organization] {
            assert_eq!(refused(changed), Reason::ContentCorrupt);
        }
        let error = env.values(&KeyRing::ephemeral()).unwrap_err();
        assert_eq!(error.reason(), Reason::KeyMissing);
    }
}
