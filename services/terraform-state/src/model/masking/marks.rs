//! Terraform's marks in a state: paths to what is sensitive, made into the shape of the value.
//!
//! What cannot be read of a path marks everything from there on.

use serde_json::{Map, Value};

/// More elements of a list are not told apart: all of them are marked.
const MOST_ELEMENTS: usize = 10_000;

/// The marks of a state's `sensitive_attributes`, in the shape that plans give them: `true` for all beneath, or an
/// object or list as far as something in it is marked.
pub(crate) fn marks(paths: &Value) -> Value {
    let mut marks = Value::Null;
    match paths {
        Value::Null => {}
        Value::Array(paths) => paths.iter().for_each(|path| match path {
            Value::Array(steps) => mark(&mut marks, steps),
            _ => marks = Value::Bool(true),
        }),
        _ => marks = Value::Bool(true),
    }
    marks
}

fn mark(marks: &mut Value, steps: &[Value]) {
    if *marks == Value::Bool(true) {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        *marks = Value::Bool(true);
        return;
    };
    match key(step) {
        Some(Key::Name(name)) => {
            if marks.is_null() {
                *marks = Value::Object(Map::new());
            }
            match marks {
                Value::Object(fields) => mark(fields.entry(name).or_insert(Value::Null), rest),
                other => *other = Value::Bool(true),
            }
        }
        Some(Key::Index(index)) => {
            if marks.is_null() {
                *marks = Value::Array(Vec::new());
            }
            match marks {
                Value::Array(items) => {
                    if items.len() <= index {
                        items.resize(index + 1, Value::Null);
                    }
                    mark(&mut items[index], rest);
                }
                other => *other = Value::Bool(true),
            }
        }
        None => *marks = Value::Bool(true),
    }
}

enum Key<'a> {
    Name(&'a str),
    Index(usize),
}

/// One step: `{"type":"get_attr","value":"name"}` or `{"type":"index","value":{"value":0,"type":"number"}}`.
fn key(step: &Value) -> Option<Key<'_>> {
    let value = step.get("value")?;
    match step.get("type")?.as_str()? {
        "get_attr" => value.as_str().map(Key::Name),
        "index" => match value.get("value")? {
            Value::String(name) => Some(Key::Name(name)),
            Value::Number(index) => {
                let index = usize::try_from(index.as_u64()?).ok()?;
                (index < MOST_ELEMENTS).then_some(Key::Index(index))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_become_the_shape_of_what_they_mark() {
        let attr = |name: &str| json!({"type": "get_attr", "value": name});
        let index = |index: Value| json!({"type": "index", "value": {"value": index, "type": "any"}});
        let paths = json!([
            [attr("password")],
            [attr("tags"), index(json!("owner"))],
            [attr("rules"), index(json!(1)), attr("key")],
        ]);
        let expected = json!({"password": true, "tags": {"owner": true}, "rules": [null, {"key": true}]});
        assert_eq!(marks(&paths), expected);
        assert_eq!(marks(&Value::Null), Value::Null);
        assert_eq!(marks(&json!([])), Value::Null);
    }

    #[test]
    fn what_cannot_be_read_marks_everything_from_there_on() {
        let attr = |name: &str| json!({"type": "get_attr", "value": name});
        for (paths, expected) in [
            (json!("x"), json!(true)),
            (json!(["x"]), json!(true)),
            (json!([[]]), json!(true)),
            (json!([[attr("a"), {"type": "splat"}]]), json!({"a": true})),
            (
                json!([[attr("a"), {"type": "index", "value": {"value": 1e9 as u64, "type": "number"}}]]),
                json!({"a": true}),
            ),
            (
                json!([[attr("a"), attr("b")], [attr("a"), {"type": "index", "value": {"value": 0}}]]),
                json!({"a": true}),
            ),
            (json!([[attr("a")], [attr("a"), attr("b")]]), json!({"a": true})),
        ] {
            assert_eq!(marks(&paths), expected, "{paths}");
        }
    }
}
