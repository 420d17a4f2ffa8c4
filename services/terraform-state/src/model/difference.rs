//! What is different between two states: outputs, resource instances, and their attributes.
//!
//! Both are walked through once, and only what is written differently is made into values, one instance at a time.

use std::collections::BTreeMap;

use kit::{crypto::KeyRing, ids::OrgId};
use serde_json::Value;

use super::masking::{self, Side, Values, compare, hash, is_shown, marks};
use crate::wire::cursor::Cursor;

/// The most attributes that are told of one instance.
pub(crate) const MOST_ATTRIBUTES: usize = 200;

/// A state as far as it is compared: slices of its text.
pub(crate) struct Layout<'a> {
    instances: BTreeMap<Key, Instance<'a>>,
    outputs: BTreeMap<String, &'a [u8]>,
}

/// An instance's address and, of an object that is to be replaced, its key.
type Key = (String, String);

struct Instance<'a> {
    resource_type: String,
    managed: bool,
    parts: Parts<'a>,
}

/// An instance that Terraform manages, in either of two states.
pub(crate) struct Managed<'a> {
    pub(crate) address: &'a str,
    pub(crate) resource_type: &'a str,
    pub(crate) before: Option<Said<'a>>,
    pub(crate) after: Option<Said<'a>>,
}

/// What a state says of an instance: JSON as it is written there.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Said<'a> {
    /// None of one that was never made.
    pub(crate) attributes: Option<&'a [u8]>,
    /// Paths to what Terraform marks.
    pub(crate) sensitive: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Parts<'a> {
    attributes: Option<&'a [u8]>,
    sensitive: Option<&'a [u8]>,
    private: Option<&'a [u8]>,
    tainted: bool,
}

/// Which side something is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Removed,
    Changed,
}

/// An instance that is different.
#[derive(Debug, PartialEq)]
pub(crate) struct InstanceDifference {
    pub(crate) address: String,
    pub(crate) resource_type: String,
    pub(crate) deposed: String,
    pub(crate) kind: Kind,
    pub(crate) attributes: Vec<AttributeDifference>,
    pub(crate) more_attributes: bool,
    pub(crate) private_changed: bool,
    pub(crate) tainted: [bool; 2],
}

/// An attribute that is different.
#[derive(Debug, PartialEq)]
pub(crate) struct AttributeDifference {
    pub(crate) path: String,
    /// `None` where they are kept back; only then there are hashes.
    pub(crate) values: Option<Values>,
    pub(crate) hashes: [Option<[u8; 32]>; 2],
}

/// An output that is different.
#[derive(Debug, PartialEq)]
pub(crate) struct OutputDifference {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) values: Option<Values>,
}

/// An output.
#[derive(Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) value: Value,
    /// Terraform's type of it, as JSON.
    pub(crate) of_type: String,
    pub(crate) sensitive: bool,
}

impl Output {
    /// Whether its value is kept back.
    pub(crate) fn is_masked(&self, name: &str) -> bool {
        self.sensitive || !is_shown(name, &self.value)
    }
}

