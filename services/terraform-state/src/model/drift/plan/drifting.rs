//! `resource_drift`, of which no more than one entry is looked at at a time.

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{Drift, Entry, Finding, Held, Helds, MOST_FINDINGS, Unreadable, unparsed};
use crate::model::{
    drift::{
        Address, DriftKind, Printer, ResourceType,
        noise::settled,
        view::{MOST_ROWS, both},
    },
    masking::{Side, compare},
};

/// The most values of drifted resources that are held for the view.
const MOST_HELD: u32 = 300_000;

/// What `resource_drift`, or a second state, says so far.
pub(super) struct Drifting<'p> {
    printer: &'p Printer,
    /// What entries are called where something is wrong with one.
    list: &'static str,
    pub(super) drift: Drift,
    pub(super) held: Helds,
    left: u32,
    addresses: HashSet<String>,
    prints: HashSet<[u8; 32]>,
    problem: Option<String>,
}

impl<'p> Drifting<'p> {
    pub(super) fn new(printer: &'p Printer, list: &'static str) -> Self {
        Drifting {
            printer,
            list,
            drift: Drift::default(),
            held: Helds::new(),
            left: MOST_HELD,
            addresses: HashSet::new(),
            prints: HashSet::new(),
            problem: None,
        }
    }

    /// Reads it out of a plan.
    pub(super) fn read(&mut self, plan: &str) -> Result<(), Unreadable> {
        each(plan, self.list, &mut |entry, index| match self.add(entry, index) {
            Ok(()) => true,
            Err(problem) => {
                self.problem = Some(problem);
                false
            }
        })?;
        match self.problem.take() {
            Some(problem) => Err(Unreadable(problem)),
            None => Ok(()),
        }
    }

    /// Adds what an entry says; the error is what is wrong with it.
    pub(super) fn add(&mut self, entry: Entry, index: usize) -> Result<(), String> {
        let list = self.list;
        let wrong = |problem: &str| Err(format!("{list}[{index}]{problem}"));
        let change = &entry.change;
        let moved = entry
            .previous_address
            .as_ref()
            .is_some_and(|last| *last != entry.address);
        let managed = entry.mode == "managed" && entry.deposed.is_none();
        if moved && managed {
            self.drift.tally.moved += 1;
        }
        let gone = match change.actions.as_slice() {
            // Moved within the state, or the same as before.
            [action] if action == "no-op" => return Ok(()),
            [action] if action == "update" => false,
            [action] if action == "delete" => true,
            _ => return wrong(".change.actions must be [\"no-op\"], [\"update\"] or [\"delete\"]"),
        };
        // What a data source reads is nobody's, and a deposed object is one that Terraform has replaced.
        if !managed {
            return Ok(());
        }
        let Some(address) = Address::parse(&entry.address) else {
            return wrong(".address must have 1 to 512 characters and no control characters");
        };
        let Some(resource_type) = ResourceType::parse(&entry.resource_type) else {
            return wrong(".type must have 1 to 200 characters and no control characters");
        };
        if !self.addresses.insert(entry.address.clone()) {
            return wrong(".address must be unique");
        }
        if !change.whole() {
            return wrong(".change must hold at most 100,000 values");
        }
        let (before, after) = (&change.before.value, &change.after.value);
        if gone {
            if !before.is_object() || !after.is_null() {
                return wrong(".change must have attributes before and none after");
            }
            let kind = DriftKind::Deleted;
            self.drift.findings.push(Finding {
                prints: self.printer.of(&address, kind, "", None),
                address,
                resource_type,
                kind,
                path: String::new(),
                values: None,
            });
        } else {
            if !before.is_object() || !after.is_object() {
                return wrong(".change must have attributes before and after");
            }
            self.compare(&entry, &address, &resource_type);
        }
        self.hold(entry);
        if self.drift.findings.len() > MOST_FINDINGS {
            return Err("has more than 10,000 attributes and resources that have drifted".to_owned());
        }
        Ok(())
    }

    fn compare(&mut self, entry: &Entry, address: &Address, resource_type: &ResourceType) {
        let change = &entry.change;
        let (before, after) = (&change.before, &change.after);
        let settled = if kit::failpoint::without(&format!("terraform_state.drift_noise/{}", self.printer.org)) {
            after.value.clone()
        } else {
            let marks = both(&change.before_sensitive.value, &change.after_sensitive.value);
            settled(
                &before.value,
                Side {
                    value: Some(&after.value),
                    marks: Some(&marks),
                },
            )
        };
        let side = |value, marks| Side {
            value: Some(value),
            marks: Some(marks),
        };
        let found = compare(
            &entry.resource_type,
            side(&before.value, &change.before_sensitive.value),
            side(&settled, &change.after_sensitive.value),
            MOST_FINDINGS,
        );
        if found.is_empty() {
            self.drift.tally.normalised += 1;
            return;
        }
        let paths: HashSet<&str> = found.iter().map(|found| found.path()).collect();
        for found in &found {
            let path = found.path();
            // Providers of AWS tell of each tag twice.
            let twin = path.strip_prefix("tags_all").map(|rest| format!("tags{rest}"));
            if twin.is_some_and(|twin| paths.contains(twin.as_str())) {
                continue;
            }
            let kind = DriftKind::Changed;
            let observed = found.sides()[1].filter(|value| !value.is_null());
            let prints = self.printer.of(address, kind, path, observed);
            // Paths are cut: two that were longer may be one.
            if prints.first().is_some_and(|print| !self.prints.insert(*print)) {
                continue;
            }
            self.drift.findings.push(Finding {
                address: address.clone(),
                resource_type: resource_type.clone(),
                kind,
                path: path.to_owned(),
                values: found.values(),
                prints,
            });
        }
    }

    /// Keeps what the view needs, as long as there is room.
    fn hold(&mut self, entry: Entry) {
        let size = entry.change.size();
        if size > self.left || self.held.len() == MOST_ROWS {
            self.drift.view.truncated = true;
            return;
        }
        self.left -= size;
        let change = entry.change;
        let held = Held {
            before: change.before.value,
            after: change.after.value,
            marks: both(&change.before_sensitive.value, &change.after_sensitive.value),
        };
        self.held.insert(entry.address, held);
    }
}

/// Whether there is to be a next one, given an entry and its index.
type Take<'t> = &'t mut dyn FnMut(Entry, usize) -> bool;

/// Gives each entry of a list at a plan's top, one after another.
pub(super) fn each(plan: &str, list: &str, take: Take<'_>) -> Result<(), Unreadable> {
    let mut deserializer = serde_json::Deserializer::from_str(plan);
    Top { list, take }.deserialize(&mut deserializer).map_err(unparsed)
}

struct Top<'t> {
    list: &'t str,
    take: Take<'t>,
}

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a plan")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<String>()? {
            if key == self.list {
                fields.next_value_seed(List(&mut *self.take))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct List<'t>(Take<'t>);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of resources")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut index = 0;
        let mut more = true;
        while more {
            let Some(entry) = entries.next_element::<Entry>()? else {
                return Ok(());
            };
            more = (self.0)(entry, index);
            index += 1;
        }
        while entries.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// What a plan says of a value that it does not have.
pub(super) const NOTHING: Value = Value::Null;
