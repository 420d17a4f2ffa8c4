//! Reading `terraform show -json PLAN`.
//!
//! Of a plan only `resource_drift` is drift. What else it tells is told apart from it: what is only written differently,
//! what moved, what the configuration would change, and which of its checks failed.
//! Nothing of a plan's text is ever part of what is said to be wrong with it.

mod design;
mod drifting;
pub(crate) mod observed;
mod value;

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Value, error::Category};

use self::{
    design::{Configured, Designed},
    drifting::Drifting,
    value::Part,
};
use super::{Address, DriftKind, Printer, Prints, ResourceType, view::View};
use crate::model::masking::Values;

/// The most drift logs of one check.
pub(crate) const MOST_FINDINGS: usize = 10_000;

/// What one drift log will say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) address: Address,
    pub(crate) resource_type: ResourceType,
    pub(crate) kind: DriftKind,
    /// Empty for a resource that is gone.
    pub(crate) path: String,
    /// `None` where they are kept back.
    pub(crate) values: Option<Values>,
    pub(crate) prints: Prints,
}

/// What is no drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Resources that the provider only writes differently.
    pub(crate) normalised: usize,
    /// Resources with another address than before.
    pub(crate) moved: usize,
    /// Resources that the configuration would change.
    pub(crate) unapplied: usize,
    /// Checks of the configuration that failed.
    pub(crate) failed_checks: usize,
}

/// What a plan says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Drift {
    /// What is to be logged, in the plan's order.
    pub(crate) findings: Vec<Finding>,
    pub(crate) tally: Tally,
    pub(crate) view: View,
    /// Whether the plan failed, and nothing was looked at.
    pub(crate) errored: bool,
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
pub(crate) fn read(plan: &[u8], printer: &Printer) -> Result<Drift, Unreadable> {
    let unreadable = |problem: &str| Err(Unreadable(problem.to_owned()));
    let Ok(text) = std::str::from_utf8(plan) else {
        return unreadable("must be UTF-8");
    };
    let text = text.trim_start_matches('\u{feff}');
    let plan: Plan = parsed(text)?;
    let major = plan.format_version.split('.').next();
    if major != Some("1") {
        return unreadable("must have format_version 1.x");
    }
    if plan.planned_values.is_none() || plan.configuration.is_none() {
        return unreadable("must be a whole plan as `terraform show -json PLAN` writes it, not a state or a part");
    }
    if plan.errored == Some(true) {
        return Ok(Drift {
            errored: true,
            ..Drift::default()
        });
    }
    if plan.complete == Some(false) {
        return unreadable("must be of a complete plan, without -target and deferred changes");
    }
    let normal = plan.resource_changes.is_some();
    let mut drifting = Drifting::new(printer, "resource_drift");
    drifting.read(text)?;
    let configured = Configured::of(plan.configuration.unwrap_or_default());
    let mut designed = Designed::new(drifting, configured);
    if normal {
        designed.read_changes(text)?;
    } else {
        designed.read_values(text)?;
    }
    let mut drift = designed.finish();
    drift.tally.failed_checks = plan.checks.iter().flatten().map(Checked::failed).sum();
    Ok(drift)
}

/// JSON, or what is wrong with it.
fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(unparsed)
}

fn unparsed(error: serde_json::Error) -> Unreadable {
    Unreadable(if error.classify() == Category::Data {
        "must be a plan as `terraform show -json` writes it".to_owned()
    } else {
        // The parser's own words may repeat what it read.
        format!(
            "must be JSON, nested at most 128 deep; it is not at line {}, column {}",
            error.line(),
            error.column()
        )
    })
}

#[derive(Deserialize)]
struct Plan {
    format_version: String,
    planned_values: Option<IgnoredAny>,
    configuration: Option<Part>,
    resource_changes: Option<IgnoredAny>,
    checks: Option<Vec<Checked>>,
    errored: Option<bool>,
    complete: Option<bool>,
}

/// A check, a precondition or a postcondition.
#[derive(Deserialize)]
struct Checked {
    #[serde(default)]
    status: String,
    #[serde(default, deserialize_with = "listed")]
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    #[serde(default)]
    status: String,
}

fn listed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Instance>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Checked {
    fn failed(&self) -> usize {
        let failed = |status: &str| matches!(status, "fail" | "error");
        let instances = self
            .instances
            .iter()
            .filter(|instance| failed(&instance.status))
            .count();
        instances.max(usize::from(failed(&self.status)))
    }
}

/// One entry of `resource_drift` or `resource_changes`.
#[derive(Deserialize)]
struct Entry {
    address: String,
    previous_address: Option<String>,
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
    after_unknown: Part,
    #[serde(default)]
    before_sensitive: Part,
    #[serde(default)]
    after_sensitive: Part,
}

impl Change {
    fn parts(&self) -> [&Part; 5] {
        let Change {
            before,
            after,
            after_unknown,
            before_sensitive,
            after_sensitive,
            ..
        } = self;
        [before, after, after_unknown, before_sensitive, after_sensitive]
    }

    fn whole(&self) -> bool {
        self.parts().iter().all(|part| part.whole)
    }

    fn size(&self) -> u32 {
        self.parts().iter().map(|part| part.size).sum()
    }
}

/// A resource that has drifted, as the plan tells of it: what the view is made from.
struct Held {
    before: Value,
    after: Value,
    marks: Value,
}

/// The drifted resources by their addresses.
type Helds = HashMap<String, Held>;

#[cfg(test)]
mod tests;
