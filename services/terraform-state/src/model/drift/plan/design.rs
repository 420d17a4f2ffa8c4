//! The design's side: what a plan says that the configuration wants.
//!
//! A normal plan says it of every resource. A refresh-only plan says nothing but the configuration itself: what is
//! written there as a constant is known, what is not mentioned is left as it is, and all else is not known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Drift, Entry, Held, Helds, Unreadable,
    drifting::{Drifting, NOTHING, each},
    parsed,
    value::Part,
};
use crate::model::drift::{
    Address, ResourceType,
    view::{Sides, View, both},
};

/// What the configuration says of each resource, by its address without instance keys.
pub(super) struct Configured {
    /// Of each attribute that is mentioned the constant, if it is one.
    resources: HashMap<String, BTreeMap<String, Option<Value>>>,
    /// Whether that is all that there is.
    whole: bool,
}

impl Configured {
    pub(super) fn of(configuration: Part) -> Self {
        let mut configured = Configured {
            resources: HashMap::new(),
            whole: configuration.whole,
        };
        if let Some(root) = configuration.value.get("root_module") {
            configured.add("", root);
        }
        configured
    }

    fn add(&mut self, prefix: &str, module: &Value) {
        let resources = module.get("resources").and_then(Value::as_array);
        for resource in resources.into_iter().flatten() {
            let Some(address) = resource.get("address").and_then(Value::as_str) else {
                continue;
            };
            let expressions = resource.get("expressions").and_then(Value::as_object);
            let said = expressions.into_iter().flatten().map(|(attribute, expression)| {
                let constant = expression.get("constant_value").cloned();
                (attribute.clone(), constant)
            });
            self.resources.insert(format!("{prefix}{address}"), said.collect());
        }
        let calls = module.get("module_calls").and_then(Value::as_object);
        for (name, call) in calls.into_iter().flatten() {
            if let Some(module) = call.get("module") {
                self.add(&format!("{prefix}module.{name}."), module);
            }
        }
    }

    /// What is said of a resource; `None` where there is no such resource.
    fn find(&self, address: &str) -> Option<&BTreeMap<String, Option<Value>>> {
        self.resources.get(&without_keys(address))
    }
}

