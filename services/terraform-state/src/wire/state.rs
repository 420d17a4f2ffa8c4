//! States and versions, in messages.

use api::terraform_state::v1;
use kit::{Error, Result, Violations, ids, mask::Mask};
use uuid::Uuid;

use super::{lock::optional_lock_id, timestamp};
use crate::model::{
    StateId, VersionKind,
    lock::LockId,
    resource::Resource,
    retention::Retention,
    state::{Etag, Labels, NewState, Shown, StateChange, StateName},
    version::{Listed, Version},
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

/// The fields of a state that an update writes.
const WRITABLE: [&str; 3] = ["design_id", "labels", "retention"];

/// A change to a state that was seen at an etag.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) id: StateId,
    pub(crate) etag: Etag,
    pub(crate) change: StateChange,
}

fn etag(text: String, violations: &mut Violations) -> Option<Etag> {
    let etag = Etag::parse(text);
    violations.check(etag.is_some(), "etag", "must have at most 64 characters");
    etag
}

impl TryFrom<v1::UpdateStateRequest> for Update {
    type Error = Error;

    fn try_from(request: v1::UpdateStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        violations.check(!request.etag.is_empty(), "etag", "is required");
        let etag = etag(request.etag, &mut violations);
        let mask = Mask::parse(request.update_mask.as_ref(), &WRITABLE, &mut violations);
        violations.check(request.state.is_some(), "state", "is required");
        let mut change = StateChange::default();
        if let (Some(mask), Some(state)) = (mask, request.state) {
            if mask.has("design_id") {
                change.design = Some(ids::optional("state.design_id", &state.design_id, &mut violations));
            }
            if mask.has("labels") {
                change.labels = Some(labels(state.labels, &mut violations));
            }
            if mask.has("retention") {
                change.retention = Some(retention(state.retention.unwrap_or_default(), &mut violations));
            }
        }
        let (id, etag) = violations.finish(id.zip(etag))?;
        Ok(Update { id, etag, change })
    }
}

fn labels(asked: Vec<v1::Label>, violations: &mut Violations) -> Labels {
    let mut labels = Labels::default();
    violations.check(asked.len() <= Labels::MOST, "state.labels", "must be at most 64");
    for (index, label) in asked.into_iter().enumerate().take(Labels::MOST) {
        let (key, value) = labels.add(label.key, label.value);
        violations.check(key, &format!("state.labels[{index}].key"), Labels::KEY);
        violations.check(value, &format!("state.labels[{index}].value"), Labels::VALUE);
    }
    labels
}

fn retention(asked: v1::Retention, violations: &mut Violations) -> Retention {
    let (versions, days, weeks) = Retention::MOST;
    for (field, number, most) in [
        ("state.retention.keep_versions", asked.keep_versions, versions),
        ("state.retention.keep_days", asked.keep_days, days),
        ("state.retention.keep_weeks", asked.keep_weeks, weeks),
    ] {
        violations.check(
            (0..=most).contains(&number),
            field,
            &format!("must be from 0 to {most}"),
        );
    }
    violations.check(
        asked.keep_versions != 0 || (asked.keep_days == 0 && asked.keep_weeks == 0),
        "state.retention.keep_versions",
        "must be given with days or weeks: without it all versions are kept",
    );
    Retention {
        keep_versions: Some(asked.keep_versions).filter(|number| *number > 0),
        keep_days: asked.keep_days,
        keep_weeks: asked.keep_weeks,
    }
}

impl From<Retention> for v1::Retention {
    fn from(retention: Retention) -> Self {
        v1::Retention {
            keep_versions: retention.keep_versions.unwrap_or_default(),
            keep_days: retention.keep_days,
            keep_weeks: retention.keep_weeks,
        }
    }
}

/// A state to delete, if it still has the etag.
#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) id: StateId,
    pub(crate) etag: Etag,
}

impl TryFrom<v1::DeleteStateRequest> for Delete {
    type Error = Error;

    fn try_from(request: v1::DeleteStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        let etag = etag(request.etag, &mut violations);
        let (id, etag) = violations.finish(id.zip(etag))?;
        Ok(Delete { id, etag })
    }
}

impl TryFrom<v1::UndeleteStateRequest> for StateId {
    type Error = Error;

    fn try_from(request: v1::UndeleteStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        violations.finish(id)
    }
}

impl From<Resource> for v1::StateResource {
    fn from(resource: Resource) -> Self {
        v1::StateResource {
            state_id: resource.state.to_string(),
            state_name: resource.state_name.into(),
            address: resource.address,
            r#type: resource.resource_type,
            provider: resource.provider,
            module: resource.module,
            instances: resource.instances,
        }
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
        let etag = state.etag().into();
        v1::State {
            id: state.id.to_string(),
            name: state.name.into(),
            design_id: state.design_id.map(|design| design.to_string()).unwrap_or_default(),
            current_version: version.map(Into::into),
            lock: lock.map(Into::into),
            created_at: Some(timestamp(state.created_at)),
            updated_at: Some(timestamp(state.updated_at)),
            etag,
            retention: Some(state.retention.into()),
            labels: state
                .labels
                .into_pairs()
                .map(|(key, value)| v1::Label { key, value })
                .collect(),
            deleted_at: state.deleted_at.map(timestamp),
            unlisted_resources: state.unlisted_resources,
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
        Listed::from(version).into()
    }
}

impl From<Listed> for v1::StateVersion {
    fn from(version: Listed) -> Self {
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
