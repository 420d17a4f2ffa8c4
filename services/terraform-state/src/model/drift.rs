//! Drift: what reality has become without Terraform, found in a plan and kept attribute by attribute.
//!
//! A secret that is recognised is never written; every value that is written is sealed in its place.

pub(crate) mod plan;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    prelude::{Insertable, Queryable, Selectable},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::{
    Error, Reason, Result,
    crypto::{KeyRing, OpenError},
    ids::OrgId,
};
use secrecy::ExposeSecret;
use serde_json::Value;
use time::OffsetDateTime;

use self::plan::Drift;
use super::{
    StateId,
    masking::{Difference, Values},
};
use crate::schema::{drift_logs, sql_types::DriftEnum};

kit::id! {
    /// A check for drift.
    CheckId
}
kit::id! {
    /// A drift log; later ones are greater, and of one check's the first is the greatest.
    DriftLogId
}

/// Declares a text of a plan: it has a character, and none that PostgreSQL or a terminal would stumble over.
macro_rules! plan_text {
    ($(#[$doc:meta])* $name:ident, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, diesel_derive_newtype::DieselNewType)]
        pub struct $name(String);

        impl $name {
            /// The text, if it is one.
            pub fn parse(text: &str) -> Option<Self> {
                let fits = (1..=$most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
                fits.then(|| Self(text.to_owned()))
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }
    };
}

plan_text! {
    /// Terraform's address of a resource, with its instance key: 1 to 512 characters.
    Address, 512
}
plan_text! {
    /// Terraform's type of a resource: 1 to 200 characters.
    ResourceType, 200
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
#[diesel(sql_type = DriftEnum)]
pub enum DriftKind {
    /// An attribute has another value.
    Changed,
    /// The object is gone.
    Deleted,
}

impl ToSql<DriftEnum, Pg> for DriftKind {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(match self {
            DriftKind::Changed => b"changed",
            DriftKind::Deleted => b"deleted",
        })?;
        Ok(IsNull::No)
    }
}

impl FromSql<DriftEnum, Pg> for DriftKind {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            b"changed" => Ok(DriftKind::Changed),
            b"deleted" => Ok(DriftKind::Deleted),
            other => Err(format!("{} is no kind of drift", String::from_utf8_lossy(other)).into()),
        }
    }
}

/// A resource that has drifted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drifted {
    pub(crate) address: Address,
    pub(crate) kind: DriftKind,
}

/// What one drift log will say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) address: Address,
    pub(crate) resource_type: ResourceType,
    /// `None` for a resource that is gone.
    pub(crate) difference: Option<Difference>,
}

/// A check that is ready to be written.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) id: CheckId,
    pub(crate) resources: Vec<Drifted>,
    pub(crate) logs: Vec<NewDriftLog>,
}

impl Check {
    /// The check that found this, its values sealed for the state's organization.
    pub(crate) fn new(drift: Drift, ring: &KeyRing, org: OrgId, state: StateId) -> Check {
        let id = CheckId::new();
        // Read newest first, the logs of a check then stand in the plan's order.
        let mut ids: Vec<DriftLogId> = drift.findings.iter().map(|_| DriftLogId::new()).collect();
        ids.reverse();
        let logs = ids.into_iter().zip(drift.findings).map(|(log, finding)| {
            let (kind, masked, path, values) = match finding.difference {
                None => (DriftKind::Deleted, false, String::new(), None),
                Some(Difference { path, values }) => (DriftKind::Changed, values.is_none(), path, values),
            };
            let (before, after) = values.map_or((None, None), |Values { before, after }| (before, after));
            let seal = |value: Option<Value>, side: Side| {
                value.map(|value| ring.seal(value.to_string().as_bytes(), &place(org, state, log, side)))
            };
            NewDriftLog {
                org_id: org,
                id: log,
                state_id: state,
                check_id: id,
                address: finding.address,
                resource_type: finding.resource_type,
                kind,
                path,
                before: seal(before, Side::Before),
                after: seal(after, Side::After),
                masked,
            }
        });
        Check {
            id,
            logs: logs.collect(),
            resources: drift.resources,
        }
    }
}

/// A drift log's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = drift_logs, check_for_backend(Pg))]
pub(crate) struct NewDriftLog {
    pub(crate) org_id: OrgId,
    pub(crate) id: DriftLogId,
    pub(crate) state_id: StateId,
    pub(crate) check_id: CheckId,
    pub(crate) address: Address,
    pub(crate) resource_type: ResourceType,
    pub(crate) kind: DriftKind,
    pub(crate) path: String,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) masked: bool,
}