/// An address without instance keys: `module.db["a"].x.y[0]` is `module.db.x.y`.
fn without_keys(address: &str) -> String {
    let (mut plain, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    for c in address.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if depth > 0 => quoted = !quoted,
            '[' if !quoted => depth += 1,
            ']' if !quoted => depth = depth.saturating_sub(1),
            c if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    plain
}

/// The view as it is made from a plan.
pub(super) struct Designed {
    drift: Drift,
    held: Helds,
    configured: Configured,
}

impl Designed {
    pub(super) fn new(drifting: Drifting<'_>, configured: Configured) -> Self {
        let Drifting { drift, held, .. } = drifting;
        Designed {
            drift,
            held,
            configured,
        }
    }

    pub(super) fn finish(self) -> Drift {
        self.drift
    }

    /// From `resource_changes`, one after another.
    pub(super) fn read_changes(&mut self, plan: &str) -> Result<(), Unreadable> {
        each(plan, "resource_changes", &mut |entry, _| {
            self.change(entry);
            true
        })
    }

    fn change(&mut self, entry: Entry) {
        let named = Address::parse(&entry.address).zip(ResourceType::parse(&entry.resource_type));
        let Some((address, resource_type)) = named.filter(|_| entry.mode == "managed" && entry.deposed.is_none())
        else {
            return;
        };
        let change = entry.change;
        let held = self.held.remove(&entry.address);
        if !change.whole() {
            self.drift.view.truncated = true;
            return;
        }
        let there = |value: &Value| value.is_object();
        let (reality, design) = (&change.before.value, &change.after.value);
        let mut marks = both(&change.before_sensitive.value, &change.after_sensitive.value);
        if let Some(held) = &held {
            marks = both(&marks, &held.marks);
        }
        let state = held.as_ref().map_or(reality, |held| &held.before);
        let said: Option<BTreeSet<String>> = self
            .configured
            .find(&entry.address)
            .filter(|_| self.configured.whole)
            .map(|said| said.keys().cloned().collect());
        let applies = self.drift.view.add(&Sides {
            address: &address,
            resource_type: &resource_type,
            design: Some(design).filter(|value| there(value)),
            unknown: &change.after_unknown.value,
            state: Some(state).filter(|value| there(value)),
            reality: Some(reality).filter(|value| there(value)),
            marks: &marks,
            said: said.as_ref(),
        });
        let acts = change
            .actions
            .iter()
            .any(|action| action != "no-op" && action != "read");
        self.drift.tally.unapplied += usize::from(applies && acts);
    }

    /// From `prior_state`, which a refresh-only plan has read anew, and the configuration.
    pub(super) fn read_values(&mut self, plan: &str) -> Result<(), Unreadable> {
        let Refreshed { prior_state } = parsed(plan)?;
        let prior = prior_state.unwrap_or_default();
        self.drift.view.truncated |= !prior.whole || !self.configured.whole;
        if !self.configured.whole {
            return Ok(());
        }
        let helds = std::mem::take(&mut self.held);
        let root = prior.value.pointer("/values/root_module").unwrap_or(&NOTHING);
        let mut view = std::mem::take(&mut self.drift.view);
        self.module(root, &helds, &mut view);
        // What is gone is not there to be read.
        let mut gone: Vec<(&String, &Held)> = helds.iter().filter(|(_, held)| held.after.is_null()).collect();
        gone.sort_by_key(|(address, _)| *address);
        for (address, held) in gone {
            let kind = without_keys(address);
            let kind = kind.rsplit('.').nth(1).unwrap_or_default();
            self.resource(address, kind, Some(&held.before), None, &held.marks, &mut view);
        }
        self.drift.view = view;
        Ok(())
    }

    fn module(&self, module: &Value, helds: &Helds, view: &mut View) {
        let resources = module.get("resources").and_then(Value::as_array);
        for resource in resources.into_iter().flatten() {
            let text = |key: &str| resource.get(key).and_then(Value::as_str).unwrap_or_default();
            let values = resource.get("values").filter(|values| values.is_object());
            let (Some(reality), "managed", None) = (values, text("mode"), resource.get("deposed_key")) else {
                continue;
            };
            let held = helds.get(text("address"));
            let mut marks = resource.get("sensitive_values").cloned().unwrap_or_default();
            if let Some(held) = held {
                marks = both(&marks, &held.marks);
            }
            let state = held.map_or(reality, |held| &held.before);
            let reality = held.map_or(reality, |held| &held.after);
            self.resource(text("address"), text("type"), Some(state), Some(reality), &marks, view);
        }
        let children = module.get("child_modules").and_then(Value::as_array);
        for child in children.into_iter().flatten() {
            self.module(child, helds, view);
        }
    }

    fn resource(
        &self,
        address: &str,
        kind: &str,
        state: Option<&Value>,
        reality: Option<&Value>,
        marks: &Value,
        view: &mut View,
    ) {
        let Some((parsed, resource_type)) = Address::parse(address).zip(ResourceType::parse(kind)) else {
            return;
        };
        let said = self.configured.find(address);
        let mut unknown = Map::new();
        let design = said.map(|said| {
            let mut object = state.and_then(Value::as_object).cloned().unwrap_or_default();
            for (attribute, constant) in said {
                match constant {
                    Some(constant) => object.insert(attribute.clone(), constant.clone()),
                    None => unknown.insert(attribute.clone(), Value::Bool(true)),
                };
            }
            Value::Object(object)
        });
        let mentioned: Option<BTreeSet<String>> = said.map(|said| said.keys().cloned().collect());
        view.add(&Sides {
            address: &parsed,
            resource_type: &resource_type,
            design: design.as_ref(),
            unknown: &Value::Object(unknown),
            state,
            reality,
            marks,
            said: mentioned.as_ref(),
        });
    }
}

#[derive(Deserialize)]
struct Refreshed {
    prior_state: Option<Part>,
}

#[cfg(test)]
mod tests {
    use super::without_keys;

    #[test]
    fn keys_are_left_out_whatever_is_in_them() {
        for (address, plain) in [
            ("a.b", "a.b"),
            ("a.b[0]", "a.b"),
            ("module.db[\"a\"].a.b[\"x.y\"]", "module.db.a.b"),
            ("module.x[\"a]\\\"].b\"].a.b", "module.x.a.b"),
        ] {
            assert_eq!(without_keys(address), plain, "{address}");
        }
    }
}
