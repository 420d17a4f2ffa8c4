//! A design as Terraform's JSON configuration.
//!
//! The same canvas, state and address give the same bytes, whatever order the canvas was drawn in.
//! What people wrote stays text: nothing in it is read as a template of Terraform's.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kit::{Reason, Result, Violations};
use serde_json::{Map, Number, Value};
use tonic::transport::Uri;

use super::canvas::{Canvas, Edge, EdgeKind, Node, NodeId, ResourceName};

/// The only type as yet: Terraform has it built in.
const RESOURCE_TYPE: &str = "terraform_data";
/// The arguments of that type that a node's configuration may hold, in byte order.
const ARGUMENTS: [&str; 2] = ["input", "triggers_replace"];
/// The first Terraform that has it.
const REQUIRED_VERSION: &str = ">= 1.4.0";

/// The name of a state, as terraform_state has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateName(String);

impl StateName {
    /// What it must be.
    pub const RULE: &'static str = "must be 1 to 200 of A-Z, a-z, 0-9, _, ., - and /, starting and ending with a letter \
                                    or digit, without // and without a segment . or ..";

    /// The name, if it is one.
    pub fn parse(text: &str) -> Option<StateName> {
        let shaped = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/'));
        let ends = [text.bytes().next(), text.bytes().next_back()];
        let ends = ends
            .iter()
            .all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()));
        let segments = text.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        (shaped && ends && segments && text.len() <= 200).then(|| StateName(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where Terraform reaches terraform_state: an http or https address without credentials, query and final slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerraformUrl(String);

impl TerraformUrl {
    /// The address, if it is one.
    pub fn parse(text: &str) -> Option<TerraformUrl> {
        let uri: Uri = text.parse().ok()?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        let bare = uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        let complete = uri.query().is_none() && !text.contains('#');
        (scheme && host && bare && complete).then(|| TerraformUrl(text.trim_end_matches('/').to_owned()))
    }

    /// The address of a state. No character that a state's name can have needs percent-encoding.
    fn state(&self, name: &StateName) -> String {
        format!("{}/v1/states/{}", self.0, name.0)
    }
}

impl std::str::FromStr for TerraformUrl {
    type Err = fmt::Error;
    fn from_str(text: &str) -> Result<Self, fmt::Error> {
        TerraformUrl::parse(text).ok_or(fmt::Error)
    }
}

/// The file, with the backend of a state where one is named.
///
/// # Errors
/// DESIGN_INVALID with everything that cannot be exported, by node.
pub fn render(canvas: Canvas, backend: Option<(&TerraformUrl, &StateName)>) -> Result<String> {
    let (nodes, edges) = canvas.into_parts();
    let depends_on = dependencies(&edges);
    check(&nodes, &depends_on)?;
    let names: BTreeMap<&NodeId, &ResourceName> = nodes.iter().map(|node| (&node.id, &node.name)).collect();
    let mut resources = BTreeMap::new();
    for node in &nodes {
        let mut arguments = BTreeMap::new();
        for (name, value) in node.configuration.iter().flatten() {
            arguments.insert(name.as_str(), literal(value));
        }
        let mut others: Vec<String> = depends_on
            .get(&node.id)
            .into_iter()
            .flatten()
            .map(|other| format!("{RESOURCE_TYPE}.{}", names[other].as_str()))
            .collect();
        others.sort_unstable();
        if !others.is_empty() {
            arguments.insert("depends_on", others.into());
        }
        resources.insert(node.name.as_str(), arguments);
    }
    Ok(file(&resources, backend.map(|(url, name)| url.state(name))))
}

/// Which nodes each node is created after.
fn dependencies(edges: &[Edge]) -> BTreeMap<&NodeId, BTreeSet<&NodeId>> {
    let mut depends_on: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for edge in edges {
        match edge.kind {
            EdgeKind::DependsOn => {
                depends_on.entry(&edge.from).or_default().insert(&edge.to);
            }
            EdgeKind::Connects => {}
        }
    }
    depends_on
}

fn check(nodes: &[Node], depends_on: &BTreeMap<&NodeId, BTreeSet<&NodeId>>) -> Result<()> {
    let waiting = waiting(nodes, depends_on);
    let mut violations = Violations::new();
    for node in nodes {
        let id = node.id.as_str();
        if node.resource_type.as_str() != RESOURCE_TYPE {
            violations.add(
                format!("{id}.resource_type"),
                format!("must be {RESOURCE_TYPE}: no other type can be exported yet"),
            );
            // What its arguments mean is not known.
            continue;
        }
        for name in node.configuration.iter().flat_map(Map::keys) {
            if !ARGUMENTS.contains(&name.as_str()) {
                let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                violations.add(
                    format!("{id}.configuration.{name}"),
                    format!(
                        "must be {}: {RESOURCE_TYPE} has no other argument",
                        ARGUMENTS.join(" or ")
                    ),
                );
            }
        }
        if waiting.contains(&node.id) {
            violations.add(format!("{id}.depends_on"), "must not lead back to the node itself");
        }
    }
    violations.into_result_as(Reason::DesignInvalid, "the design cannot be exported")
}

/// The nodes that come back to themselves by what they depend on.
fn waiting<'a>(nodes: &'a [Node], depends_on: &BTreeMap<&'a NodeId, BTreeSet<&'a NodeId>>) -> BTreeSet<&'a NodeId> {
    let mut before: BTreeMap<&NodeId, BTreeSet<&NodeId>> = BTreeMap::new();
    for (from, all) in depends_on {
        for to in all {
            before.entry(to).or_default().insert(from);
        }
    }
    // What lies on no cycle goes, from both ends, until nothing more does.
    let all: BTreeSet<&NodeId> = nodes.iter().map(|node| &node.id).collect();
    let left = without_ends(all, depends_on, &before);
    without_ends(left, &before, depends_on)
}

