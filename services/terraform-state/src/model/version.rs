//! Versions: what Terraform says of them, and when one may follow another.

use diesel::prelude::{Queryable, Selectable};
use kit::{Error, Reason, Result};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{PrincipalId, VersionKind, lock::LockId};
use crate::schema::state_versions;

/// A version as it stands in its row, without its content.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = state_versions)]
pub struct Version {
    /// 1, 2, 3, … of its state.
    pub number: i64,
    /// What its chunks are sealed to.
    pub id: Uuid,
    /// Terraform's serial.
    pub serial: i64,
    /// Terraform's lineage.
    pub lineage: String,
    /// Why it was written.
    pub kind: VersionKind,
    /// Length of its content.
    pub size_bytes: i64,
    /// How many chunks it has.
    pub chunks: i32,
    /// Keyed hash of its content.
    pub content_hash: Vec<u8>,
    /// The Terraform that wrote it.
    pub terraform_version: String,
    /// How many managed instances it holds; -1 where it is opaque.
    pub resource_count: i32,
    /// Whether it holds neither resources nor outputs.
    pub blank: bool,
    /// Who wrote it.
    pub author_id: PrincipalId,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// The lock that it was written under.
    pub lock_id: Option<LockId>,
    /// What its chunks are sealed to beside; another one whenever its chunks are others.
    pub body_id: Uuid,
    /// Opens its chunks; sealed. None as long as the content stands as it did before there were data keys.
    pub data_key: Option<Vec<u8>>,
    /// The newer version that its content is told by; none where it is whole.
    pub base_number: Option<i64>,
    /// The newer version that it was weighed against when that was decided.
    pub weighed_number: Option<i64>,
    /// Bytes of its chunks.
    pub stored_bytes: i64,
}

/// A version as lists show it.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = state_versions)]
pub struct Listed {
    /// 1, 2, 3, … of its state.
    pub number: i64,
    /// Terraform's serial.
    pub serial: i64,
    /// Terraform's lineage.
    pub lineage: String,
    /// Why it was written.
    pub kind: VersionKind,
    /// Length of its content.
    pub size_bytes: i64,
    /// The Terraform that wrote it.
    pub terraform_version: String,
    /// How many managed instances it holds; -1 where it is opaque.
    pub resource_count: i32,
    /// Who wrote it.
    pub author_id: PrincipalId,
    /// When it was written.
    pub created_at: OffsetDateTime,
}

impl From<Version> for Listed {
    fn from(version: Version) -> Self {
        Listed {
            number: version.number,
            serial: version.serial,
            lineage: version.lineage,
            kind: version.kind,
            size_bytes: version.size_bytes,
            terraform_version: version.terraform_version,
            resource_count: version.resource_count,
            author_id: version.author_id,
            created_at: version.created_at,
        }
    }
}

/// What a state says of itself at its top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Terraform's serial.
    pub serial: i64,
    /// Terraform's lineage; at most 200 characters.
    pub lineage: String,
    /// The Terraform that wrote it; at most 64 characters.
    pub terraform_version: String,
    /// How many managed instances it holds; -1 where it is opaque.
    pub resource_count: i32,
    /// Whether it holds neither resources nor outputs.
    pub blank: bool,
}

/// What is to become of a state that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the current version already: a repeat of a write whose answer was lost.
    Repeated,
    /// It is the next version.
    Next(VersionKind),
}

/// Whether a state may follow the current one. `same` says that both have the same bytes, `forced` that the caller may
/// go over the rules and holds a lock for doing so.
///
/// # Errors
/// SERIAL_CONFLICT.
pub fn judge(current: Option<&Version>, new: &Heading, same: bool, forced: bool) -> Result<Verdict> {
    let Some(current) = current else {
        return Ok(Verdict::Next(VersionKind::Normal));
    };
    let kin = current.lineage == new.lineage;
    if same && kin && current.serial == new.serial {
        return Ok(Verdict::Repeated);
    }
    if current.blank || (kin && new.serial > current.serial) {
        return Ok(Verdict::Next(VersionKind::Normal));
    }
    if forced {
        return Ok(Verdict::Next(VersionKind::Forced));
    }
    let message = if kin {
        "the serial does not grow: another write came first"
    } else {
        "the lineage is another one: this is not the same state"
    };
    Err(Error::new(Reason::SerialConflict, message)
        .with("current_serial", current.serial.to_string())
        .with("current_lineage", current.lineage.clone())
        .with("serial", new.serial.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heading(serial: i64, lineage: &str) -> Heading {
        Heading {
            serial,
            lineage: lineage.to_owned(),
            terraform_version: String::new(),
            resource_count: 1,
            blank: false,
        }
    }

    fn version(serial: i64, blank: bool) -> Version {
        Version {
            number: 1,
            id: Uuid::nil(),
            serial,
            lineage: "a".to_owned(),
            kind: VersionKind::Normal,
            size_bytes: 1,
            chunks: 1,
            content_hash: Vec::new(),
            terraform_version: String::new(),
            resource_count: 0,
            blank,
            author_id: PrincipalId(Uuid::nil()),
            created_at: OffsetDateTime::UNIX_EPOCH,
            lock_id: None,
            body_id: Uuid::nil(),
            data_key: None,
            base_number: None,
            weighed_number: None,
            stored_bytes: 1,
        }
    }

    #[test]
    fn what_may_follow_what() {
        use VersionKind::{Forced, Normal};
        let full = version(5, false);
        let blank = version(5, true);
        let next = |kind| Some(Verdict::Next(kind));
        for (current, serial, lineage, same, forced, expected) in [
            (None, 0, "b", false, false, next(Normal)),
            (Some(&full), 6, "a", false, false, next(Normal)),
            (Some(&full), 90, "a", false, false, next(Normal)),
            (Some(&full), 5, "a", true, false, Some(Verdict::Repeated)),
            (Some(&full), 5, "a", false, false, None),
            (Some(&full), 4, "a", false, false, None),
            (Some(&full), 6, "b", false, false, None),
            (Some(&full), 5, "a", false, true, next(Forced)),
            (Some(&full), 1, "b", false, true, next(Forced)),
            // A push that keeps to the rules is none.
            (Some(&full), 6, "a", false, true, next(Normal)),
            (Some(&blank), 1, "b", false, false, next(Normal)),
            (Some(&blank), 5, "a", true, false, Some(Verdict::Repeated)),
        ] {
            let verdict = judge(current, &heading(serial, lineage), same, forced);
            assert_eq!(verdict.ok(), expected, "{serial} {lineage} {same} {forced}");
        }
    }
}
