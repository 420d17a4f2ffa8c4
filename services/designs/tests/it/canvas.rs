//! Canvases: stored as they were drawn, hashed whatever the order.

use api::designs::v1::{Canvas, Edge, EdgeKind, Node, Position, Size};
use prost_types::{Struct, Value, value::Kind};

use crate::world::{World, canvas, edge, list, node, object, text, value};

/// A small generator: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    /// Any finite number: of every size, and with every kind of fraction.
    fn number(&mut self) -> f64 {
        match self.roll(4) {
            0 => self.roll(1_000) as f64,
            1 => -(self.roll(u64::MAX) as f64),
            2 => self.roll(1 << 53) as f64 / 1e7,
            _ => Some(f64::from_bits(self.roll(u64::MAX)))
                .filter(|number| number.is_finite())
                .unwrap_or(1e-7),
        }
    }

    fn text(&mut self) -> String {
        let letters = [
            'a', 'Z', '0', '"', '\\', '/', '\u{0}', '\n', '\u{7f}', 'é', '\u{2028}', '€', '\u{fb33}', '😀',
        ];
        (0..self.roll(8))
            .map(|_| letters[self.roll(letters.len() as u64) as usize])
            .collect()
    }

    fn value(&mut self, depth: u64) -> Value {
        let kind = match self.roll(if depth == 0 { 4 } else { 6 }) {
            0 => Kind::NullValue(0),
            1 => Kind::BoolValue(self.roll(2) == 0),
            2 => Kind::NumberValue(self.number()),
            3 => Kind::StringValue(self.text()),
            4 => return list((0..self.roll(4)).map(|_| self.value(depth - 1)).collect()),
            _ => Kind::StructValue(self.object(depth - 1)),
        };
        value(kind)
    }

    fn object(&mut self, depth: u64) -> Struct {
        let fields = (0..self.roll(4)).map(|_| (self.text(), self.value(depth))).collect();
        Struct { fields }
    }

    fn canvas(&mut self) -> Canvas {
        let count = self.roll(12) + 1;
        let nodes = (0..count).map(|index| {
            let mut drawn = node(&format!("{}{index}", ["x", "A", "_", "-"][self.roll(4) as usize]));
            drawn.position = (self.roll(3) > 0).then(|| Position {
                x: self.number(),
                y: 0.0,
            });
            drawn.size = (self.roll(3) > 0).then(|| Size {
                width: self.number().abs(),
                height: 0.25,
            });
            drawn.configuration = (self.roll(4) > 0).then(|| self.object(4));
            drawn
        });
        let mut nodes: Vec<Node> = nodes.collect();
        for index in 1..nodes.len() {
            if self.roll(3) == 0 {
                nodes[index].parent_id = nodes[self.roll(index as u64) as usize].id.clone();
            }
        }
        let mut edges: Vec<Edge> = Vec::new();
        for _ in 0..self.roll(12) {
            let (from, to) = (self.roll(count) as usize, self.roll(count) as usize);
            let kind = [EdgeKind::DependsOn, EdgeKind::Connects][self.roll(2) as usize];
            let edge = Edge {
                kind: kind.into(),
                ..edge(&nodes[from].id, &nodes[to].id)
            };
            if from != to && !edges.contains(&edge) {
                edges.push(edge);
            }
        }
        Canvas { nodes, edges }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.roll(index as u64 + 1) as usize);
        }
    }
}

fn sorted(mut canvas: Canvas) -> Canvas {
    canvas.nodes.sort_by(|one, other| one.id.cmp(&other.id));
    canvas
        .edges
        .sort_by(|one, other| (&one.from, &one.to, one.kind).cmp(&(&other.from, &other.to, other.kind)));
    canvas
}

#[tokio::test]
async fn what_is_read_equals_what_was_drawn_and_the_hash_knows_no_order() {
    let world = World::new().await;
    let mut ada = world.designer();
    let mut dice = Dice(2026);
    let mut hashes = std::collections::HashMap::new();
    for round in 0..60 {
        let mut drawn = dice.canvas();
        let made = ada.draw(drawn.clone()).await;
        assert_eq!(made.canvas, Some(sorted(drawn.clone())), "round {round}");
        // The first read comes from the database, the second from the cache.
        for _ in 0..2 {
            assert_eq!(
                ada.get(&made.id).await.unwrap().canvas,
                Some(sorted(drawn.clone())),
                "round {round}"
            );
        }
        dice.shuffle(&mut drawn.nodes);
        dice.shuffle(&mut drawn.edges);
        assert_eq!(
            ada.draw(drawn.clone()).await.canvas_hash,
            made.canvas_hash,
            "round {round}"
        );
        let redrawn = ada.redraw(&made, drawn.clone()).await.unwrap();
        assert_eq!(redrawn.canvas_hash, made.canvas_hash, "round {round}");
        if let Some(other) = hashes.insert(made.canvas_hash, sorted(drawn.clone())) {
            assert_eq!(other, sorted(drawn), "different canvases have different hashes");
        }
    }
}

