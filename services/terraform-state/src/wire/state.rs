//! States and versions, in messages.

use api::terraform_state::v1;
use kit::{Error, Result, Violations, ids};
use uuid::Uuid;

use super::{lock::optional_lock_id, timestamp};
use crate::model::{
    StateId, VersionKind,
    lock::LockId,
    state::{NewState, Shown, StateName},
    version::Version,
};

/// The most bytes of an upload's part.
pub(crate) const MOST_PART_BYTES: usize = 1 << 20;

impl TryFrom<v1::CreateStateRequest> for NewState {
    type Error = Error;

    fn try_from(request: v1::CreateStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let name = StateName::parse(&request.name);
        let rule = if request.name.is_empty() {
            "is required"
        } else {
            StateName::RULE
        };
        violations.check(name.is_some(), "name", rule);
        let design = ids::optional("design_id", &request.design_id, &mut violations);
        let name = violations.finish(name)?;
        Ok(NewState { name, design })
    }
}

impl TryFrom<v1::GetStateRequest> for StateId {
    type Error = Error;

    fn try_from(request: v1::GetStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        violations.finish(id)
    }
}

/// A version to read.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) id: StateId,
    /// None for the current one.
    pub(crate) number: Option<i64>,
}

impl TryFrom<v1::DownloadStateRequest> for Download {
    type Error = Error;

    fn try_from(request: v1::DownloadStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        violations.check(request.version >= 0, "version", "must not be negative");
        let id = violations.finish(id)?;
        Ok(Download {
            id,
            number: Some(request.version).filter(|number| *number > 0),
        })
    }
}

/// Where an upload goes: what its first message says beside the first part.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: StateId,
    pub(crate) lock: Option<LockId>,
    pub(crate) md5: Option<[u8; 16]>,
}

impl TryFrom<&v1::UploadStateRequest> for Upload {
    type Error = Error;

    fn try_from(request: &v1::UploadStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        let lock = optional_lock_id("lock_id", &request.lock_id, &mut violations);
        let md5 = <[u8; 16]>::try_from(request.content_md5.as_slice()).ok();
        violations.check(
            md5.is_some() || request.content_md5.is_empty(),
            "content_md5",
            "must have 16 bytes",
        );
        // A stream's request id is looked at only when all of it is here.
        let _: Option<Uuid> = ids::optional("request_id", &request.request_id, &mut violations);
        part(&request.content, &mut violations);
        let id = violations.finish(id)?;
        Ok(Upload { id, lock, md5 })
    }
}

/// Checks a part of an upload.
pub(crate) fn part(content: &[u8], violations: &mut Violations) {
    violations.check(
        content.len() <= MOST_PART_BYTES,
        "content",
        "must have at most 1 MiB in each message",
    );
}

impl From<Shown> for v1::State {
    fn from(shown: Shown) -> Self {
        let Shown { state, version, lock } = shown;
        v1::State {
            id: state.id.to_string(),
            name: state.name.into(),
            design_id: state.design_id.map(|design| design.to_string()).unwrap_or_default(),
            current_version: version.map(Into::into),
            lock: lock.map(Into::into),
            created_at: Some(timestamp(state.created_at)),
            updated_at: Some(timestamp(state.updated_at)),
        }
    }
}

impl From<VersionKind> for v1::StateVersionKind {
    fn from(kind: VersionKind) -> Self {
        match kind {
            VersionKind::Normal => v1::StateVersionKind::Normal,
            VersionKind::Forced => v1::StateVersionKind::Forced,
            VersionKind::Intermediate => v1::StateVersionKind::Intermediate,
            VersionKind::Rollback => v1::StateVersionKind::Rollback,
            VersionKind::Import => v1::StateVersionKind::Import,
        }
    }
}

impl From<Version> for v1::StateVersion {
    fn from(version: Version) -> Self {
        v1::StateVersion {
            number: version.number,
            serial: version.serial,
            lineage: version.lineage,
            kind: v1::StateVersionKind::from(version.kind).into(),
            size_bytes: version.size_bytes,
            terraform_version: version.terraform_version,
            resource_count: version.resource_count,
            author_id: version.author_id.to_string(),
            created_at: Some(timestamp(version.created_at)),
        }
    }
}
