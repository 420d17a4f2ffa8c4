//! Canvases: what is checked, and with which words.

use std::collections::{HashMap, HashSet};

use api::designs::v1;
use kit::Violations;
use prost::Message;

use super::{UNKNOWN_ENUM, structure};
use crate::model::canvas::{
    Canvas, Edge, EdgeKind, MOST_EDGES, MOST_JSON_BYTES, MOST_MESSAGE_BYTES, MOST_NODES, Node, NodeId, Position,
    ResourceName, ResourceType, Size,
};

/// Reads a canvas, the value of `field`; `None` left a violation behind.
pub(crate) fn read(field: &str, canvas: v1::Canvas, violations: &mut Violations) -> Option<Canvas> {
    let mut checks = Checks {
        violations,
        sound: true,
    };
    checks.rule(
        canvas.nodes.len() <= MOST_NODES,
        || format!("{field}.nodes"),
        "must be at most 2,000",
    );
    checks.rule(
        canvas.edges.len() <= MOST_EDGES,
        || format!("{field}.edges"),
        "must be at most 5,000",
    );
    checks.rule(
        canvas.encoded_len() <= MOST_MESSAGE_BYTES,
        || field.to_owned(),
        "must be at most 3 MiB as a message",
    );
    if !checks.sound {
        return None;
    }
    let by_id = checks.identities(field, &canvas.nodes);
    checks.parents(field, &canvas.nodes, &by_id);
    checks.relations(field, &canvas.edges, &by_id);
    drop(by_id);
    let nodes: Vec<Option<Node>> = canvas
        .nodes
        .into_iter()
        .enumerate()
        .map(|(index, node)| checks.node(&format!("{field}.nodes[{index}]"), node))
        .collect();
    let edges: Vec<Option<Edge>> = canvas.edges.iter().map(edge).collect();
    if !checks.sound {
        return None;
    }
    let (nodes, edges) = (
        nodes.into_iter().collect::<Option<_>>()?,
        edges.into_iter().collect::<Option<_>>()?,
    );
    let canvas = match Canvas::new(nodes, edges) {
        Ok(canvas) => canvas,
        Err(_) => {
            checks.wrong(field.to_owned(), "has no canonical form");
            return None;
        }
    };
    checks.rule(
        canvas.text().size() <= MOST_JSON_BYTES,
        || field.to_owned(),
        "must be at most 1 MiB as canonical JSON",
    );
    checks.sound.then_some(canvas)
}

/// The violations, and whether the canvas added any.
struct Checks<'a> {
    violations: &'a mut Violations,
    sound: bool,
}