#[tokio::test]
async fn a_canvas_is_stored_as_rfc_8785_json_and_hashed_as_such() {
    let world = World::new().await;
    let mut ada = world.designer();
    // The keys and numbers are those of RFC 8785, section 3.2.2 and 3.2.3.
    let numbers = [
        333_333_333.333_333_3,
        1e30,
        4.5,
        2e-3,
        1e-27,
        -0.0,
        9_007_199_254_740_994.0,
    ];
    let configuration = object([
        ("€", text("Euro Sign")),
        ("\r", text("Carriage Return")),
        ("\u{fb33}", text("Hebrew Letter Dalet With Dagesh")),
        ("1", text("One")),
        ("😀", text("Emoji: Grinning Face")),
        ("\u{80}", text("Control")),
        ("ö", text("Latin Small Letter O With Diaeresis")),
        (
            "numbers",
            list(numbers.map(|number| value(Kind::NumberValue(number))).to_vec()),
        ),
    ]);
    let mut drawn = canvas(["b", "a"]);
    drawn.nodes[0].configuration = Some(configuration);
    drawn.nodes[1].parent_id = "b".to_owned();
    drawn.nodes[1].position = Some(Position { x: 0.0, y: -0.0 });
    drawn.edges = vec![edge("b", "a")];
    let made = ada.draw(drawn).await;
    let stored = "select canvas::text, encode(canvas_hash, 'hex'), encode(sha256(convert_to(canvas::text, 'UTF8')), 'hex') from designs";
    let row = world.admin.query_one(stored, &[]).await.unwrap();
    expect_test::expect![[r#"{"edges":[{"from":"b","kind":"EDGE_KIND_DEPENDS_ON","to":"a"}],"nodes":[{"id":"a","name":"n_a","parentId":"b","position":{},"resourceType":"terraform_data","size":{"height":80,"width":160}},{"configuration":{"\r":"Carriage Return","1":"One","numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,0,9007199254740994],"\u0080":"Control","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","😀":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"},"id":"b","name":"n_b","position":{"x":40,"y":0.5},"resourceType":"terraform_data","size":{"height":80,"width":160}}]}"#]]
        .assert_eq(&row.get::<_, String>(0).replace('\u{80}', "\\u0080").replace('\u{fb33}', "\\ufb33"));
    assert_eq!(row.get::<_, String>(1), made.canvas_hash);
    assert_eq!(row.get::<_, String>(2), made.canvas_hash);
}

#[tokio::test]
async fn the_largest_canvas_goes_in_and_out() {
    let world = World::new().await;
    let mut ada = world.designer();
    let mut drawn = Canvas {
        nodes: (0..2_000).map(|index| node(&format!("n{index}"))).collect(),
        edges: (0..5_000)
            .map(|index| {
                edge(
                    &format!("n{}", index % 2_000),
                    &format!("n{}", (index % 2_000 + index / 2_000 + 1) % 2_000),
                )
            })
            .collect(),
    };
    let made = ada.draw(drawn.clone()).await;
    assert_eq!(ada.get(&made.id).await.unwrap().canvas, Some(sorted(drawn.clone())));
    // What is left up to 1 MiB is filled to the byte.
    let stored = world
        .number("select octet_length(canvas::text)::bigint from designs")
        .await;
    let left = (1 << 20) - usize::try_from(stored).unwrap() - r#""configuration":{"":""},"#.len();
    drawn.nodes[0].configuration = Some(object([("", text(&"x".repeat(left)))]));
    let full = ada.redraw(&made, drawn.clone()).await.unwrap();
    assert_eq!(
        world
            .number("select octet_length(canvas::text)::bigint from designs")
            .await,
        1 << 20
    );
    assert_eq!(ada.get(&made.id).await.unwrap(), full);
    drawn.nodes[0].configuration = Some(object([("", text(&"x".repeat(left + 1)))]));
    let refused = crate::world::reason(ada.redraw(&full, drawn).await);
    assert_eq!(
        refused,
        ("INVALID_REQUEST".to_owned(), vec!["design.canvas".to_owned()])
    );
}
