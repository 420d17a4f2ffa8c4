//! Reading `terraform show -json PLAN`.
//!
//! Of a plan only `resource_drift` is looked at, one resource after another; everything else in it is passed over.
//! Nothing of a plan's text is ever part of what is said to be wrong with it.

use std::{cell::Cell, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value, error::Category};

use super::{Address, DriftKind, Drifted, Finding, ResourceType};
use crate::model::masking::{Side, differences};

/// The most drift logs of one check.
pub(crate) const MOST_FINDINGS: usize = 10_000;
/// The most values that one side of a resource holds.
const MOST_VALUES: u32 = 100_000;

/// What a plan says has drifted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Drift {
    /// The resources, in the plan's order.
    pub(crate) resources: Vec<Drifted>,
    /// What is to be logged, in the same order.
    pub(crate) findings: Vec<Finding>,
}

/// What is wrong with a plan, in words of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(String);

impl From<Unreadable> for String {
    fn from(unreadable: Unreadable) -> String {
        unreadable.0
    }
}

/// Reads a whole plan.
pub(crate) fn read(plan: &[u8]) -> Result<Drift, Unreadable> {
    let unreadable = |problem: &str| Err(Unreadable(problem.to_owned()));
    let Ok(text) = std::str::from_utf8(plan) else {
        return unreadable("must be UTF-8");
    };
    let text = text.trim_start_matches('\u{feff}');
    let plan: Plan = match serde_json::from_str(text) {
        Ok(plan) => plan,
        Err(error) if error.classify() == Category::Data => {
            return unreadable("must be a plan as `terraform show -json` writes it");
        }
        // The parser's own words may repeat what it read.
        Err(error) => {
            return Err(Unreadable(format!(
                "must be JSON, nested at most 128 deep; it is not at line {}, column {}",
                error.line(),
                error.column()
            )));
        }
    };
    let major = plan.format_version.split('.').next();
    if major != Some("1") {
        return unreadable("must have format_version 1.x");
    }
    if plan.planned_values.is_none() || plan.configuration.is_none() {
        return unreadable("must be a whole plan as `terraform show -json PLAN` writes it, not a state or a part");
    }
    if plan.errored == Some(true) {
        return unreadable("must be of a plan that did not fail");
    }
    if plan.complete == Some(false) {
        return unreadable("must be of a complete plan, without -target and deferred changes");
    }
    let Entries { drift, problem } = plan.resource_drift.unwrap_or_default();
    match problem {
        Some(problem) => Err(Unreadable(problem)),
        None => Ok(drift),
    }
}

#[derive(Deserialize)]
struct Plan {
    format_version: String,
    planned_values: Option<IgnoredAny>,
    configuration: Option<IgnoredAny>,
    resource_drift: Option<Entries>,
    errored: Option<bool>,
    complete: Option<bool>,
}

/// `resource_drift`, of which no more than one entry is held at a time.
#[derive(Default)]
struct Entries {
    drift: Drift,
    problem: Option<String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EachEntry;
        impl<'de> Visitor<'de> for EachEntry {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of resources")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Entries, A::Error> {
                let mut read = Entries::default();
                let mut addresses = HashSet::new();
                let mut index = 0;
                while read.problem.is_none() {
                    let Some(entry) = entries.next_element::<Entry>()? else {
                        return Ok(read);
                    };
                    read.problem = read.drift.add(entry, &mut addresses, index).err();
                    index += 1;
                }
                while entries.next_element::<IgnoredAny>()?.is_some() {}
                Ok(read)
            }
        }
        deserializer.deserialize_seq(EachEntry)
    }
}

#[derive(Deserialize)]
struct Entry {
    address: String,
    mode: String,
    #[serde(rename = "type")]
    resource_type: String,
    deposed: Option<String>,
    change: Change,
}

#[derive(Deserialize)]
struct Change {
    actions: Vec<String>,
    #[serde(default)]
    before: Part,
    #[serde(default)]
    after: Part,
    #[serde(default)]
    before_sensitive: Part,
    #[serde(default)]
    after_sensitive: Part,
}

impl Change {
    fn whole(&self) -> bool {
        let parts = [&self.before, &self.after, &self.before_sensitive, &self.after_sensitive];
        parts.iter().all(|part| part.whole)
    }
}

impl Drift {
    /// Adds what an entry says; the error is what is wrong with it.
    fn add(&mut self, entry: Entry, addresses: &mut HashSet<String>, index: usize) -> Result<(), String> {
        let wrong = |problem: &str| Err(format!("resource_drift[{index}]{problem}"));
        let change = entry.change;
        let gone = match change.actions.as_slice() {
            // Moved within the state, or the same as before.
            [action] if action == "no-op" => return Ok(()),
            [action] if action == "update" => false,
            [action] if action == "delete" => true,
            _ => return wrong(".change.actions must be [\"no-op\"], [\"update\"] or [\"delete\"]"),
        };
        // What a data source reads is nobody's, and a deposed object is one that Terraform has replaced.
        if entry.mode != "managed" || entry.deposed.is_some() {
            return Ok(());
        }
        let Some(address) = Address::parse(&entry.address) else {
            return wrong(".address must have 1 to 512 characters and no control characters");
        };
        let Some(resource_type) = ResourceType::parse(&entry.resource_type) else {
            return wrong(".type must have 1 to 200 characters and no control characters");
        };
        if !addresses.insert(entry.address) {
            return wrong(".address must be unique");
        }
        if !change.whole() {
            return wrong(".change must hold at most 100,000 values");
        }
        let (before, after) = (&change.before.value, &change.after.value);
        let kind = if gone {
            if !before.is_object() || !after.is_null() {
                return wrong(".change must have attributes before and none after");
            }
            self.findings.push(Finding {
                address: address.clone(),
                resource_type: resource_type.clone(),
                difference: None,
            });
            DriftKind::Deleted
        } else {
            if !before.is_object() || !after.is_object() {
                return wrong(".change must have attributes before and after");
            }
            let side = |value, marks| Side {
                value: Some(value),
                marks: Some(marks),
            };
            let differences = differences(
                &entry.resource_type,
                side(before, &change.before_sensitive.value),
                side(after, &change.after_sensitive.value),
                MOST_FINDINGS,
            );
            if differences.is_empty() {
                return Ok(());
            }
            self.findings.extend(differences.into_iter().map(|difference| Finding {
                address: address.clone(),
                resource_type: resource_type.clone(),
                difference: Some(difference),
            }));
            DriftKind::Changed
        };
        self.resources.push(Drifted { address, kind });
        if self.findings.len() > MOST_FINDINGS {
            return Err("has more than 10,000 attributes and resources that have drifted".to_owned());
        }
        Ok(())
    }
}

/// A value, or as much of it as may be held.
struct Part {
    value: Value,
    whole: bool,
}

impl Default for Part {
    fn default() -> Self {
        Part {
            value: Value::Null,
            whole: true,
        }
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(MOST_VALUES);
        let value = Bounded(&left).deserialize(deserializer)?;
        Ok(Part {
            value,
            whole: left.get() > 0,
        })
    }
}

/// Reads a value while there is something left of what may be held, and passes over the rest.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a Cell<u32>);

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.set(self.0.get().saturating_sub(1));
        if self.0.get() == 0 {
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            if self.0.get() > 0 {
                list.push(item);
            }
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(self)?;
            if self.0.get() > 0 {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
