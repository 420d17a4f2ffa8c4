//! Design, state and reality, side by side: for each attribute the three values and what their difference comes from.
//!
//! A value that is marked, or recognised as a secret, on any side is kept back on all of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Address, Cause, ResourceType, noise::settled};
use crate::model::masking::{Found, Side, compare};

/// The most rows of a view.
pub(crate) const MOST_ROWS: usize = 20_000;

/// The values in the design, in the state and in reality.
pub(crate) type Three = [Option<Value>; 3];

/// One attribute, or one resource.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) address: Address,
    pub(crate) resource_type: ResourceType,
    /// Empty for all of the resource.
    pub(crate) path: String,
    pub(crate) cause: Cause,
    /// `None` where they are kept back.
    pub(crate) values: Option<Three>,
}

/// As much of a view as is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) rows: Vec<Row>,
    pub(crate) truncated: bool,
}

/// One resource on its three sides.
pub(crate) struct Sides<'a> {
    pub(crate) address: &'a Address,
    pub(crate) resource_type: &'a ResourceType,
    /// `None` where the design has no such resource.
    pub(crate) design: Option<&'a Value>,
    /// Which of the design's values are not known: `true` for all beneath.
    pub(crate) unknown: &'a Value,
    pub(crate) state: Option<&'a Value>,
    pub(crate) reality: Option<&'a Value>,
    /// Every mark that any side has.
    pub(crate) marks: &'a Value,
    /// Which attributes the configuration says something about; `None` where that is not known.
    pub(crate) said: Option<&'a BTreeSet<String>>,
}

impl View {
    /// Adds what there is to say of a resource; says whether an apply would change what drift has not.
    pub(crate) fn add(&mut self, sides: &Sides<'_>) -> bool {
        let cause = match (sides.design, sides.state, sides.reality) {
            (Some(_), Some(_), Some(_)) => return self.add_attributes(sides),
            (None, None, None) => return false,
            (Some(_), None, None) | (None, Some(_), Some(_)) => Cause::PendingApply,
            (Some(_), Some(_), None) => Cause::Missing,
            (None, Some(_), None) | (Some(_), None, Some(_)) => Cause::AdoptedOutside,
            (None, None, Some(_)) => Cause::Unmanaged,
        };
        self.push(sides, String::new(), cause, Some([None, None, None]));
        cause == Cause::PendingApply
    }