impl<'a> Layout<'a> {
    /// Walks through a state; `None` for what Terraform does not lay out so.
    pub(crate) fn read(state: &'a [u8]) -> Option<Self> {
        let mut layout = Layout {
            instances: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        Cursor::new(state).object(|key, at| match key {
            b"resources" => at.list(|at| layout.resource(at)),
            b"outputs" => {
                layout.outputs = named(at.value()?)?;
                Some(())
            }
            _ => at.value().map(|_| ()),
        })?;
        Some(layout)
    }

    fn resource(&mut self, at: &mut Cursor<'a>) -> Option<()> {
        let (mut module, mut mode, mut resource_type, mut name) = Default::default();
        let mut instances = Vec::new();
        at.object(|key, at| {
            let part: &mut String = match key {
                b"module" => &mut module,
                b"mode" => &mut mode,
                b"type" => &mut resource_type,
                b"name" => &mut name,
                b"instances" => {
                    return at.list(|at| {
                        instances.push(instance(at)?);
                        Some(())
                    });
                }
                _ => return at.value().map(|_| ()),
            };
            *part = text(at.value()?)?;
            Some(())
        })?;
        let address = super::resource::address(&module, &mode, &resource_type, &name);
        for (index, deposed, parts) in instances {
            let instance = Instance {
                resource_type: resource_type.clone(),
                managed: mode == "managed",
                parts,
            };
            self.instances.insert((format!("{address}{index}"), deposed), instance);
        }
        Some(())
    }

    /// Every instance of both whose address starts so, by address: `None` for one that is the same.
    pub(crate) fn instances<'b>(
        &'b self,
        other: &'b Layout<'_>,
        prefix: &'b str,
        ring: &'b KeyRing,
        org: OrgId,
    ) -> impl Iterator<Item = Option<InstanceDifference>> + 'b {
        both(&self.instances, &other.instances)
            .filter(move |((address, _), _, _)| address.starts_with(prefix))
            .map(move |(key, before, after)| difference(key, before, after, ring, org))
    }

    /// Every managed instance of either by address, less the objects that are to be replaced.
    pub(crate) fn managed<'b>(&'b self, other: &'b Layout<'_>) -> impl Iterator<Item = Managed<'b>> {
        let said = |instance: &Instance<'b>| Said {
            attributes: instance.parts.attributes,
            sensitive: instance.parts.sensitive,
        };
        both(&self.instances, &other.instances).filter_map(move |((address, deposed), before, after)| {
            let either = before.map(|it| (&it.resource_type, it.managed));
            let (resource_type, managed) = either.or(after.map(|it| (&it.resource_type, it.managed)))?;
            (managed && deposed.is_empty()).then(|| Managed {
                address,
                resource_type,
                before: before.map(said),
                after: after.map(said),
            })
        })
    }

    /// The outputs that are different, by name.
    pub(crate) fn outputs<'b>(&'b self, other: &'b Layout<'_>) -> impl Iterator<Item = OutputDifference> + 'b {
        both(&self.outputs, &other.outputs).filter_map(|(name, before, after)| {
            if before == after {
                return None;
            }
            let kind = kind(before, after);
            let [before, after] = [before, after].map(|written| written.map(|written| output(written)));
            let masked = |output: &Option<Option<Output>>| match output {
                Some(Some(output)) => output.is_masked(name),
                Some(None) => true,
                None => false,
            };
            if before == after && !matches!(before, Some(None)) {
                return None;
            }
            let shown = !masked(&before) && !masked(&after);
            let value = |output: Option<Option<Output>>| output.flatten().map(|output| output.value);
            Some(OutputDifference {
                name: name.clone(),
                kind,
                values: shown.then(|| Values {
                    before: value(before),
                    after: value(after),
                }),
            })
        })
    }
}

/// The outputs of a state, from the text of its `outputs`; `None` for what is none.
pub(crate) fn outputs(written: &[u8]) -> Option<BTreeMap<String, Output>> {
    let named = named(written)?.into_iter();
    named.map(|(name, written)| Some((name, output(written)?))).collect()
}

/// The text of outputs as it was written, without those that are kept back unless they are revealed.
pub(crate) fn shown_outputs(written: &[u8], reveal: bool) -> Option<Vec<u8>> {
    let mut shown = b"{".to_vec();
    for (name, written) in named(written)? {
        if !reveal && output(written)?.is_masked(&name) {
            continue;
        }
        if shown.len() > 1 {
            shown.push(b',');
        }
        shown.extend_from_slice(Value::String(name).to_string().as_bytes());
        shown.push(b':');
        shown.extend_from_slice(written);
    }
    shown.push(b'}');
    Some(shown)
}

fn output(written: &[u8]) -> Option<Output> {
    let whole: Value = serde_json::from_slice(written).ok()?;
    let Value::Object(mut whole) = whole else { return None };
    Some(Output {
        value: whole.remove("value").unwrap_or_default(),
        of_type: whole.get("type").map(Value::to_string).unwrap_or_default(),
        sensitive: whole.get("sensitive").is_some_and(|mark| *mark != Value::Bool(false)),
    })
}

fn named(written: &[u8]) -> Option<BTreeMap<String, &[u8]>> {
    let mut named = BTreeMap::new();
    if !matches!(written, b"" | b"null") {
        Cursor::new(written).object(|key, at| {
            let quoted = [b"\"", key, b"\""].concat();
            named.insert(text(&quoted)?, at.value()?);
            Some(())
        })?;
    }
    Some(named)
}

/// A text; empty for `null`.
fn text(written: &[u8]) -> Option<String> {
    let text: Option<String> = serde_json::from_slice(written).ok()?;
    Some(text.unwrap_or_default())
}

