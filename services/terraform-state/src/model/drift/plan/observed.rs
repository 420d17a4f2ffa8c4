//! A second state as the observation: reality is what it says of each resource.
//!
//! It knows nothing of the design: what differs has drifted, and what only it has is managed by nobody.

use std::collections::BTreeSet;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    Change, Drift, Entry, Unreadable,
    drifting::{Drifting, NOTHING},
    value::Part,
};
use crate::model::{
    difference::{Layout, Managed, Said},
    drift::{Address, Printer, ResourceType, view::Sides},
    masking::marks,
};

/// What tells a state from another JSON: without it, nothing would be there any more.
#[derive(Deserialize)]
struct Whole {
    version: u64,
    #[serde(rename = "lineage")]
    _lineage: String,
    #[serde(rename = "resources")]
    _resources: Vec<IgnoredAny>,
}

/// What has become of a state's resources by what a second one says of them.
pub(crate) fn read(state: &Layout<'_>, observed: &[u8], printer: &Printer) -> Result<Drift, Unreadable> {
    let odd = || Unreadable("must be a whole state of version 4, as `terraform state pull` writes it".to_owned());
    let whole: Whole = serde_json::from_slice(observed).map_err(|_| odd())?;
    let observed = Layout::read(observed).filter(|_| whole.version == 4).ok_or_else(odd)?;
    let mut drifting = Drifting::new(printer, "instances");
    for (index, instance) in state.managed(&observed).enumerate() {
        if let Some(entry) = entry(&instance)? {
            drifting.add(entry, index).map_err(Unreadable)?;
        }
    }
    let Drifting { mut drift, held, .. } = drifting;
    let said = BTreeSet::new();
    for instance in state.managed(&observed) {
        let named = Address::parse(instance.address).zip(ResourceType::parse(instance.resource_type));
        let Some((address, resource_type)) = named else {
            continue;
        };
        let held = held.get(instance.address);
        let side = |side: Option<Said<'_>>| side.map(|_| &NOTHING);
        let [was, is] = match held {
            Some(held) => [Some(&held.before), Some(&held.after).filter(|value| value.is_object())],
            // There was no room for it.
            None if instance.before.is_some() && instance.after.is_some_and(|it| Some(it) != instance.before) => {
                continue;
            }
            // The same on both sides, or only on one.
            None => [side(instance.before), side(instance.after)],
        };
        drift.view.add(&Sides {
            address: &address,
            resource_type: &resource_type,
            // What it wants of a resource is not known; that it wants it is taken for granted.
            design: was,
            unknown: &Value::Bool(true),
            state: was,
            reality: is,
            marks: held.map_or(&NOTHING, |held| &held.marks),
            said: Some(&said),
        });
    }
    Ok(drift)
}

/// An instance as a plan would tell of it; none where it is the same, or only observed.
fn entry(instance: &Managed<'_>) -> Result<Option<Entry>, Unreadable> {
    let Some(before) = instance.before.filter(|before| before.attributes.is_some()) else {
        return Ok(None);
    };
    let after = instance.after.filter(|after| after.attributes.is_some());
    if instance.after == Some(before) {
        return Ok(None);
    }
    let action = if after.is_some() { "update" } else { "delete" };
    let [was, is] = [values(Some(before))?, values(after)?];
    Ok(Some(Entry {
        address: instance.address.to_owned(),
        previous_address: None,
        mode: "managed".to_owned(),
        resource_type: instance.resource_type.to_owned(),
        deposed: None,
        change: Change {
            actions: vec![action.to_owned()],
            before: was.0,
            after: is.0,
            after_unknown: Part::default(),
            before_sensitive: was.1,
            after_sensitive: is.1,
        },
    }))
}

