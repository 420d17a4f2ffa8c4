//! What is refused, all of it at once, with nothing written.

use api::designs::v1::{
    Canvas, CreateDesignRequest, DeleteDesignRequest, Design, Edge, ListDesignsRequest, ListResourcesRequest,
    ListTemplatesRequest, ListVersionsRequest, Node, Position, PublishDesignRequest, Size, UpdateDesignRequest,
};
use prost_types::{FieldMask, value::Kind};

use crate::world::{World, canvas, edge, list, new, node, object, reason, update, value};

fn invalid(fields: &[&str]) -> (String, Vec<String>) {
    (
        "INVALID_REQUEST".to_owned(),
        fields.iter().map(|&field| field.to_owned()).collect(),
    )
}

#[tokio::test]
async fn every_violation_of_a_canvas_is_told_at_once() {
    let world = World::new().await;
    let mut ada = world.designer();
    let nan = value(Kind::NumberValue(f64::NAN));
    let broken = Node {
        id: "not an id".to_owned(),
        resource_type: "Terraform".to_owned(),
        name: "0".to_owned(),
        position: Some(Position {
            x: f64::NAN,
            y: f64::INFINITY,
        }),
        size: Some(Size {
            width: -1.0,
            height: f64::NAN,
        }),
        parent_id: "nobody".to_owned(),
        configuration: Some(object([(
            "tags",
            list(vec![nan.clone(), value(Kind::StructValue(object([("env", nan)])))]),
        )])),
    };
    let twin = node("a");
    let within = |id: &str, parent: &str| Node {
        parent_id: parent.to_owned(),
        ..node(id)
    };
    let drawn = Canvas {
        nodes: vec![
            node("a"),
            broken,
            twin,
            within("c", "d"),
            within("d", "c"),
            within("e", "e"),
            within("f", "d"),
        ],
        edges: vec![
            edge("a", "c"),
            edge("a", "c"),
            edge("a", "a"),
            edge("x", "y"),
            Edge {
                kind: 0,
                ..edge("a", "d")
            },
            Edge {
                kind: 9,
                ..edge("a", "d")
            },
        ],
    };
    let request = CreateDesignRequest {
        name: String::new(),
        description: "d".repeat(4_001),
        cloud_provider: 77,
        ..new("", drawn)
    };
    let before = world.rows().await;
    let (code, mut fields) = reason(ada.make(request).await);
    fields.sort();
    let mut expected = invalid(&[
        "name",
        "description",
        "cloud_provider",
        "canvas.nodes[1].id",
        "canvas.nodes[1].resource_type",
        "canvas.nodes[1].name",
        "canvas.nodes[1].position.x",
        "canvas.nodes[1].position.y",
        "canvas.nodes[1].size.width",
        "canvas.nodes[1].size.height",
        "canvas.nodes[1].parent_id",
        "canvas.nodes[1].configuration.tags[0]",
        "canvas.nodes[1].configuration.tags[1].env",
        "canvas.nodes[2].id",
        "canvas.nodes[2].name",
        "canvas.nodes[3].parent_id",
        "canvas.nodes[4].parent_id",
        "canvas.nodes[5].parent_id",
        "canvas.edges[1]",
        "canvas.edges[2].to",
        "canvas.edges[3].from",
        "canvas.edges[3].to",
        "canvas.edges[4].kind",
        "canvas.edges[5].kind",
    ]);
    expected.1.sort();
    assert_eq!((code, fields), expected);
    assert_eq!(world.rows().await, before);
}