/// An instance's index as its address has it, its deposed key, and the rest.
fn instance<'a>(at: &mut Cursor<'a>) -> Option<(String, String, Parts<'a>)> {
    let mut parts = Parts::default();
    let (mut index, mut deposed) = (String::new(), String::new());
    let mut flat = None;
    at.object(|key, at| {
        let value = at.value()?;
        let there = (value != b"null").then_some(value);
        match key {
            b"index_key" => {
                index = match serde_json::from_slice(value).ok()? {
                    Value::Null => String::new(),
                    Value::String(key) if masking::looks_secret(&key) => "[\"…\"]".to_owned(),
                    Value::String(key) => format!("[{}]", masking::quoted(&key)),
                    other => format!("[{other}]"),
                }
            }
            b"deposed" => deposed = text(value)?,
            b"status" => parts.tainted = text(value)? == "tainted",
            b"attributes" => parts.attributes = there,
            b"attributes_flat" => flat = there,
            b"sensitive_attributes" => parts.sensitive = there,
            b"private" => parts.private = there,
            _ => {}
        }
        Some(())
    })?;
    parts.attributes = parts.attributes.or(flat);
    Some((index, deposed, parts))
}

fn kind<T>(before: Option<T>, after: Option<T>) -> Kind {
    match (before, after) {
        (None, _) => Kind::Added,
        (Some(_), None) => Kind::Removed,
        (Some(_), Some(_)) => Kind::Changed,
    }
}

/// What either of two maps has, in order.
fn both<'b, K: Ord, V, W>(
    before: &'b BTreeMap<K, V>,
    after: &'b BTreeMap<K, W>,
) -> impl Iterator<Item = (&'b K, Option<&'b V>, Option<&'b W>)> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let one = order.is_le().then(|| before.next()).flatten();
        let other = order.is_ge().then(|| after.next()).flatten();
        let key = one.map(|(key, _)| key).or(other.map(|(key, _)| key))?;
        Some((key, one.map(|(_, value)| value), other.map(|(_, value)| value)))
    })
}

fn difference(
    (address, deposed): &Key,
    before: Option<&Instance<'_>>,
    after: Option<&Instance<'_>>,
    ring: &KeyRing,
    org: OrgId,
) -> Option<InstanceDifference> {
    let tainted = [before, after].map(|side| side.is_some_and(|instance| instance.parts.tainted));
    let mut difference = InstanceDifference {
        address: address.clone(),
        resource_type: before.or(after)?.resource_type.clone(),
        deposed: deposed.clone(),
        kind: kind(before.map(|_| ()), after.map(|_| ())),
        attributes: Vec::new(),
        more_attributes: false,
        private_changed: false,
        tainted,
    };
    let (Some(before), Some(after)) = (before, after) else {
        return Some(difference);
    };
    if before.parts == after.parts {
        return None;
    }
    difference.private_changed = before.parts.private != after.parts.private;
    difference.attributes = attributes(&difference.resource_type, before.parts, after.parts, ring, org);
    difference.more_attributes = difference.attributes.len() > MOST_ATTRIBUTES;
    difference.attributes.truncate(MOST_ATTRIBUTES);
    let same = difference.attributes.is_empty() && !difference.private_changed && tainted[0] == tainted[1];
    (!same).then_some(difference)
}

fn attributes(
    resource_type: &str,
    before: Parts<'_>,
    after: Parts<'_>,
    ring: &KeyRing,
    org: OrgId,
) -> Vec<AttributeDifference> {
    if before.attributes == after.attributes {
        return Vec::new();
    }
    let value = |written: Option<&[u8]>| written.map_or(Ok(Value::Null), serde_json::from_slice);
    let sides = [before, after].map(|side| Some((value(side.attributes).ok()?, value(side.sensitive).ok()?)));
    let [Some((was, was_marked)), Some((is, is_marked))] = &sides else {
        // What no value can be made of is told apart as a whole, and kept back.
        let hashed = |parts: Parts<'_>| {
            let written = String::from_utf8_lossy(parts.attributes?);
            Some(hash(&Value::String(written.into_owned()), ring, org))
        };
        return vec![AttributeDifference {
            path: String::new(),
            values: None,
            hashes: [hashed(before), hashed(after)],
        }];
    };
    let (was_marked, is_marked) = (marks(was_marked), marks(is_marked));
    let side = |value, marks| Side {
        value: Some(value),
        marks: Some(marks),
    };
    let found = compare(
        resource_type,
        side(was, &was_marked),
        side(is, &is_marked),
        MOST_ATTRIBUTES,
    );
    let told = found.iter().map(|found| {
        let values = found.values();
        AttributeDifference {
            path: found.path().to_owned(),
            hashes: if values.is_some() {
                [None, None]
            } else {
                found.hashes(ring, org)
            },
            values,
        }
    });
    told.collect()
}

#[cfg(test)]
mod tests;
