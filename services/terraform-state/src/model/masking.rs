//! What is different between two values of a resource, attribute by attribute, and what of it may be shown.
//!
//! Nothing differs that Terraform does not tell apart, nor what providers do not: `null`, an absent attribute, `""`,
//! and empty lists and maps are all nothing, and a number is the same however it is written.
//! No value leaves here that Terraform marks or that `secret` keeps back; that two of those are the same value can be
//! told by their keyed hashes.

mod marks;
mod secret;

use std::collections::{BTreeSet, HashSet};

use kit::{crypto::KeyRing, ids::OrgId};
use serde_json::{Map, Number, Value};

pub(crate) use self::marks::marks;

/// The longest value that is shown, as JSON.
const MOST_SHOWN_BYTES: usize = 16 << 10;
/// The most that lists and maps in a shown value lie in one another; clients of protobuf refuse 100 messages, of which
/// each takes three.
const MOST_SHOWN_DEPTH: usize = 16;
/// Shorter marked texts are not looked for within others: they are met by chance.
const LEAST_SOUGHT_CHARACTERS: usize = 4;
/// Of more marked texts none is looked for, and every text of the resource is kept back.
const MOST_SOUGHT: usize = 1_000;
/// Longer paths are cut.
const MOST_PATH_CHARACTERS: usize = 1_000;
const HASH_CONTEXT: &str = "terraform_state masked value";

/// The two values of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Values {
    /// On the first side (the state, for drift), if it was there.
    pub(crate) before: Option<Value>,
    /// On the second side (reality, for drift), if it is there.
    pub(crate) after: Option<Value>,
}

/// One attribute that is not the same on both sides; its values, still where they were read, are shown, or hashed, or
/// neither.
pub(crate) struct Found<'a> {
    path: String,
    sides: [Option<&'a Value>; 2],
    masked: bool,
}

impl Found<'_> {
    /// Where, as Terraform writes it: `tags["Name"]`, `ingress[0].cidr`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The values as they were read, whether or not they may be shown.
    pub(crate) fn sides(&self) -> [Option<&Value>; 2] {
        self.sides
    }

    /// Whether they are kept back.
    pub(crate) fn is_masked(&self) -> bool {
        self.masked
    }

    /// What it was and is; `None` where that is kept back.
    pub(crate) fn values(&self) -> Option<Values> {
        let [before, after] = self.sides.map(|side| side.filter(|value| !value.is_null()).cloned());
        (!self.masked).then_some(Values { before, after })
    }

    /// A keyed hash of each value that is there, shown or not: the same value has the same one in all of an organization.
    pub(crate) fn hashes(&self, ring: &KeyRing, org: OrgId) -> [Option<[u8; 32]>; 2] {
        self.sides.map(|side| {
            side.filter(|value| !value.is_null())
                .map(|value| hash(value, ring, org))
        })
    }
}

/// The keyed hash of a value that may be kept back, by which it can be told from others.
pub(crate) fn hash(value: &Value, ring: &KeyRing, org: OrgId) -> [u8; 32] {
    ring.keyed_hash(HASH_CONTEXT, format!("{org}|{value}").as_bytes())
}

/// Whether a text looks like a secret, wherever it stands.
pub(crate) fn looks_secret(text: &str) -> bool {
    secret::looks(text)
}

/// Whether a value that Terraform does not mark may be shown under this name.
pub(crate) fn is_shown(name: &str, value: &Value) -> bool {
    !secret::names(name) && !secret::holds(value) && fits(value)
}

/// One side of a resource: its attributes, and which of them Terraform marks as sensitive.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) value: Option<&'a Value>,
    /// `true` for all beneath, or the shape of the value as far as something in it is marked.
    pub(crate) marks: Option<&'a Value>,
}

/// The differences between a resource's two sides, in the order of their paths, without a copy of any value; at most `most`
/// and one.
pub(crate) fn compare<'a>(resource_type: &str, before: Side<'a>, after: Side<'a>, most: usize) -> Vec<Found<'a>> {
    let mut marked = HashSet::new();
    before.marked(&mut marked);
    after.marked(&mut marked);
    let mut walk = Walk {
        all_secret: secret::types(resource_type),
        marked,
        most,
        found: Vec::new(),
    };
    walk.between(&Place::TOP, before, after);
    walk.found
}