/// Takes away nodes from which nothing goes on, again and again.
fn without_ends<'a>(
    mut left: BTreeSet<&'a NodeId>,
    onward: &BTreeMap<&'a NodeId, BTreeSet<&'a NodeId>>,
    backward: &BTreeMap<&'a NodeId, BTreeSet<&'a NodeId>>,
) -> BTreeSet<&'a NodeId> {
    let count = |id: &NodeId, left: &BTreeSet<&NodeId>| {
        let onward = onward.get(id).into_iter().flatten();
        onward.filter(|other| left.contains(*other)).count()
    };
    let mut ways: BTreeMap<&NodeId, usize> = left.iter().map(|id| (*id, count(id, &left))).collect();
    let mut ends: Vec<&NodeId> = ways.iter().filter(|(_, ways)| **ways == 0).map(|(id, _)| *id).collect();
    while let Some(end) = ends.pop() {
        left.remove(end);
        for from in backward
            .get(end)
            .into_iter()
            .flatten()
            .filter(|from| left.contains(*from))
        {
            let ways = ways.get_mut(from).expect("each node that is left is counted");
            *ways -= 1;
            if *ways == 0 {
                ends.push(from);
            }
        }
    }
    left
}

/// A value as Terraform reads it back: texts and keys are templates there, and keys stand in byte order.
fn literal(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(number) => Value::Number(whole(number).unwrap_or_else(|| number.clone())),
        Value::String(text) => Value::String(escaped(text).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(literal).collect()),
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let literals = sorted
                .into_iter()
                .map(|(key, value)| (escaped(key).into_owned(), literal(value)));
            Value::Object(literals.collect())
        }
    }
}

/// The number as an integer, where it is one that a double tells from its neighbours.
fn whole(number: &Number) -> Option<Number> {
    const MOST: f64 = (1_u64 << 53) as f64;
    let double = number.as_f64()?;
    let whole = double.fract() == 0.0 && double.abs() <= MOST;
    whole.then(|| Number::from(double as i64))
}

/// Text whose `${` and `%{` are not the beginning of anything.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains("${") || text.contains("%{") {
        Cow::Owned(text.replace("${", "$${").replace("%{", "%%{"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The file: one line for each argument, so that a change of one is a change of a line.
fn file(resources: &BTreeMap<&str, BTreeMap<&str, Value>>, address: Option<String>) -> String {
    let resources = resources.iter().map(|(name, arguments)| {
        let arguments = arguments.iter().map(|(name, value)| (*name, value.to_string()));
        (*name, block(3, arguments))
    });
    let mut whole = BTreeMap::new();
    if resources.len() > 0 {
        whole.insert("resource", block(1, [(RESOURCE_TYPE, block(2, resources))]));
    }
    let mut terraform = BTreeMap::from([("required_version", Value::from(REQUIRED_VERSION).to_string())]);
    if let Some(address) = address {
        let address = Value::from(escaped(&address)).to_string();
        let http = ["address", "lock_address", "unlock_address"].map(|name| (name, address.clone()));
        terraform.insert("backend", block(2, [("http", block(3, http))]));
    }
    whole.insert("terraform", block(1, terraform));
    block(0, whole) + "\n"
}

/// An object with one member in a line, `depth` levels in.
fn block<'a>(depth: usize, members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let lines: Vec<String> = members
        .into_iter()
        .map(|(name, value)| format!("{}{}: {value}", "  ".repeat(depth + 1), Value::from(name)))
        .collect();
    if lines.is_empty() {
        return "{}".to_owned();
    }
    format!("{{\n{}\n{}}}", lines.join(",\n"), "  ".repeat(depth))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_states_name_is_what_terraform_state_takes() {
        let long = "a".repeat(200);
        for good in ["a", "prod", "team-1/network/eu.west_1", "A..b", "a/.b/c", &long] {
            assert!(StateName::parse(good).is_some(), "{good}");
        }
        let longer = "a".repeat(201);
        for bad in [
            "", "a//b", "a/../b", "a/./b", "/a", "a/", ".a", "a-", "ä", "a b", "a%2fb", "a?b", &longer,
        ] {
            assert!(StateName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_address_names_a_host_and_holds_no_credentials() {
        for (good, kept) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://board3.example/terraform//", "https://board3.example/terraform"),
        ] {
            assert_eq!(TerraformUrl::parse(good).unwrap().0, kept);
        }
        for bad in [
            "",
            "http://",
            "127.0.0.1:8080",
            "ftp://host",
            "http://key@host",
            "http://host/?a=b",
            "http://host/#a",
            "http://a host",
        ] {
            assert_eq!(TerraformUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn whole_numbers_are_integers_as_far_as_doubles_can_tell() {
        let written = |number: f64| literal(&json!(number)).to_string();
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (3.0, "3"),
            (-3.0, "-3"),
            (0.5, "0.5"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1e16, "1e+16"),
            (-1e300, "-1e+300"),
        ] {
            assert_eq!(written(number), text);
        }
    }

    #[test]
    fn no_text_and_no_key_is_a_template() {
        let value = json!({ "${a}": ["%{ if x }", "$${b}", "$ {", "%"], "b": { "%{c": null } });
        let expected = json!({ "$${a}": ["%%{ if x }", "$$${b}", "$ {", "%"], "b": { "%%{c": null } });
        assert_eq!(literal(&value), expected);
    }
}
