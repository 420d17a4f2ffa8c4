//! The canvas: nodes and edges in one order, one text and one hash.
//!
//! Equal drawings have equal hashes, whatever order their parts came in; a stored canvas is read back as it was drawn.

use std::{fmt, io::Write};

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::Binary,
};
use kit::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::schema::sql_types::JsonText;

/// The most nodes of a canvas.
pub const MOST_NODES: usize = 2_000;
/// The most edges of a canvas.
pub const MOST_EDGES: usize = 5_000;
/// How deep a node's configuration nests at most; the configuration itself is the first level.
pub const DEEPEST: usize = 32;
/// The most bytes of a canvas as canonical JSON.
pub const MOST_JSON_BYTES: usize = 1 << 20;
/// The most bytes of a canvas as a message, so that an answer with it fits in 4 MiB.
pub const MOST_MESSAGE_BYTES: usize = 3 << 20;

/// Declares an ASCII name of bounded length.
macro_rules! ascii {
    ($(#[$doc:meta])* $name:ident, $most:literal, $rule:literal, first: $first:pat, rest: $rest:pat) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, diesel_derive_newtype::DieselNewType)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What it must be.
            pub const RULE: &'static str = $rule;

            /// The name, if it is one.
            pub fn parse(text: &str) -> Option<Self> {
                let bytes = text.as_bytes();
                let shaped = matches!(bytes.first(), Some($first)) && bytes.iter().all(|byte| matches!(byte, $rest));
                (shaped && bytes.len() <= $most).then(|| Self(text.to_owned()))
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

ascii! {
    /// A node's id, stable over its life.
    NodeId, 64, "must be 1 to 64 of A-Z, a-z, 0-9, _ and -",
    first: b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-',
    rest: b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'
}
ascii! {
    /// Terraform's resource type.
    ResourceType, 128, "must be 1 to 128 of a-z, 0-9 and _, starting with a letter",
    first: b'a'..=b'z', rest: b'a'..=b'z' | b'0'..=b'9' | b'_'
}
ascii! {
    /// Terraform's resource name.
    ResourceName, 64, "must be 1 to 64 of A-Z, a-z, 0-9, _ and -, starting with a letter or _",
    first: b'A'..=b'Z' | b'a'..=b'z' | b'_', rest: b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'
}

/// Nodes and edges in canonical order; serialised, it has the shape of the message's JSON form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Drawing {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<Node>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    edges: Vec<Edge>,
}

/// One cloud resource on the canvas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id, unique in the canvas.
    pub id: NodeId,
    /// Terraform's type.
    pub resource_type: ResourceType,
    /// Terraform's name, unique with the type.
    pub name: ResourceName,
    /// Where it lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// How large it is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// The node that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<NodeId>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Map<String, Value>>,
}

/// A place; both are finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// To the right.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub x: f64,
    /// Down.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub y: f64,
}

/// An extent; both are finite and not negative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// To the right.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub width: f64,
    /// Down.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub height: f64,
}

/// A relation between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// Where it starts.
    pub from: NodeId,
    /// Where it ends.
    pub to: NodeId,
    /// What it means.
    pub kind: EdgeKind,
}

/// What an edge means; in the order of the proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EdgeKind {
    /// `from` is created after `to`.
    #[serde(rename = "EDGE_KIND_DEPENDS_ON")]
    DependsOn,
    /// Drawn only.
    #[serde(rename = "EDGE_KIND_CONNECTS")]
    Connects,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// A canvas with its canonical text and the text's hash.
#[derive(Clone, Debug, PartialEq)]
pub struct Canvas {
    drawing: Drawing,
    text: CanvasText,
    hash: CanvasHash,
}

/// A canvas as RFC 8785 JSON, as it is stored and hashed.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    diesel::expression::AsExpression,
    diesel::deserialize::FromSqlRow,
)]
#[serde(transparent)]
#[diesel(sql_type = JsonText)]
pub struct CanvasText(String);

/// SHA-256 of a [`CanvasText`].
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    diesel::expression::AsExpression,
    diesel::deserialize::FromSqlRow,
)]
#[serde(transparent)]
#[diesel(sql_type = Binary)]
pub struct CanvasHash([u8; 32]);

impl Canvas {
    /// The canvas of nodes and edges that were checked; puts them in order.
    ///
    /// # Errors
    /// INTERNAL for a number that is not finite: such a canvas was not checked.
    pub fn new(mut nodes: Vec<Node>, mut edges: Vec<Edge>) -> Result<Canvas> {
        nodes.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        edges.sort_unstable();
        let drawing = Drawing { nodes, edges };
        let text = CanvasText(serde_json_canonicalizer::to_string(&drawing).map_err(Error::internal)?);
        let hash = text.hash();
        Ok(Canvas { drawing, text, hash })
    }

    /// Reads a stored canvas.
    ///
    /// # Errors
    /// INTERNAL: what is stored was checked before.
    pub fn read(text: CanvasText) -> Result<Canvas> {
        let drawing = serde_json::from_str(&text.0).map_err(Error::internal)?;
        let hash = text.hash();
        Ok(Canvas { drawing, text, hash })
    }

    /// The nodes, by id.
    pub fn nodes(&self) -> &[Node] {
        &self.drawing.nodes
    }

    /// The canonical JSON.
    pub fn text(&self) -> &CanvasText {
        &self.text
    }

    /// Its hash.
    pub fn hash(&self) -> CanvasHash {
        self.hash
    }

    /// The nodes by id, and the edges by `from`, `to` and kind.
    pub fn into_parts(self) -> (Vec<Node>, Vec<Edge>) {
        (self.drawing.nodes, self.drawing.edges)
    }
}

impl CanvasText {
    /// Its length in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    fn hash(&self) -> CanvasHash {
        CanvasHash(Sha256::digest(&self.0).into())
    }
}

impl fmt::Display for CanvasHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CanvasHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ToSql<JsonText, Pg> for CanvasText {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<JsonText, Pg> for CanvasText {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(CanvasText(String::from_utf8(value.as_bytes().to_vec())?))
    }
}

impl ToSql<Binary, Pg> for CanvasHash {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&self.0)?;
        Ok(IsNull::No)
    }
}

impl FromSql<Binary, Pg> for CanvasHash {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(CanvasHash(value.as_bytes().try_into()?))
    }
}