impl Checks<'_> {
    fn wrong(&mut self, field: String, rule: &str) {
        self.sound = false;
        self.violations.add(field, rule);
    }

    fn rule(&mut self, holds: bool, field: impl FnOnce() -> String, rule: &str) {
        if !holds {
            self.wrong(field(), rule);
        }
    }

    /// Each id and each address once; answers where each id is first.
    fn identities<'n>(&mut self, field: &str, nodes: &'n [v1::Node]) -> HashMap<&'n str, usize> {
        let mut by_id = HashMap::with_capacity(nodes.len());
        let mut addresses = HashSet::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let unique = *by_id.entry(node.id.as_str()).or_insert(index) == index;
            self.rule(
                unique,
                || format!("{field}.nodes[{index}].id"),
                "must be unique in the canvas",
            );
            let unique = addresses.insert((node.resource_type.as_str(), node.name.as_str()));
            self.rule(
                unique,
                || format!("{field}.nodes[{index}].name"),
                "must be unique with the resource type",
            );
        }
        by_id
    }

    /// Each parent exists, and no node lies within itself.
    fn parents(&mut self, field: &str, nodes: &[v1::Node], by_id: &HashMap<&str, usize>) {
        let mut parents = vec![None; nodes.len()];
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| !node.parent_id.is_empty()) {
            parents[index] = by_id.get(node.parent_id.as_str()).copied();
            let there = parents[index].is_some();
            self.rule(
                there,
                || format!("{field}.nodes[{index}].parent_id"),
                "must be the id of a node",
            );
        }
        // Each node is walked through once: a walk ends where it or an earlier one has been.
        let mut walked_by = vec![usize::MAX; nodes.len()];
        for start in 0..nodes.len() {
            let mut here = Some(start);
            while let Some(index) = here.filter(|index| walked_by[*index] == usize::MAX) {
                walked_by[index] = start;
                here = parents[index];
            }
            // Back on its own way: everything from here on is the cycle.
            let Some(first) = here.filter(|index| walked_by[*index] == start) else {
                continue;
            };
            let mut index = first;
            loop {
                self.wrong(
                    format!("{field}.nodes[{index}].parent_id"),
                    "must not lead back to the node itself",
                );
                index = parents[index].expect("a cycle has no end");
                if index == first {
                    break;
                }
            }
        }
    }

    fn relations(&mut self, field: &str, edges: &[v1::Edge], by_id: &HashMap<&str, usize>) {
        let mut seen = HashSet::with_capacity(edges.len());
        for (index, edge) in edges.iter().enumerate() {
            let path = |name: &str| format!("{field}.edges[{index}].{name}");
            self.rule(
                by_id.contains_key(edge.from.as_str()),
                || path("from"),
                "must be the id of a node",
            );
            self.rule(
                by_id.contains_key(edge.to.as_str()),
                || path("to"),
                "must be the id of a node",
            );
            self.rule(edge.from != edge.to, || path("to"), "must be another node than `from`");
            let rule = if edge.kind == 0 { "is required" } else { UNKNOWN_ENUM };
            self.rule(kind(edge.kind).is_some(), || path("kind"), rule);
            let unique = seen.insert((edge.from.as_str(), edge.to.as_str(), edge.kind));
            self.rule(unique, || format!("{field}.edges[{index}]"), "must be there once");
        }
    }

    fn node(&mut self, path: &str, node: v1::Node) -> Option<Node> {
        let id = NodeId::parse(&node.id);
        self.rule(id.is_some(), || format!("{path}.id"), NodeId::RULE);
        let resource_type = ResourceType::parse(&node.resource_type);
        self.rule(
            resource_type.is_some(),
            || format!("{path}.resource_type"),
            ResourceType::RULE,
        );
        let name = ResourceName::parse(&node.name);
        self.rule(name.is_some(), || format!("{path}.name"), ResourceName::RULE);
        if let Some(v1::Position { x, y }) = node.position {
            self.rule(x.is_finite(), || format!("{path}.position.x"), "must be finite");
            self.rule(y.is_finite(), || format!("{path}.position.y"), "must be finite");
        }
        if let Some(v1::Size { width, height }) = node.size {
            let sane = |number: f64| number.is_finite() && number >= 0.0;
            self.rule(
                sane(width),
                || format!("{path}.size.width"),
                "must be finite and not negative",
            );
            self.rule(
                sane(height),
                || format!("{path}.size.height"),
                "must be finite and not negative",
            );
        }
        let configuration = node.configuration.map(|structure| {
            structure::read(&format!("{path}.configuration"), structure, &mut |field, rule| {
                self.wrong(field, rule)
            })
        });
        Some(Node {
            id: id?,
            resource_type: resource_type?,
            name: name?,
            position: node.position.map(|v1::Position { x, y }| Position { x, y }),
            size: node.size.map(|v1::Size { width, height }| Size { width, height }),
            // One that is not well-formed is the id of no node, which was told above.
            parent_id: NodeId::parse(&node.parent_id),
            configuration,
        })
    }
}

fn edge(edge: &v1::Edge) -> Option<Edge> {
    Some(Edge {
        from: NodeId::parse(&edge.from)?,
        to: NodeId::parse(&edge.to)?,
        kind: kind(edge.kind)?,
    })
}

fn kind(number: i32) -> Option<EdgeKind> {
    match v1::EdgeKind::try_from(number) {
        Ok(v1::EdgeKind::DependsOn) => Some(EdgeKind::DependsOn),
        Ok(v1::EdgeKind::Connects) => Some(EdgeKind::Connects),
        Ok(v1::EdgeKind::Unspecified) | Err(_) => None,
    }
}

impl From<Canvas> for v1::Canvas {
    fn from(canvas: Canvas) -> Self {
        let (nodes, edges) = canvas.into_parts();
        v1::Canvas {
            nodes: nodes.into_iter().map(Into::into).collect(),
            edges: edges.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Node> for v1::Node {
    fn from(node: Node) -> Self {
        v1::Node {
            id: node.id.into(),
            resource_type: node.resource_type.into(),
            name: node.name.into(),
            position: node.position.map(|Position { x, y }| v1::Position { x, y }),
            size: node.size.map(|Size { width, height }| v1::Size { width, height }),
            parent_id: node.parent_id.map(String::from).unwrap_or_default(),
            configuration: node.configuration.map(structure::write),
        }
    }
}

impl From<Edge> for v1::Edge {
    fn from(edge: Edge) -> Self {
        let kind = match edge.kind {
            EdgeKind::DependsOn => v1::EdgeKind::DependsOn,
            EdgeKind::Connects => v1::EdgeKind::Connects,
        };
        v1::Edge {
            from: edge.from.into(),
            to: edge.to.into(),
            kind: kind.into(),
        }
    }
}
