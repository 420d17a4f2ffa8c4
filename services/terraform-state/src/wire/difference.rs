//! What is different between states, and outputs, in messages.

use api::terraform_state::v1;
use kit::{Error, Result, Violations, crypto::KeyRing, ids, ids::OrgId};
use prost::Message;
use serde_json::Value;

use super::value::shown;
use crate::model::{
    StateId,
    difference::{AttributeDifference, InstanceDifference, Kind, Layout, Output, OutputDifference},
    masking::Values,
};

/// The most instances, and the most outputs, that are told.
const MOST_TOLD: usize = 1_000;
/// The most bytes that they have together.
const MOST_TOLD_BYTES: usize = 3 << 20;
/// Of a keyed hash so much is told: enough to tell any two values apart.
const HASH_BYTES: usize = 16;

/// A version of a state; none for the current one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) state: StateId,
    pub(crate) number: Option<i64>,
}

/// What is compared.
#[derive(Debug)]
pub(crate) struct Compare {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) prefix: String,
}

fn number(field: &str, number: i64, violations: &mut Violations) -> Option<i64> {
    violations.check(number >= 0, field, "must not be negative");
    Some(number).filter(|number| *number > 0)
}

impl TryFrom<v1::DiffStateVersionsRequest> for Compare {
    type Error = Error;

    fn try_from(request: v1::DiffStateVersionsRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::required("state_id", &request.state_id, &mut violations);
        let to = ids::optional("to_state_id", &request.to_state_id, &mut violations);
        let from_number = number("from_version", request.from_version, &mut violations);
        let to_number = number("to_version", request.to_version, &mut violations);
        violations.length("address_prefix", &request.address_prefix, 0, 1000);
        let state = violations.finish(state)?;
        Ok(Compare {
            from: End {
                state,
                number: from_number,
            },
            to: End {
                state: to.unwrap_or(state),
                number: to_number,
            },
            prefix: request.address_prefix,
        })
    }
}

impl TryFrom<v1::GetOutputsRequest> for End {
    type Error = Error;

    fn try_from(request: v1::GetOutputsRequest) -> Result<Self> {
        End::parse(&request.state_id, request.version)
    }
}

impl TryFrom<v1::RevealOutputsRequest> for End {
    type Error = Error;

    fn try_from(request: v1::RevealOutputsRequest) -> Result<Self> {
        End::parse(&request.state_id, request.version)
    }
}

impl End {
    fn parse(state: &str, version: i64) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::required("state_id", state, &mut violations);
        let number = number("version", version, &mut violations);
        let state = violations.finish(state)?;
        Ok(End { state, number })
    }
}

/// The version to go back to.
#[derive(Debug)]
pub(crate) struct Rollback {
    pub(crate) id: StateId,
    pub(crate) number: i64,
    /// The current one, as the caller saw it.
    pub(crate) current: Option<i64>,
    pub(crate) dry_run: bool,
    pub(crate) accept_unsafe_plans: bool,
}

impl TryFrom<v1::RollbackStateRequest> for Rollback {
    type Error = Error;

    fn try_from(request: v1::RollbackStateRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("state_id", &request.state_id, &mut violations);
        violations.check(request.version > 0, "version", "is required and must be positive");
        let current = number("current_version", request.current_version, &mut violations);
        Ok(Rollback {
            id: violations.finish(id)?,
            number: request.version,
            current,
            dry_run: request.dry_run,
            accept_unsafe_plans: request.accept_unsafe_plans,
        })
    }
}

/// An output; revealed, or as it may be shown to anyone.
pub(crate) fn output((name, output): (String, Output), reveal: bool) -> v1::Output {
    let masked = !reveal && output.is_masked(&name);
    v1::Output {
        name,
        r#type: output.of_type,
        value: (!masked).then(|| shown(output.value)),
        sensitive: output.sensitive,
        masked,
    }
}

/// All that is different, as far as an answer has room for it.
pub(crate) fn diff(before: &Layout<'_>, after: &Layout<'_>, prefix: &str, ring: &KeyRing, org: OrgId) -> v1::StateDiff {
    let mut diff = v1::StateDiff::default();
    let mut bytes = 0;
    let mut room = |message: &dyn Fn() -> usize, told: usize| {
        // A tag and a length are before each; what does not fit is counted, and so is all behind it.
        if told < MOST_TOLD && bytes <= MOST_TOLD_BYTES {
            bytes += message() + 6;
        }
        told < MOST_TOLD && bytes <= MOST_TOLD_BYTES
    };
    if prefix.is_empty() {
        for output in before.outputs(after) {
            let output = v1::OutputDifference::from(output);
            if room(&|| output.encoded_len(), diff.outputs.len()) {
                diff.outputs.push(output);
            } else {
                diff.unlisted_outputs = diff.unlisted_outputs.saturating_add(1);
            }
        }
    }
    for instance in before.instances(after, prefix, ring, org) {
        let Some(instance) = instance else {
            diff.unchanged = diff.unchanged.saturating_add(1);
            continue;
        };
        let count = match instance.kind {
            Kind::Added => &mut diff.added,
            Kind::Removed => &mut diff.removed,
            Kind::Changed => &mut diff.changed,
        };
        *count = count.saturating_add(1);
        let instance = v1::InstanceDifference::from(instance);
        if room(&|| instance.encoded_len(), diff.instances.len()) {
            diff.instances.push(instance);
        } else {
            diff.unlisted_instances = diff.unlisted_instances.saturating_add(1);
        }
    }
    diff
}

impl From<Kind> for v1::DifferenceKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Added => v1::DifferenceKind::Added,
            Kind::Removed => v1::DifferenceKind::Removed,
            Kind::Changed => v1::DifferenceKind::Changed,
        }
    }
}

fn values(values: Option<Values>) -> [Option<prost_types::Value>; 2] {
    let value = |value: Option<Value>| value.map(shown);
    values.map_or([None, None], |Values { before, after }| [value(before), value(after)])
}

impl From<OutputDifference> for v1::OutputDifference {
    fn from(output: OutputDifference) -> Self {
        let masked = output.values.is_none();
        let [before, after] = values(output.values);
        v1::OutputDifference {
            name: output.name,
            kind: v1::DifferenceKind::from(output.kind).into(),
            before,
            after,
            masked,
        }
    }
}

impl From<AttributeDifference> for v1::AttributeDifference {
    fn from(attribute: AttributeDifference) -> Self {
        let masked = attribute.values.is_none();
        let [before, after] = values(attribute.values);
        let hash = |hash: Option<[u8; 32]>| hash.map_or_else(Vec::new, |hash| hash[..HASH_BYTES].to_vec());
        let [before_hash, after_hash] = attribute.hashes.map(hash);
        v1::AttributeDifference {
            path: attribute.path,
            before,
            after,
            masked,
            before_hash,
            after_hash,
        }
    }
}

impl From<InstanceDifference> for v1::InstanceDifference {
    fn from(instance: InstanceDifference) -> Self {
        let [tainted_before, tainted_after] = instance.tainted;
        v1::InstanceDifference {
            address: instance.address,
            r#type: instance.resource_type,
            kind: v1::DifferenceKind::from(instance.kind).into(),
            deposed_key: instance.deposed,
            attributes: instance.attributes.into_iter().map(Into::into).collect(),
            more_attributes: instance.more_attributes,
            private_changed: instance.private_changed,
            tainted_before,
            tainted_after,
        }
    }
}