    fn add_attributes(&mut self, sides: &Sides<'_>) -> bool {
        let (Some(wanted), Some(state), Some(reality)) = (sides.design, sides.state, sides.reality) else {
            return false;
        };
        let side = |value| Side {
            value: Some(value),
            marks: Some(sides.marks),
        };
        let reality = &settled(state, side(reality));
        // What the design does not know yet is looked for where the other two differ.
        let design = known(wanted, sides.unknown, reality);
        let design = settled(reality, side(&design));
        let kind = sides.resource_type.as_str();
        let drifted = compare(kind, side(state), side(reality), MOST_ROWS);
        let pending = compare(kind, side(reality), side(&design), MOST_ROWS);
        let planned = compare(kind, side(state), side(&design), MOST_ROWS);
        let of = |found: &[Found<'_>]| -> BTreeSet<String> { found.iter().map(|it| it.path().to_owned()).collect() };
        let (in_drift, in_pending, in_planned) = (of(&drifted), of(&pending), of(&planned));
        let unknown = unknowns(sides.unknown);
        let (before, mut applies) = (self.rows.len() + usize::from(self.truncated), false);
        for found in &drifted {
            let path = found.path();
            let [was, is] = found.sides().map(|side| side.filter(|value| !value.is_null()).cloned());
            let not_known = unknown
                .iter()
                .any(|unknown| within(path, unknown) || within(unknown, path));
            let other = pending.iter().find(|other| other.path() == path);
            let mut masked = found.is_masked() || other.is_some_and(Found::is_masked);
            let (cause, design) = if not_known {
                (Cause::Unknown, None)
            } else if !touches(&in_pending, path) {
                let said = sides.said.is_none_or(|said| said.contains(root(path)));
                if said {
                    (Cause::AdoptedOutside, is.clone())
                } else {
                    (Cause::Drifted, None)
                }
            } else if touches(&in_planned, path) {
                let planned = planned.iter().find(|planned| planned.path() == path);
                masked |= planned.is_some_and(Found::is_masked);
                (Cause::Conflict, planned.and_then(|planned| planned.sides()[1].cloned()))
            } else {
                (Cause::Drifted, was.clone())
            };
            applies |= cause == Cause::Conflict;
            let design = design.filter(|value| !value.is_null());
            self.push(sides, path.to_owned(), cause, (!masked).then_some([design, was, is]));
        }
        for found in pending.iter().filter(|found| !touches(&in_drift, found.path())) {
            let [is, wanted] = found.sides().map(|side| side.filter(|value| !value.is_null()).cloned());
            applies = true;
            let values = (!found.is_masked()).then(|| [wanted, is.clone(), is]);
            self.push(sides, found.path().to_owned(), Cause::PendingApply, values);
        }
        if self.rows.len() + usize::from(self.truncated) == before {
            let cause = if unknown.is_empty() {
                Cause::InSync
            } else {
                Cause::Unknown
            };
            self.push(sides, String::new(), cause, Some([None, None, None]));
        }
        applies
    }

    fn push(&mut self, sides: &Sides<'_>, path: String, cause: Cause, values: Option<Three>) {
        if self.rows.len() == MOST_ROWS {
            self.truncated = true;
            return;
        }
        self.rows.push(Row {
            address: sides.address.clone(),
            resource_type: sides.resource_type.clone(),
            path,
            cause,
            values,
        });
    }
}

/// The design with reality's values where it does not know its own.
fn known(design: &Value, unknown: &Value, reality: &Value) -> Value {
    match (design, unknown, reality) {
        (_, Value::Bool(true), _) => reality.clone(),
        (Value::Object(wanted), Value::Object(unknown), Value::Object(real)) => {
            let mut object = wanted.clone();
            for (key, unknown) in unknown {
                if let Some(value) = real.get(key) {
                    let wanted = wanted.get(key).unwrap_or(&Value::Null);
                    object.insert(key.clone(), known(wanted, unknown, value));
                }
            }
            Value::Object(object)
        }
        (Value::Array(wanted), Value::Array(unknown), Value::Array(real)) => {
            let known = |(index, wanted): (usize, &Value)| match (unknown.get(index), real.get(index)) {
                (Some(unknown), Some(real)) => known(wanted, unknown, real),
                _ => wanted.clone(),
            };
            Value::Array(wanted.iter().enumerate().map(known).collect())
        }
        (Value::Null, Value::Object(unknown), real) if unknown.values().any(|it| it == &Value::Bool(true)) => {
            real.clone()
        }
        _ => design.clone(),
    }
}

/// The attributes of which something is not known.
fn unknowns(unknown: &Value) -> Vec<String> {
    fn any(value: &Value) -> bool {
        match value {
            Value::Bool(unknown) => *unknown,
            Value::Array(items) => items.iter().any(any),
            Value::Object(object) => object.values().any(any),
            Value::Null | Value::Number(_) | Value::String(_) => false,
        }
    }
    let attributes = unknown.as_object().into_iter().flatten();
    attributes
        .filter(|(_, value)| any(value))
        .map(|(key, _)| key.clone())
        .collect()
}

/// The attribute that a path begins with.
pub(crate) fn root(path: &str) -> &str {
    path.split(['[', '.']).next().unwrap_or_default()
}

/// Whether a path is another or lies below it.
fn within(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
}

/// Whether a path is among others, above one, or below one.
fn touches(paths: &BTreeSet<String>, path: &str) -> bool {
    let below = paths
        .range(path.to_owned()..)
        .take_while(|other| other.starts_with(path));
    let mut ends = path.char_indices().filter(|(_, c)| matches!(c, '[' | '.'));
    paths.contains(path)
        || below.into_iter().any(|other| within(other, path))
        || ends.any(|(end, _)| paths.contains(&path[..end]))
}

/// All that either marks.
pub(crate) fn both(one: &Value, other: &Value) -> Value {
    match (one, other) {
        (Value::Bool(true), _) | (_, Value::Bool(true)) => Value::Bool(true),
        (Value::Object(one), Value::Object(other)) => {
            let mut all: Map<String, Value> = one.clone();
            for (key, marks) in other {
                let merged = all.get(key).map_or_else(|| marks.clone(), |mine| both(mine, marks));
                all.insert(key.clone(), merged);
            }
            Value::Object(all)
        }
        (Value::Array(one), Value::Array(other)) => {
            let longest = one.len().max(other.len());
            let at = |items: &[Value], index: usize| items.get(index).cloned().unwrap_or(Value::Null);
            Value::Array(
                (0..longest)
                    .map(|index| both(&at(one, index), &at(other, index)))
                    .collect(),
            )
        }
        (marks @ (Value::Object(_) | Value::Array(_)), Value::Null | Value::Bool(false))
        | (Value::Null | Value::Bool(false), marks) => marks.clone(),
        // Shapes that do not fit one another are not to be told apart.
        _ => Value::Bool(true),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn rows(design: Option<Value>, state: Option<Value>, reality: Option<Value>, unknown: Value) -> Vec<String> {
        let mut view = View::default();
        view.add(&Sides {
            address: &Address::parse("a.b").unwrap(),
            resource_type: &ResourceType::parse("a").unwrap(),
            design: design.as_ref(),
            unknown: &unknown,
            state: state.as_ref(),
            reality: reality.as_ref(),
            marks: &json!({"password": true}),
            said: Some(&["size", "tags", "password", "arn"].map(str::to_owned).into()),
        });
        let text = |value: Option<Value>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let line = |row: Row| {
            let values = row
                .values
                .map_or_else(|| "masked".to_owned(), |three| three.map(text).join(" "));
            format!("{} {} {values}", row.cause.as_str(), row.path)
        };
        view.rows.into_iter().map(line).collect()
    }

    #[test]
    fn each_attribute_has_a_cause() {
        let all = |design: Value, state: Value, reality: Value| {
            rows(Some(design), Some(state), Some(reality), json!({"arn": true}))
        };
        let one = |n: i32| json!({"size": n, "arn": "x"});
        assert_eq!(
            rows(Some(one(1)), Some(one(1)), Some(one(1)), json!({})),
            ["in_sync  - - -"]
        );
        assert_eq!(all(one(2), one(1), one(1)), ["pending_apply size 2 1 1"]);
        assert_eq!(all(one(1), one(1), one(2)), ["drifted size 1 1 2"]);
        assert_eq!(all(one(2), one(1), one(2)), ["adopted_outside size 2 1 2"]);
        assert_eq!(all(one(3), one(1), one(2)), ["conflict size 3 1 2"]);
        // The design says nothing of it, and so keeps what is there.
        let quiet = |value: &str| json!({"computed": value});
        assert_eq!(
            all(quiet("y"), quiet("x"), quiet("y")),
            ["drifted computed - \"x\" \"y\""]
        );
        let arn = |arn: &str| json!({"arn": arn});
        assert_eq!(all(json!({}), arn("x"), arn("y")), ["unknown arn - \"x\" \"y\""]);
        assert_eq!(all(json!({}), arn("x"), arn("x")), ["unknown  - - -"]);
        let password = |text: &str| json!({"password": text});
        assert_eq!(
            all(password("ccc"), password("aaa"), password("bbb")),
            ["conflict password masked"]
        );
        assert_eq!(
            all(
                json!({"tags": {"a": 1}}),
                json!({"tags": {"a": 1}}),
                json!({"tags": {"a": 1, "b": 2}})
            ),
            ["drifted tags[\"b\"] - - 2"]
        );
        assert_eq!(
            all(
                json!({"tags": {"a": 1}}),
                json!({"tags": {"a": 1}}),
                json!({"tags": null})
            ),
            ["drifted tags[\"a\"] 1 1 -"]
        );
    }

    #[test]
    fn each_resource_that_is_not_everywhere_has_a_cause() {
        let x = || Some(json!({"size": 1}));
        let of = |design, state, reality| rows(design, state, reality, Value::Null);
        assert_eq!(of(x(), None, None), ["pending_apply  - - -"]);
        assert_eq!(of(None, x(), x()), ["pending_apply  - - -"]);
        assert_eq!(of(x(), x(), None), ["missing  - - -"]);
        assert_eq!(of(None, x(), None), ["adopted_outside  - - -"]);
        assert_eq!(of(None, None, x()), ["unmanaged  - - -"]);
    }

    #[test]
    fn marks_of_all_sides_count() {
        let merged = both(
            &json!({"a": {"b": true}, "c": [null, true]}),
            &json!({"a": {"d": true}, "c": [true]}),
        );
        assert_eq!(merged, json!({"a": {"b": true, "d": true}, "c": [true, true]}));
        assert_eq!(both(&json!({"a": true}), &json!(true)), json!(true));
        assert_eq!(both(&json!(false), &json!({"a": true})), json!({"a": true}));
        assert_eq!(both(&json!({"a": true}), &json!([true])), json!(true));
    }
}