#[tokio::test]
async fn counts_depth_and_sizes_have_limits() {
    let world = World::new().await;
    let mut ada = world.designer();
    let many = Canvas {
        nodes: (0..2_001).map(|index| node(&format!("n{index}"))).collect(),
        edges: (0..5_001).map(|_| edge("n0", "n1")).collect(),
    };
    assert_eq!(
        reason(ada.make(new("many", many)).await),
        invalid(&["canvas.nodes", "canvas.edges"])
    );

    let nested = |levels: usize| {
        let mut inner = object([]);
        for _ in 1..levels {
            inner = object([("deeper", value(Kind::StructValue(inner)))]);
        }
        let mut drawn = canvas(["a"]);
        drawn.nodes[0].configuration = Some(inner);
        drawn
    };
    let deepest = ada.draw(nested(32)).await;
    assert_eq!(ada.redraw(&deepest, nested(32)).await.unwrap().canvas, Some(nested(32)));
    // The decoder ends at 100 levels of messages, three of which are one level of objects.
    for levels in [33, 34, 90] {
        assert_eq!(
            reason(ada.make(new("deep", nested(levels))).await).0,
            "INVALID_REQUEST",
            "{levels}"
        );
    }
    let mut lists = list(Vec::new());
    for _ in 0..31 {
        lists = list(vec![lists]);
    }
    let mut drawn = canvas(["a"]);
    drawn.nodes[0].configuration = Some(object([("list", lists)]));
    assert_eq!(
        reason(ada.make(new("deep", drawn)).await),
        invalid(&["canvas.nodes[0].configuration"])
    );

    // Small as JSON, large as a message: it could not be answered beside a description.
    let mut numbers = canvas(["a"]);
    let zeros = vec![value(Kind::NumberValue(0.0)); 300_000];
    numbers.nodes[0].configuration = Some(object([("zeros", list(zeros))]));
    assert_eq!(reason(ada.make(new("numbers", numbers)).await), invalid(&["canvas"]));

    let huge = CreateDesignRequest {
        description: "d".repeat(5 << 20),
        ..new("huge", Canvas::default())
    };
    assert_eq!(reason(ada.make(huge).await).0, "MESSAGE_TOO_LARGE");
}

#[tokio::test]
async fn every_request_is_read_to_its_end() {
    let world = World::new().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    let before = world.rows().await;

    let create = CreateDesignRequest {
        template_id: "nothing".to_owned(),
        cloud_provider: -1,
        ..new("n\u{7}", canvas(["bad id"]))
    };
    assert_eq!(
        reason(ada.make(create).await),
        invalid(&[
            "name",
            "cloud_provider",
            "canvas",
            "canvas.nodes[0].id",
            "canvas.nodes[0].name",
            "template_id"
        ])
    );
    assert_eq!(
        reason(ada.make(CreateDesignRequest::default()).await),
        invalid(&["name", "cloud_provider"])
    );

    let empty = UpdateDesignRequest::default();
    assert_eq!(
        reason(ada.designs.update_design(empty).await),
        invalid(&["design_id", "etag", "update_mask", "design"])
    );
    let bad = Design {
        name: "n".repeat(201),
        cloud_provider: 0,
        canvas: Some(canvas([""])),
        ..made.clone()
    };
    let bad = UpdateDesignRequest {
        etag: "e".repeat(65),
        ..update(&bad, &["name", "cloud_provider", "canvas"])
    };
    let fields = [
        "etag",
        "design.name",
        "design.cloud_provider",
        "design.canvas.nodes[0].id",
    ];
    assert_eq!(reason(ada.designs.update_design(bad).await), invalid(&fields));
    let unknown = UpdateDesignRequest {
        update_mask: Some(FieldMask {
            paths: vec!["status".to_owned(), "canvas.nodes".to_owned(), "name".to_owned()],
        }),
        ..update(&made, &[])
    };
    assert_eq!(
        reason(ada.designs.update_design(unknown).await),
        invalid(&["update_mask", "update_mask"])
    );

    let design_id = made.id.to_uppercase();
    let delete = DeleteDesignRequest {
        design_id: design_id.clone(),
        etag: "e".repeat(65),
        ..Default::default()
    };
    assert_eq!(
        reason(ada.designs.delete_design(delete).await),
        invalid(&["design_id", "etag"])
    );
    let publish = PublishDesignRequest {
        design_id: design_id.clone(),
        message: "m".repeat(1_001),
        etag: "e".repeat(65),
        ..Default::default()
    };
    assert_eq!(
        reason(ada.designs.publish_design(publish).await),
        invalid(&["design_id", "etag", "message"])
    );
    assert_eq!(reason(ada.get("").await), invalid(&["design_id"]));

    let designs = ListDesignsRequest {
        page_size: -1,
        status: 9,
        creator_id: "x".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(ada.list(designs).await),
        invalid(&["status", "creator_id", "page_size"])
    );
    let versions = ListVersionsRequest {
        page_size: -1,
        ..Default::default()
    };
    assert_eq!(
        reason(ada.designs.list_versions(versions).await),
        invalid(&["design_id", "page_size"])
    );
    let resources = ListResourcesRequest {
        page_size: -1,
        ..Default::default()
    };
    assert_eq!(
        reason(ada.designs.list_resources(resources).await),
        invalid(&["design_id", "page_size"])
    );
    let templates = ListTemplatesRequest {
        page_size: -1,
        category: "c".repeat(101),
        cloud_provider: 9,
        ..Default::default()
    };
    assert_eq!(
        reason(ada.templates.list_templates(templates).await),
        invalid(&["category", "cloud_provider", "page_size"])
    );
    assert_eq!(world.rows().await, before);
}
