//! `google.protobuf.Struct` to JSON and back, without loss.

use std::fmt::Write;

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Number, Value as Json};

use crate::model::canvas::DEEPEST;

/// Where in a structure a value stands.
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Reads a structure; what is wrong is told to `wrong` with its path, which begins with `field`.
pub(crate) fn read(field: &str, structure: Struct, wrong: &mut dyn FnMut(String, &str)) -> Map<String, Json> {
    let mut reader = Reader {
        field,
        wrong,
        too_deep: false,
    };
    reader.object(
        structure,
        &Path {
            step: None,
            parent: None,
            depth: 1,
        },
    )
}

/// The steps to a value, from the innermost out: nothing is written down unless something is wrong.
struct Path<'a> {
    step: Option<Step<'a>>,
    parent: Option<&'a Path<'a>>,
    depth: usize,
}

impl<'a> Path<'a> {
    fn then(&'a self, step: Step<'a>) -> Path<'a> {
        Path {
            step: Some(step),
            parent: Some(self),
            depth: self.depth + 1,
        }
    }

    fn write(&self, text: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(text);
        }
        match &self.step {
            None => {}
            Some(Step::Key(key)) => {
                text.push('.');
                text.extend(key.chars().map(|c| if c.is_control() { '?' } else { c }).take(64));
            }
            Some(Step::Index(index)) => write!(text, "[{index}]").expect("a string takes everything"),
        }
    }
}

struct Reader<'a> {
    field: &'a str,
    wrong: &'a mut dyn FnMut(String, &str),
    too_deep: bool,
}

impl Reader<'_> {
    /// `path` is that of the object, and its depth how many containers deep it is.
    fn object(&mut self, structure: Struct, path: &Path<'_>) -> Map<String, Json> {
        if !self.fits(path) {
            return Map::new();
        }
        let read = structure.fields.into_iter().map(|(key, value)| {
            let json = self.value(value, &path.then(Step::Key(&key)));
            (key, json)
        });
        read.collect()
    }

    fn value(&mut self, value: Value, path: &Path<'_>) -> Json {
        match value.kind {
            None => self.refuse(path, "must have a value"),
            Some(Kind::NullValue(_)) => Json::Null,
            Some(Kind::BoolValue(truth)) => Json::Bool(truth),
            Some(Kind::StringValue(text)) => Json::String(text),
            Some(Kind::NumberValue(number)) => match Number::from_f64(number) {
                Some(number) => Json::Number(number),
                None => self.refuse(path, "must be finite"),
            },
            Some(Kind::StructValue(structure)) => Json::Object(self.object(structure, path)),
            Some(Kind::ListValue(list)) => {
                if !self.fits(path) {
                    return Json::Null;
                }
                let items = list.values.into_iter().enumerate();
                Json::Array(
                    items
                        .map(|(index, item)| self.value(item, &path.then(Step::Index(index))))
                        .collect(),
                )
            }
        }
    }

    /// Whether a container at this depth is allowed; says once for each structure that it is not.
    fn fits(&mut self, path: &Path<'_>) -> bool {
        let fits = path.depth <= DEEPEST;
        if !fits && !self.too_deep {
            self.too_deep = true;
            (self.wrong)(self.field.to_owned(), "must be at most 32 levels deep");
        }
        fits
    }

    fn refuse(&mut self, path: &Path<'_>, rule: &str) -> Json {
        let mut text = self.field.to_owned();
        path.write(&mut text);
        (self.wrong)(text, rule);
        Json::Null
    }
}

/// Writes a structure.
pub(crate) fn write(map: Map<String, Json>) -> Struct {
    Struct {
        fields: map.into_iter().map(|(key, json)| (key, value(json))).collect(),
    }
}

fn value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(truth) => Kind::BoolValue(truth),
        Json::Number(number) => Kind::NumberValue(number.as_f64().expect("every JSON number is one of ours")),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(ListValue {
            values: items.into_iter().map(value).collect(),
        }),
        Json::Object(map) => Kind::StructValue(write(map)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(levels: usize) -> Value {
        let mut inner = Value {
            kind: Some(Kind::BoolValue(true)),
        };
        for _ in 0..levels {
            inner = Value {
                kind: Some(Kind::ListValue(ListValue { values: vec![inner] })),
            };
        }
        inner
    }

    fn structure(value: Value) -> Struct {
        Struct {
            fields: [("a".to_owned(), value)].into(),
        }
    }

    fn wrongs(value: Value) -> Vec<String> {
        let mut wrongs = Vec::new();
        read("c", structure(value), &mut |path, rule| {
            wrongs.push(format!("{path} {rule}"))
        });
        wrongs
    }

    #[test]
    fn the_thirty_second_level_is_the_last() {
        assert_eq!(wrongs(list(31)), Vec::<String>::new());
        assert_eq!(wrongs(list(32)), ["c must be at most 32 levels deep"]);
        assert_eq!(wrongs(list(45)), ["c must be at most 32 levels deep"]);
    }

    #[test]
    fn what_json_cannot_hold_is_refused_by_its_path() {
        let numbers = [f64::NAN, 1.0, f64::NEG_INFINITY].map(|number| Value {
            kind: Some(Kind::NumberValue(number)),
        });
        let values = numbers.into_iter().chain([Value { kind: None }]).collect();
        let inner = structure(Value {
            kind: Some(Kind::ListValue(ListValue { values })),
        });
        assert_eq!(
            wrongs(Value {
                kind: Some(Kind::StructValue(inner))
            }),
            [
                "c.a.a[0] must be finite",
                "c.a.a[2] must be finite",
                "c.a.a[3] must have a value"
            ]
        );
    }
}