/// A drift log's row, its values sealed.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = drift_logs, check_for_backend(Pg))]
pub struct DriftLog {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: DriftLogId,
    /// The state that reality is no longer like.
    pub state_id: StateId,
    /// The check that found it.
    pub check_id: CheckId,
    /// The resource.
    pub address: Address,
    /// Its type.
    pub resource_type: ResourceType,
    /// What became of it.
    pub kind: DriftKind,
    /// The attribute; empty for a resource that is gone.
    pub path: String,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    /// Whether the values are left out.
    pub masked: bool,
    /// When it was found.
    pub detected_at: OffsetDateTime,
}

impl DriftLog {
    /// The values in the state and in reality.
    ///
    /// # Errors
    /// KEY_MISSING where the ring lacks their key, CONTENT_CORRUPT where they are not what was sealed here.
    pub fn values(&self, ring: &KeyRing) -> Result<[Option<Value>; 2]> {
        let open = |sealed: &Option<Vec<u8>>, side: Side| {
            let Some(sealed) = sealed else { return Ok(None) };
            let place = place(self.org_id, self.state_id, self.id, side);
            let plain = ring.open(sealed, &place).map_err(|error| self.unopened(error))?;
            let value = serde_json::from_slice(plain.expose_secret());
            value.map(Some).map_err(|_| self.unopened(OpenError::Corrupt))
        };
        Ok([open(&self.before, Side::Before)?, open(&self.after, Side::After)?])
    }

    fn unopened(&self, error: OpenError) -> Error {
        let reason = match error {
            OpenError::UnknownKey(_) => Reason::KeyMissing,
            OpenError::Corrupt => Reason::ContentCorrupt,
        };
        Error::new(reason, format!("drift log {} cannot be opened", self.id))
            .with("resource", "drift_log")
            .with("id", self.id.to_string())
            .with_source(error)
    }
}

#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

/// What a sealed value is bound to, so that none opens in another's place.
fn place(org: OrgId, state: StateId, log: DriftLogId, side: Side) -> Vec<u8> {
    let column = match side {
        Side::Before => "before",
        Side::After => "after",
    };
    format!("terraform_state.drift_logs|{org}|{state}|{log}|{column}").into_bytes()
}

/// Which drift logs are listed; all given conditions hold.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct DriftFilter {
    /// Only those of this state.
    pub state: Option<StateId>,
    /// Only those of this check.
    pub check: Option<CheckId>,
}

/// How many checks there were and what they found, since the service started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    clean: AtomicU64,
    drifted: AtomicU64,
    changed: AtomicU64,
    deleted: AtomicU64,
}

impl Figures {
    /// Counts a check that was written.
    pub(crate) fn count(&self, resources: &[Drifted]) {
        let Counts {
            clean,
            drifted,
            changed,
            deleted,
        } = &*self.0;
        if resources.is_empty() { clean } else { drifted }.fetch_add(1, Relaxed);
        for resource in resources {
            match resource.kind {
                DriftKind::Changed => changed,
                DriftKind::Deleted => deleted,
            }
            .fetch_add(1, Relaxed);
        }
    }

    /// Checks by whether they found drift.
    pub(crate) fn checks(&self) -> Vec<(String, f64)> {
        labelled("drift", [("none", &self.0.clean), ("found", &self.0.drifted)])
    }

    /// Drifted resources by what became of them.
    pub(crate) fn resources(&self) -> Vec<(String, f64)> {
        labelled("kind", [("changed", &self.0.changed), ("deleted", &self.0.deleted)])
    }
}

fn labelled(label: &str, counts: [(&str, &AtomicU64); 2]) -> Vec<(String, f64)> {
    counts
        .map(|(value, count)| (format!("{label}=\"{value}\""), count.load(Relaxed) as f64))
        .to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(new: &NewDriftLog) -> DriftLog {
        DriftLog {
            org_id: new.org_id,
            id: new.id,
            state_id: new.state_id,
            check_id: new.check_id,
            address: new.address.clone(),
            resource_type: new.resource_type.clone(),
            kind: new.kind,
            path: new.path.clone(),
            before: new.before.clone(),
            after: new.after.clone(),
            masked: new.masked,
            detected_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn check(ring: &KeyRing) -> Check {
        let plan = include_str!("../../tests/plans/refresh_only.json");
        let drift = plan::read(plan.as_bytes()).unwrap();
        Check::new(drift, ring, OrgId::new(), StateId::new())
    }

    #[test]
    fn the_logs_of_a_check_stand_in_the_plans_order_when_read_newest_first() {
        let check = check(&KeyRing::ephemeral());
        let paths: Vec<_> = check.logs.iter().map(|log| log.path.as_str()).collect();
        assert_eq!(paths, ["", "password", "size", "tags[\"env\"]", "tags[\"owner\"]"]);
        assert!(check.logs.windows(2).all(|pair| pair[0].id > pair[1].id));
    }

    #[test]
    fn values_open_in_their_own_place_only() {
        let ring = KeyRing::ephemeral();
        let logs: Vec<DriftLog> = check(&ring).logs.iter().map(row).collect();
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
