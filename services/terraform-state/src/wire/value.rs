//! JSON as protobuf's own kind of it.

use prost_types::{ListValue, Struct, value::Kind};
use serde_json::{Number, Value};

/// A value as a message.
pub(super) fn shown(value: Value) -> prost_types::Value {
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
