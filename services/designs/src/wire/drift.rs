//! Drift: terraform_state's events, and what is shown of them.

use api::{
    designs::v1,
    events::v1::{DriftChecked, Event},
};
use kit::{Error, Result};
use time::{Duration, OffsetDateTime};

use super::timestamp;
use crate::model::{
    DriftKind,
    drift::{Address, Checked, Drift},
};

/// What an event's part of a check found; none where the state belongs to no design.
///
/// # Errors
/// INTERNAL for an event that terraform_state does not write.
pub(crate) fn checked(event: &Event, checked: &DriftChecked) -> Result<Option<Checked>> {
    if checked.design_id.is_empty() {
        return Ok(None);
    }
    let at = event.occurred_at.unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(at.seconds)
        .map_err(Error::internal)?
        .checked_add(Duration::nanoseconds(at.nanos.into()))
        .ok_or_else(|| Error::internal("the time of a check is out of range"))?;
    let instances = checked.resources.iter().filter_map(|resource| {
        let kind = if resource.deleted {
            DriftKind::Deleted
        } else {
            DriftKind::Changed
        };
        Some((Address::of_instance(&resource.address)?, kind))
    });
    Ok(Some(Checked {
        check: checked.check_id.parse().map_err(Error::internal)?,
        state: checked.state_id.parse().map_err(Error::internal)?,
        state_name: checked.state_name.clone(),
        design: checked.design_id.parse().map_err(Error::internal)?,
        first: checked.part == 0,
        detected_at: at,
        drifted: Checked::worst(instances),
    }))
}

impl From<Drift> for v1::ResourceDrift {
    fn from(drift: Drift) -> Self {
        let kind = match drift.kind {
            DriftKind::Changed => v1::ResourceDriftKind::Changed,
            DriftKind::Deleted => v1::ResourceDriftKind::Deleted,
        };
        v1::ResourceDrift {
            state_id: drift.state_id.to_string(),
            state_name: drift.state_name,
            kind: kind.into(),
            detected_at: Some(timestamp(drift.detected_at)),
        }
    }
}