impl<'a> Side<'a> {
    fn attribute(self, key: &str) -> Side<'a> {
        let of = |value: Option<&'a Value>| value.and_then(|value| value.get(key));
        Side {
            value: of(self.value),
            marks: of(self.marks).or(self.mark()),
        }
    }

    fn only_if(self, there: bool) -> Side<'a> {
        Side {
            value: self.value.filter(|_| there),
            ..self
        }
    }

    fn element(self, index: usize) -> Side<'a> {
        let of = |value: Option<&'a Value>| value.and_then(|value| value.get(index));
        Side {
            value: of(self.value),
            marks: of(self.marks).or(self.mark()),
        }
    }

    /// The mark itself where it holds for all beneath.
    fn mark(self) -> Option<&'a Value> {
        self.marks.filter(|marks| **marks == Value::Bool(true))
    }

    fn is_marked(self) -> bool {
        self.mark().is_some()
    }

    fn object(self) -> Option<&'a Map<String, Value>> {
        self.value.and_then(Value::as_object)
    }

    fn array(self) -> Option<&'a [Value]> {
        self.value.and_then(Value::as_array).map(Vec::as_slice)
    }

    fn keys(self) -> impl Iterator<Item = &'a str> {
        self.object()
            .into_iter()
            .flat_map(|object| object.keys().map(String::as_str))
    }

    /// Every text beneath a mark: the same text elsewhere in the resource is the same secret.
    fn marked(self, texts: &mut HashSet<&'a str>) {
        match (self.marks, self.value) {
            (Some(Value::Bool(true)), Some(value)) => gather(value, texts),
            (Some(Value::Object(_)), Some(Value::Object(_))) => {
                self.keys().for_each(|key| self.attribute(key).marked(texts));
            }
            (Some(Value::Array(_)), Some(Value::Array(items))) => {
                (0..items.len()).for_each(|index| self.element(index).marked(texts));
            }
            _ => {}
        }
    }
}

fn gather<'a>(value: &'a Value, texts: &mut HashSet<&'a str>) {
    match value {
        Value::String(text) if !text.is_empty() => {
            texts.insert(text);
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, texts)),
        Value::Object(object) => object.values().for_each(|value| gather(value, texts)),
        _ => {}
    }
}

/// Where in a resource something is.
struct Place {
    path: String,
    /// Whether it is an element of a list: what is in it is written with a dot.
    element: bool,
}

impl Place {
    const TOP: Place = Place {
        path: String::new(),
        element: false,
    };

    fn attribute(&self, key: &str) -> Place {
        let plain = key.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        let path = match (plain, self.path.is_empty(), self.element) {
            (true, true, _) => key.to_owned(),
            (true, false, true) => format!("{}.{key}", self.path),
            _ => format!("{}[{}]", self.path, quoted(key)),
        };
        Place { path, element: false }
    }

    fn at(&self, index: usize) -> Place {
        Place {
            path: format!("{}[{index}]", self.path),
            element: true,
        }
    }
}

/// A text as Terraform's language writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

struct Walk<'a> {
    all_secret: bool,
    marked: HashSet<&'a str>,
    most: usize,
    found: Vec<Found<'a>>,
}

impl<'a> Walk<'a> {
    fn between(&mut self, place: &Place, before: Side<'a>, after: Side<'a>) {
        let sides = [before, after];
        if self.found.len() > self.most || before.value == after.value {
            // Whoever asked hears that there are more; and of most values there is nothing to tell.
        } else if sides.iter().any(|side| side.is_marked()) {
            self.mask(place, before, after);
        } else if alike(sides, |side| side.object().is_some()) {
            let keys: BTreeSet<&str> = before.keys().chain(after.keys()).collect();
            let told = sides.iter().filter_map(|side| side.object()).any(secret::labels);
            // A resource has a name, which may say what it carries; anything else that says so is about nothing else.
            let top = place.path.is_empty();
            if (told && !top) || keys.iter().any(|key| secret::looks(key)) {
                return self.mask(place, before, after);
            }
            let differs = |key: &&str| before.attribute(key).value != after.attribute(key).value;
            for key in keys.into_iter().filter(differs) {
                let (place, before, after) = (place.attribute(key), before.attribute(key), after.attribute(key));
                if self.all_secret || secret::names(key) || (told && secret::carries(key)) {
                    self.mask(&place, before, after);
                } else {
                    self.between(&place, before, after);
                }
            }
        } else if alike(sides, |side| side.array().is_some()) {
            let (start, was, is) = middle(before.array().unwrap_or_default(), after.array().unwrap_or_default());
            for index in start..start + was.max(is) {
                let announced = index.checked_sub(1).is_some_and(|last| {
                    let words = [before, after].map(|side| side.element(last).value.and_then(Value::as_str));
                    words.into_iter().flatten().any(secret::announces)
                });
                let place = place.at(index);
                let (before, after) = (
                    before.element(index).only_if(index < start + was),
                    after.element(index).only_if(index < start + is),
                );
                if announced {
                    self.mask(&place, before, after);
                } else {
                    self.between(&place, before, after);
                }
            }
        } else {
            self.leaf(place, before, after);
        }
    }

