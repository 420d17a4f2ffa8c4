//! What a provider only writes differently: another order of the same elements, the same JSON in another layout.
//!
//! `""` for `null` and `{}` for nothing are the same to `masking` already.

use serde_json::{Map, Value};

use crate::model::masking::Side;

/// The longest text that is read as JSON.
const MOST_TEXT: usize = 256 << 10;

/// The second side as it would be if the provider wrote it as the first is written; values that differ are kept.
/// What Terraform marks keeps its place, since marks go by place.
pub(crate) fn settled(before: &Value, after: Side<'_>) -> Value {
    let Some(value) = after.value else {
        return Value::Null;
    };
    settle(before, value, after.marks)
}

fn settle(before: &Value, after: &Value, marks: Option<&Value>) -> Value {
    match (before, after) {
        (Value::Object(was), Value::Object(is)) => {
            let settled = is.iter().map(|(key, value)| {
                let marks = marks.and_then(|marks| marks.get(key));
                let value = was
                    .get(key)
                    .map_or_else(|| value.clone(), |was| settle(was, value, marks));
                (key.clone(), value)
            });
            Value::Object(settled.collect::<Map<_, _>>())
        }
        (Value::Array(was), Value::Array(is)) => {
            if !marked(marks) && was.len() == is.len() && sorted(was) == sorted(is) {
                return before.clone();
            }
            // An element that came or went shifts the others; only what kept its place is settled.
            if was.len() != is.len() {
                return after.clone();
            }
            let pairs = was.iter().zip(is).enumerate();
            let settled = pairs.map(|(index, (was, is))| settle(was, is, marks.and_then(|marks| marks.get(index))));
            Value::Array(settled.collect())
        }
        (Value::String(was), Value::String(is)) => match (document(was), document(is)) {
            (Some(one), Some(other)) if plain(&one) == plain(&other) => before.clone(),
            _ => after.clone(),
        },
        _ => after.clone(),
    }
}

/// Whether something in the shape of marks is one.
fn marked(marks: Option<&Value>) -> bool {
    match marks {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => items.iter().any(|item| marked(Some(item))),
        Some(Value::Object(object)) => object.values().any(|value| marked(Some(value))),
        Some(_) => true,
    }
}

/// The elements in an order of their own.
fn sorted(items: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = items.iter().map(|item| plain(item).to_string()).collect();
    texts.sort_unstable();
    texts
}

/// A value without what is nothing, so that two that mean the same are the same.
fn plain(value: &Value) -> Value {
    let nothing = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match value {
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        Value::Object(object) => {
            let kept = object.iter().map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(kept.filter(|(_, value)| !nothing(value)).collect())
        }
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 => Value::from(float as i64),
            _ => value.clone(),
        },
        Value::String(_) | Value::Bool(_) | Value::Null => value.clone(),
    }
}

/// The JSON object or list that a text is.
fn document(text: &str) -> Option<Value> {
    let trimmed = text.trim_start();
    if text.len() > MOST_TEXT || !trimmed.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(trimmed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settles(before: Value, after: Value, marks: Value) -> bool {
        let side = Side {
            value: Some(&after),
            marks: Some(&marks),
        };
        settled(&before, side) == before
    }

    #[test]
    fn another_order_and_another_layout_are_no_difference() {
        let policy = r#"{"Version":"2012","Statement":[{"Action":"a"}]}"#;
        let laid_out = "{\n \"Statement\": [ {\"Action\": \"a\"} ],\n \"Version\": \"2012\" }";
        for (before, after) in [
            (json!({"ports": [1, 2, 3]}), json!({"ports": [3, 1, 2]})),
            (
                json!({"r": [{"a": 1, "b": null}, {"a": 2}]}),
                json!({"r": [{"a": 2}, {"a": 1.0, "b": ""}]}),
            ),
            (json!({"policy": policy}), json!({"policy": laid_out})),
            (
                json!({"deep": [{"policy": policy}]}),
                json!({"deep": [{"policy": laid_out}]}),
            ),
        ] {
            assert!(settles(before.clone(), after, json!({})), "{before}");
        }
    }

    #[test]
    fn what_differs_stays_and_what_is_marked_keeps_its_place() {
        for (before, after, marks) in [
            (json!({"ports": [1, 2]}), json!({"ports": [1, 3]}), json!({})),
            (json!({"ports": [1, 1, 2]}), json!({"ports": [1, 2, 2]}), json!({})),
            (json!({"ports": [1]}), json!({"ports": [1, 1]}), json!({})),
            (json!({"p": "{\"a\":1}"}), json!({"p": "{\"a\":2}"}), json!({})),
            (json!({"p": "{a"}), json!({"p": "{ a"}), json!({})),
            (
                json!({"p": ["x", "y"]}),
                json!({"p": ["y", "x"]}),
                json!({"p": [true, false]}),
            ),
        ] {
            assert!(!settles(before.clone(), after, marks), "{before}");
        }
    }
}
