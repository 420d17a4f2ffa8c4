//! Drift: what is asked for, what peers are told, and drift logs.

use api::{
    events::v1::{DriftChecked, DriftedResource},
    terraform_state::v1,
};
use kit::{Error, Result, Violations, crypto::KeyRing, ids, page::PageSize};
use prost::Message;
use prost_types::{ListValue, Struct, value::Kind};
use serde_json::{Number, Value};
use uuid::Uuid;

use super::{list::Asked, timestamp};
use crate::model::{
    StateId,
    drift::{CheckId, DriftFilter, DriftKind, DriftLog, Drifted},
    state::State,
};

/// The most resources of one event.
const MOST_TOLD: usize = 100;
/// The most bytes that they have together; an event has 64 KiB.
const MOST_TOLD_BYTES: usize = 48 << 10;

/// What the first message of a check says beside the plan.
#[derive(Debug)]
pub(crate) struct Detect {
    pub(crate) state: StateId,
    pub(crate) request_id: String,
}

impl TryFrom<v1::DetectDriftRequest> for Detect {
    type Error = Error;

    fn try_from(request: v1::DetectDriftRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::required("state_id", &request.state_id, &mut violations);
        // A stream's request id is looked at only when all of it is here.
        let _: Option<Uuid> = ids::optional("request_id", &request.request_id, &mut violations);
        Ok(Detect {
            state: violations.finish(state)?,
            request_id: request.request_id,
        })
    }
}

impl TryFrom<v1::ListDriftLogsRequest> for Asked<DriftFilter> {
    type Error = Error;

    fn try_from(request: v1::ListDriftLogsRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let filter = DriftFilter {
            state: ids::optional("state_id", &request.state_id, &mut violations),
            check: ids::optional("check_id", &request.check_id, &mut violations),
        };
        let size = PageSize::parse(request.page_size, &mut violations);
        Ok(Asked {
            filter,
            size: violations.finish(size)?,
            token: request.page_token,
        })
    }
}

/// What peers are told of a check: at least one part, so that they hear of none too.
pub(crate) fn parts(state: &State, check: CheckId, resources: &[Drifted]) -> Vec<DriftChecked> {
    let mut parts: Vec<Vec<DriftedResource>> = vec![Vec::new()];
    let mut bytes = 0;
    for resource in resources {
        let told = DriftedResource {
            address: resource.address.clone().into(),
            deleted: resource.kind == DriftKind::Deleted,
        };
        // A tag and a length are before each.
        let length = told.encoded_len() + 4;
        if parts.last().is_some_and(|part| part.len() == MOST_TOLD) || bytes + length > MOST_TOLD_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        parts.last_mut().expect("there is a part").push(told);
    }
    let part = |(part, told)| DriftChecked {
        check_id: check.to_string(),
        state_id: state.id.to_string(),
        state_name: state.name.clone().into(),
        design_id: state.design_id.map(|id| id.to_string()).unwrap_or_default(),
        drifted_resources: count(resources.len()),
        part: count(part),
        resources: told,
    };
    parts.into_iter().enumerate().map(part).collect()
}

/// A number of things of a check, of which there are at most 10,000.
pub(crate) fn count(things: usize) -> i32 {
    i32::try_from(things).expect("a check's things are few")
}

/// A drift log with its values.
///
/// # Errors
/// KEY_MISSING and CONTENT_CORRUPT where they do not open.
pub(crate) fn log(log: DriftLog, ring: &KeyRing) -> Result<v1::DriftLog> {
    let [before, after] = log.values(ring)?.map(|value| value.map(shown));
    Ok(v1::DriftLog {
        id: log.id.to_string(),
        state_id: log.state_id.to_string(),
        check_id: log.check_id.to_string(),
        address: log.address.into(),
        resource_type: log.resource_type.into(),
        kind: match log.kind {
            DriftKind::Changed => v1::DriftKind::Changed,
            DriftKind::Deleted => v1::DriftKind::Deleted,
        }
        .into(),
        path: log.path,
        before,
        after,
        masked: log.masked,
        detected_at: Some(timestamp(log.detected_at)),
    })
}

/// A value; whole numbers beyond a float's exactness are texts of their digits.
pub(crate) fn shown(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => whole(&number),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue {
            values: items.into_iter().map(shown).collect(),
        }),
        Value::Object(object) => Kind::StructValue(Struct {
            fields: object.into_iter().map(|(key, value)| (key, shown(value))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

/// The message's numbers are floats; a number that is none is its digits, as protobuf's JSON writes 64-bit ones.
fn whole(number: &Number) -> Kind {
    /// Below this every whole number is a float.
    const EXACT: u64 = 1 << 53;
    let magnitude = number.as_u64().or(number.as_i64().map(i64::unsigned_abs));
    match number.as_f64() {
        Some(float) if magnitude.is_none_or(|magnitude| magnitude <= EXACT) => Kind::NumberValue(float),
        _ => Kind::StringValue(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_shown_as_they_are_and_no_digit_is_lost() {
        let text = |value: &str| shown(serde_json::from_str(value).unwrap()).kind.unwrap();
        for (number, float) in [
            ("8", 8.0),
            ("-1.5", -1.5),
            ("9007199254740992", 9_007_199_254_740_992.0),
            ("1e300", 1e300),
        ] {
            assert_eq!(text(number), Kind::NumberValue(float));
        }
        for number in ["9007199254740993", "-9007199254740993", "18446744073709551615"] {
            assert_eq!(text(number), Kind::StringValue(number.to_owned()));
        }
        assert_eq!(text("\"größe\""), Kind::StringValue("größe".to_owned()));
        let Kind::StructValue(object) = shown(json!({"a": [true, null]})).kind.unwrap() else {
            panic!("an object is a struct")
        };
        let Some(Kind::ListValue(list)) = object.fields["a"].kind.clone() else {
            panic!("an array is a list")
        };
        let kinds: Vec<_> = list.values.into_iter().map(|value| value.kind.unwrap()).collect();
        assert_eq!(kinds, [Kind::BoolValue(true), Kind::NullValue(0)]);
    }
}