    fn leaf(&mut self, place: &Place, before: Side<'a>, after: Side<'a>) {
        if same(before.value, after.value) {
            return;
        }
        let shown = |side: Side<'_>| !self.hides(side) && side.value.is_none_or(fits);
        let masked = !(shown(before) && shown(after));
        self.add(place, before, after, masked);
    }

    fn mask(&mut self, place: &Place, before: Side<'a>, after: Side<'a>) {
        if !same(before.value, after.value) {
            self.add(place, before, after, true);
        }
    }

    fn add(&mut self, place: &Place, before: Side<'a>, after: Side<'a>, masked: bool) {
        self.found.push(Found {
            path: cut(&place.path),
            sides: [before.value, after.value],
            masked,
        });
    }

    /// Whether a text is a marked one, or has one in it.
    fn repeats(&self, text: &str) -> bool {
        let within = |marked: &&str| {
            marked.len() < text.len() && text.contains(*marked) && marked.chars().count() >= LEAST_SOUGHT_CHARACTERS
        };
        self.marked.contains(text) || self.marked.len() > MOST_SOUGHT || self.marked.iter().any(within)
    }

    /// Whether something in a value is kept back.
    fn hides(&self, side: Side<'_>) -> bool {
        let Some(value) = side.value else { return false };
        side.is_marked()
            || match value {
                Value::Null | Value::Bool(_) | Value::Number(_) => false,
                Value::String(text) => secret::looks(text) || self.repeats(text),
                Value::Array(items) => {
                    secret::given(items) || (0..items.len()).any(|index| self.hides(side.element(index)))
                }
                Value::Object(object) => {
                    secret::labels(object)
                        || side
                            .keys()
                            .any(|key| secret::names(key) || secret::looks(key) || self.hides(side.attribute(key)))
                }
            }
    }
}

/// Whether each side is of a kind or nothing, and one is of that kind.
fn alike(sides: [Side<'_>; 2], kind: impl Fn(Side<'_>) -> bool) -> bool {
    sides.iter().any(|side| kind(*side)) && sides.iter().all(|side| kind(*side) || nothing(side.value))
}

/// What providers use for one another: what is absent, `null`, `""`, or has nothing in it.
fn nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.iter().all(|item| nothing(Some(item))),
        Some(Value::Object(object)) => object.values().all(|value| nothing(Some(value))),
        Some(Value::Bool(_) | Value::Number(_)) => false,
    }
}

/// Whether two values are the same to Terraform.
fn same(before: Option<&Value>, after: Option<&Value>) -> bool {
    match (before, after) {
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            was.iter().all(|(key, value)| same(Some(value), is.get(key)))
                && is
                    .iter()
                    .all(|(key, value)| was.contains_key(key) || nothing(Some(value)))
        }
        (Some(Value::Array(was)), Some(Value::Array(is))) => {
            (0..was.len().max(is.len())).all(|index| same(was.get(index), is.get(index)))
        }
        (Some(Value::Number(was)), Some(Value::Number(is))) => equal(was, is),
        (was, is) => was == is || (nothing(was) && nothing(is)),
    }
}

/// Terraform's numbers are of one type: 1 and 1.0 are the same.
fn equal(was: &Number, is: &Number) -> bool {
    /// Below this every whole number is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let floats = was.as_f64().zip(is.as_f64());
    was == is || (was.is_f64() != is.is_f64() && floats.is_some_and(|(was, is)| was == is && was.abs() < EXACT))
}

/// What two lists do not have in common at their ends: where it starts, and its length in each.
/// An element that came or went shifts those behind it, which have not changed.
fn middle(was: &[Value], is: &[Value]) -> (usize, usize, usize) {
    let alike = |pair: &(&Value, &Value)| same(Some(pair.0), Some(pair.1));
    let start = was.iter().zip(is).take_while(alike).count();
    let end = was[start..]
        .iter()
        .rev()
        .zip(is[start..].iter().rev())
        .take_while(alike)
        .count();
    (start, was.len() - start - end, is.len() - start - end)
}

/// Whether a value is short and flat enough to be shown.
fn fits(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= MOST_SHOWN_BYTES,
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::Array(_) | Value::Object(_) => {
            depth(value) <= MOST_SHOWN_DEPTH && value.to_string().len() <= MOST_SHOWN_BYTES
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn cut(path: &str) -> String {
    match path.char_indices().nth(MOST_PATH_CHARACTERS) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
