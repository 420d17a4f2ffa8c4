//! Drift: what reality has become without Terraform, found in a plan and kept attribute by attribute.
//!
//! A secret that is recognised is never written; every value that is written is sealed in its place.

pub(crate) mod check;
pub(crate) mod kinds;
pub(crate) mod life;
mod noise;
pub(crate) mod plan;
pub mod rule;
pub(crate) mod view;

use diesel::{
    pg::Pg,
    prelude::{Queryable, Selectable},
};
use kit::{
    Error, Reason, Result,
    crypto::{KeyRing, OpenError},
    db::About,
    ids::OrgId,
};
use secrecy::ExposeSecret;
use serde_json::Value;
use time::OffsetDateTime;

pub use self::kinds::{Cause, DriftKind, DriftStatus, Severity};
use super::{PrincipalId, PrincipalKind, StateId};
use crate::schema::{drift_changes, drift_logs};

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
        #[derive(Clone, Debug, PartialEq, Eq, Hash, diesel_derive_newtype::DieselNewType)]
        pub struct $name(String);

        impl $name {
            /// The text, if it is one.
            pub fn parse(text: &str) -> Option<Self> {
                let fits = (1..=$most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
                fits.then(|| Self(text.to_owned()))
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
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

/// A resource that has drifted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drifted {
    pub(crate) address: Address,
    pub(crate) kind: DriftKind,
}

/// A keyed hash of what was found where: under the current key first, then under retired ones.
pub(crate) type Prints = Vec<[u8; 32]>;

/// What makes fingerprints: the same value at the same place of the same state has the same one.
#[derive(Clone, Debug)]
pub(crate) struct Printer {
    pub(crate) ring: KeyRing,
    pub(crate) org: OrgId,
    pub(crate) state: StateId,
}

impl Printer {
    /// Of a resource that is gone there is no path and no value.
    pub(crate) fn of(&self, address: &Address, kind: DriftKind, path: &str, value: Option<&Value>) -> Prints {
        let Printer { ring, org, state } = self;
        let value = value.unwrap_or(&Value::Null);
        // Without fingerprints that are the same every time, each check would find everything anew.
        let time = match kit::failpoint::without(&format!("terraform_state.drift_fingerprints/{org}")) {
            true => CheckId::new().to_string(),
            false => String::new(),
        };
        // Of all parts but the last the length is told, so that no two findings have one text.
        let text = format!(
            "{time}{org}|{state}|{}|{}|{}|{}|{}|{value}",
            kind.as_str(),
            address.as_str().len(),
            address.as_str(),
            path.len(),
            path
        );
        ring.hashes("terraform_state drift fingerprint", text.as_bytes())
            .collect()
    }
}

/// A drift log to insert, of a check of a state.
#[derive(Debug)]
pub(crate) struct NewDriftLog {
    pub(crate) id: DriftLogId,
    pub(crate) address: Address,
    pub(crate) resource_type: ResourceType,
    pub(crate) kind: DriftKind,
    pub(crate) path: String,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) masked: bool,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) status: DriftStatus,
    pub(crate) severity: Severity,
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
    /// The check that found it first.
    pub check_id: CheckId,
    /// The resource.
    pub address: Address,
    /// Its type.
    pub resource_type: ResourceType,
    /// What became of it.
    pub kind: DriftKind,
    /// The attribute; empty for a resource that is gone.
    pub path: String,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
    /// Whether the values are left out.
    pub masked: bool,
    /// When it was found first.
    pub detected_at: OffsetDateTime,
    /// Where it stands.
    pub status: DriftStatus,
    /// How bad it is.
    pub severity: Severity,
    /// The check that saw it last.
    pub last_check_id: CheckId,
    /// When that was.
    pub last_seen_at: OffsetDateTime,
    /// How many checks have seen it.
    pub times_seen: i32,
    /// When it was opened or reopened last.
    pub opened_at: OffsetDateTime,
    /// When it was resolved.
    pub resolved_at: Option<OffsetDateTime>,
}

impl About for DriftLog {
    const TYPE: &'static str = "drift_log";

    fn id(&self) -> String {
        self.id.to_string()
    }
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
            let plain = ring
                .open(sealed, &place)
                .map_err(|error| unopened("drift_log", self.id.to_string(), error))?;
            let value = serde_json::from_slice(plain.expose_secret());
            value
                .map(Some)
                .map_err(|_| unopened("drift_log", self.id.to_string(), OpenError::Corrupt))
        };
        Ok([open(&self.before, Side::Before)?, open(&self.after, Side::After)?])
    }
}

/// Why something that was sealed is not shown.
pub(crate) fn unopened(resource: &'static str, id: String, error: OpenError) -> Error {
    let reason = match error {
        OpenError::UnknownKey(_) => Reason::KeyMissing,
        OpenError::Corrupt => Reason::ContentCorrupt,
    };
    Error::new(reason, format!("{resource} {id} cannot be opened"))
        .with("resource", resource)
        .with("id", id)
        .with_source(error)
}

/// Which of a drift log's values is sealed.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// In the state.
    Before,
    /// In reality.
    After,
}

/// What a sealed value is bound to, so that none opens in another's place.
pub(crate) fn place(org: OrgId, state: StateId, log: DriftLogId, side: Side) -> Vec<u8> {
    let column = match side {
        Side::Before => "before",
        Side::After => "after",
    };
    format!("terraform_state.drift_logs|{org}|{state}|{log}|{column}").into_bytes()
}

/// One thing that happened to a drift log.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = drift_changes, check_for_backend(Pg))]
pub struct Change {
    /// 1, 2, 3, … of the state.
    pub number: i64,
    /// The drift log.
    pub drift_log_id: DriftLogId,
    /// Where it stood; `None` where it was new.
    pub before: Option<DriftStatus>,
    /// Where it stands since.
    pub after: DriftStatus,
    /// Why.
    pub reason: String,
    /// What kind of caller did it.
    pub actor_kind: Option<PrincipalKind>,
    /// The caller that did it.
    pub actor_id: Option<PrincipalId>,
    /// The check that did it.
    pub check_id: Option<CheckId>,
    /// When.
    pub changed_at: OffsetDateTime,
}

/// Which drift logs are listed; all given conditions hold.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct DriftFilter {
    /// Only those of this state.
    pub state: Option<StateId>,
    /// Only those that this check saw.
    pub check: Option<CheckId>,
    /// Only those that stand so.
    pub status: Option<DriftStatus>,
    /// Only those that are as bad.
    pub severity: Option<Severity>,
}
