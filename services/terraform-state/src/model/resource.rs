//! Resources as an organization looks for them: their addresses and what they are, and nothing of what they hold.

use std::collections::BTreeMap;

use kit::crypto::KeyRing;
use serde::Serialize;

use super::{StateId, state::StateName};

/// The most resources of a state that are listed.
const MOST_LISTED: usize = 20_000;
/// The most bytes of their texts together.
const MOST_LISTED_BYTES: usize = 4 << 20;
const HASH_CONTEXT: &str = "terraform_state resources";

/// A resource's address as Terraform writes it, without an instance's key.
pub(crate) fn address(module: &str, mode: &str, resource_type: &str, name: &str) -> String {
    let dot = if module.is_empty() { "" } else { "." };
    let data = if mode == "data" { "data." } else { "" };
    format!("{module}{dot}{data}{resource_type}.{name}")
}

/// What is listed of a resource beside its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    pub(crate) resource_type: String,
    pub(crate) provider: String,
    pub(crate) module: String,
    pub(crate) instances: i32,
}

/// The resources of a content, by address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) resources: BTreeMap<String, Listed>,
    /// How many more there are.
    pub(crate) unlisted: i32,
    bytes: usize,
}

impl Index {
    /// Adds a resource, if there is room for it and its texts can be kept.
    pub(crate) fn add(&mut self, mode: &str, name: &str, listed: Listed) {
        let address = address(&listed.module, mode, &listed.resource_type, name);
        let text = |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
        let bytes = address.len() + listed.resource_type.len() + listed.provider.len() + listed.module.len();
        let sound = !listed.resource_type.is_empty()
            && text(&address, 1000)
            && text(&listed.resource_type, 200)
            && text(&listed.provider, 300)
            && text(&listed.module, 1000);
        if let (true, Some(known)) = (sound, self.resources.get_mut(&address)) {
            known.instances = known.instances.saturating_add(listed.instances);
        } else if sound && self.resources.len() < MOST_LISTED && self.bytes + bytes <= MOST_LISTED_BYTES {
            self.bytes += bytes;
            self.resources.insert(address, listed);
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }

    /// A keyed hash of it, by which a content with the same resources is known.
    pub(crate) fn hash(&self, ring: &KeyRing) -> [u8; 32] {
        let told = serde_json::to_vec(&self.resources).expect("texts and numbers are JSON");
        ring.keyed_hash(HASH_CONTEXT, &told)
    }
}

/// A resource with the state that it is in.
#[derive(Clone, Debug, diesel::prelude::Queryable)]
pub struct Resource {
    /// The state.
    pub state: StateId,
    /// Its name.
    pub state_name: StateName,
    /// Its address.
    pub address: String,
    /// Its type.
    pub resource_type: String,
    /// Its provider.
    pub provider: String,
    /// Its module; empty for the root.
    pub module: String,
    /// How many instances it has.
    pub instances: i32,
}

/// Which resources are asked for; all given conditions hold.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ResourceFilter {
    /// Only those of this state.
    pub state: Option<StateId>,
    /// Only addresses that start so.
    pub prefix: String,
    /// Only those of this type.
    pub resource_type: String,
    /// Only those of this provider.
    pub provider: String,
    /// Only those of this module.
    pub module: String,
    /// Only those of the state of this name: all that a job sees.
    pub only: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(module: &str, instances: i32) -> Listed {
        Listed {
            resource_type: "a_thing".to_owned(),
            provider: "p".to_owned(),
            module: module.to_owned(),
            instances,
        }
    }

    #[test]
    fn what_cannot_be_kept_is_counted() {
        let mut index = Index::default();
        index.add("managed", "x", listed("", 1));
        index.add("managed", "x", listed("", 2));
        index.add("data", "x", listed("module.a[\"b\"]", 1));
        for odd in ["\0", &"x".repeat(1001)] {
            index.add("managed", odd, listed("", 1));
        }
        let addresses: Vec<_> = index.resources.keys().map(String::as_str).collect();
        assert_eq!(addresses, ["a_thing.x", "module.a[\"b\"].data.a_thing.x"]);
        assert_eq!((index.resources["a_thing.x"].instances, index.unlisted), (3, 2));
        for name in 0..MOST_LISTED {
            index.add("managed", &name.to_string(), listed("", 1));
        }
        assert_eq!((index.resources.len(), index.unlisted), (MOST_LISTED, 4));
    }

    #[test]
    fn only_the_same_resources_have_the_same_hash() {
        let ring = KeyRing::ephemeral();
        let of = |instances| {
            let mut index = Index::default();
            index.add("managed", "x", listed("", instances));
            index.hash(&ring)
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