/// An instance's attributes and marks.
fn values(said: Option<Said<'_>>) -> Result<(Part, Part), Unreadable> {
    let part = |written: Option<&[u8]>| match written {
        Some(written) => serde_json::from_slice(written).map_err(super::unparsed),
        None => Ok(Part::default()),
    };
    let Some(Said { attributes, sensitive }) = said else {
        return Ok((Part::default(), Part::default()));
    };
    let paths: Part = part(sensitive)?;
    // Paths that were not all read leave nothing unmarked.
    let value = if paths.whole {
        marks(&paths.value)
    } else {
        Value::Bool(true)
    };
    let marked = Part {
        value,
        whole: true,
        ..paths
    };
    Ok((part(attributes)?, marked))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kit::{crypto::KeyRing, ids::OrgId};
    use serde_json::json;

    use super::*;
    use crate::model::StateId;

    fn state(resources: &[(&str, Value)]) -> Vec<u8> {
        let resources = resources.iter().map(|(name, attributes)| {
            let attributes = attributes.clone();
            json!({"mode": "managed", "type": "a_thing", "name": name, "provider": "p", "instances": [
                {"schema_version": 0, "attributes": attributes, "sensitive_attributes": [[{"type": "get_attr", "value": "note"}]]},
            ]})
        });
        let resources: Vec<Value> = resources.collect();
        json!({"version": 4, "terraform_version": "1.11.0", "serial": 1, "lineage": "x", "outputs": {}, "resources": resources})
            .to_string()
            .into_bytes()
    }

    fn observe(one: &[u8], other: &[u8]) -> Result<Drift, Unreadable> {
        let printer = Printer {
            ring: KeyRing::ephemeral(),
            org: OrgId::new(),
            state: StateId::new(),
        };
        read(&Layout::read(one).unwrap(), other, &printer)
    }

    #[test]
    fn what_changed_what_is_gone_and_what_is_nobodys_are_told_apart() {
        let before = state(&[
            ("gone", json!({"id": "1"})),
            ("same", json!({"id": "2", "size": 1})),
            ("written", json!({"id": "3", "note": "one", "size": 1})),
            ("layout", json!({"id": "4", "ports": [1, 2], "text": null})),
        ]);
        let after = state(&[
            ("layout", json!({"id": "4", "ports": [2, 1], "text": ""})),
            ("new", json!({"id": "5"})),
            ("same", json!({"id": "2", "size": 1})),
            ("written", json!({"id": "3", "note": "two", "size": 2})),
        ]);
        let drift = observe(&before, &after).unwrap();
        let found = drift.findings.iter().map(|finding| {
            (
                finding.address.as_str(),
                finding.kind.as_str(),
                finding.path.as_str(),
                finding.values.is_some(),
            )
        });
        let found: Vec<_> = found.collect();
        assert_eq!(
            found,
            [
                ("a_thing.gone", "deleted", "", false),
                ("a_thing.written", "changed", "note", false),
                ("a_thing.written", "changed", "size", true),
            ]
        );
        assert_eq!(drift.tally.normalised, 1);
        let view = drift.view.rows.iter();
        let view: Vec<_> = view
            .map(|row| (row.address.as_str(), row.path.as_str(), row.cause.as_str()))
            .collect();
        assert_eq!(
            view,
            [
                ("a_thing.gone", "", "missing"),
                ("a_thing.layout", "", "in_sync"),
                ("a_thing.new", "", "unmanaged"),
                ("a_thing.same", "", "in_sync"),
                ("a_thing.written", "note", "drifted"),
                ("a_thing.written", "size", "drifted"),
            ]
        );
    }

    #[test]
    fn what_is_no_state_is_not_taken_for_an_empty_one() {
        let before = state(&[("a", json!({"id": "1"}))]);
        let bare = |text: &str| observe(&before, text.as_bytes()).unwrap_err();
        for text in [
            "",
            "{}",
            "[]",
            "{\"version\":4}",
            "{\"version\":3,\"lineage\":\"x\",\"resources\":[]}",
        ] {
            assert!(String::from(bare(text)).starts_with("must be a whole state"), "{text}");
        }
        let gone = observe(&before, &state(&[])).unwrap();
        assert_eq!(gone.findings.len(), 1);
    }
}
