//! Exports: the same bytes for the same design, read back by the real Terraform as they were written.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use api::designs::v1::{
    Canvas, CreateDesignRequest, Edge, EdgeKind, ExportTerraformRequest, ExportTerraformResponse, ListTemplatesRequest,
    Node,
};
use expect_test::expect;
use prost_types::{Value, value::Kind};
use tonic::Status;

use crate::world::{Designer, World, canvas, edge, list, node, object, reason, text, value};

fn number(number: f64) -> Value {
    value(Kind::NumberValue(number))
}

fn configured<'a>(id: &str, fields: impl IntoIterator<Item = (&'a str, Value)>) -> Node {
    Node {
        configuration: Some(object(fields)),
        ..node(id)
    }
}

async fn parts(
    designer: &mut Designer,
    request: ExportTerraformRequest,
) -> Result<Vec<ExportTerraformResponse>, Status> {
    let mut stream = designer.designs.export_terraform(request).await?.into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await? {
        parts.push(part);
    }
    Ok(parts)
}

async fn export(designer: &mut Designer, id: &str, version: i32, state_name: &str) -> Result<String, Status> {
    let request = ExportTerraformRequest {
        design_id: id.to_owned(),
        version,
        state_name: state_name.to_owned(),
    };
    let parts = parts(designer, request).await?;
    assert_eq!(parts[0].file_name, "main.tf.json");
    Ok(String::from_utf8(parts.into_iter().flat_map(|part| part.content).collect()).unwrap())
}

/// A directory with a configuration, gone with the value.
struct Module(PathBuf);

impl Module {
    fn new(file: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("board3-export-{}", uuid()));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("main.tf.json"), file).unwrap();
        let module = Module(directory);
        module.terraform(&["init", "-backend=false", "-input=false"]);
        module.terraform(&["validate"]);
        module
    }

    fn terraform(&self, arguments: &[&str]) -> String {
        let done = Command::new("terraform")
            .args(arguments)
            .current_dir(&self.0)
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "terraform {arguments:?}: {told}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// What it would make, by name.
    fn planned(&self) -> Vec<(String, serde_json::Value)> {
        self.terraform(&["plan", "-input=false", "-out=plan"]);
        let plan: serde_json::Value = serde_json::from_str(&self.terraform(&["show", "-json", "plan"])).unwrap();
        let resources = plan["planned_values"]["root_module"]["resources"].as_array();
        let resources = resources.map(Vec::as_slice).unwrap_or_default();
        resources
            .iter()
            .map(|resource| {
                (
                    resource["name"].as_str().unwrap().to_owned(),
                    resource["values"].clone(),
                )
            })
            .collect()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn uuid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Whether there is a Terraform to ask; says so where there is none.
fn terraform_is_here() -> bool {
    let here = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| is_file(&directory.join("terraform"))));
    if !here {
        eprintln!("there is no terraform on PATH: what it makes of an export is not tested");
    }
    here
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

#[tokio::test]
async fn the_same_design_gives_the_same_bytes_whatever_order_it_was_drawn_in() {
    let world = World::new().await;
    let mut ada = world.designer();
    let nodes = vec![
        configured(
            "web",
            [
                ("triggers_replace", list(vec![text("v1"), number(2.0)])),
                (
                    "input",
                    value(Kind::StructValue(object([("b", number(0.5)), ("a", text("ü\n"))]))),
                ),
            ],
        ),
        configured("db", [("input", number(3.0))]),
        node("net"),
    ];
    let edges = vec![
        edge("web", "net"),
        edge("web", "db"),
        Edge {
            kind: EdgeKind::Connects.into(),
            ..edge("db", "web")
        },
    ];
    let drawn = ada
        .draw(Canvas {
            nodes: nodes.clone(),
            edges: edges.clone(),
        })
        .await;
    let file = export(&mut ada, &drawn.id, 0, "team/prod.1").await.unwrap();
    expect![[r#"
        {
          "resource": {
            "terraform_data": {
              "n_db": {
                "input": 3
              },
              "n_net": {},
              "n_web": {
                "depends_on": ["terraform_data.n_db","terraform_data.n_net"],
                "input": {"a":"ü\n","b":0.5},
                "triggers_replace": ["v1",2]
              }
            }
          },
          "terraform": {
            "backend": {
              "http": {
                "address": "http://127.0.0.1:8080/v1/states/team/prod.1",
                "lock_address": "http://127.0.0.1:8080/v1/states/team/prod.1",
                "unlock_address": "http://127.0.0.1:8080/v1/states/team/prod.1"
              }
            },
            "required_version": ">= 1.4.0"
          }
        }
    "#]]
    .assert_eq(&file);
    assert_eq!(export(&mut ada, &drawn.id, 0, "team/prod.1").await.unwrap(), file);

    let reversed = Canvas {
        nodes: nodes.into_iter().rev().collect(),
        edges: edges.into_iter().rev().collect(),
    };
    let again = ada.draw(reversed).await;
    assert_eq!(export(&mut ada, &again.id, 0, "team/prod.1").await.unwrap(), file);
    if terraform_is_here() {
        Module::new(&file);
    }
}

#[tokio::test]
async fn terraform_reads_back_what_was_drawn_and_runs_none_of_it() {
    let world = World::new().await;
    let mut ada = world.designer();
    let awkward = [
        "${path.module}",
        "%{ if true }x%{ endif }",
        "$${already}",
        "$$${thrice} %%{",
        "\"quotes\" and \\ and \\u0041",
        "line\nbreak\ttab\r",
        "zürich 🦀 \u{2028} \u{1}",
        "//",
        "",
    ];
    let keyed = object(
        awkward
            .map(|key| (key, text(key)))
            .into_iter()
            .filter(|(key, _)| !key.is_empty()),
    );
    let numbers = [0.0, -7.0, 0.1, 9_007_199_254_740_992.0, 1e300].map(number);
    let drawn = Canvas {
        nodes: vec![
            configured("texts", [("input", list(awkward.map(text).into()))]),
            configured("keys", [("input", value(Kind::StructValue(keyed)))]),
            configured(
                "rest",
                [
                    ("input", list(numbers.into())),
                    (
                        "triggers_replace",
                        list(vec![value(Kind::BoolValue(true)), value(Kind::NullValue(0))]),
                    ),
                ],
            ),
        ],
        edges: vec![edge("texts", "keys"), edge("keys", "rest")],
    };
    let drawn = ada.draw(drawn).await;
    let file = export(&mut ada, &drawn.id, 0, "").await.unwrap();
    assert!(!file.contains("backend"), "{file}");
    if !terraform_is_here() {
        return;
    }
    let planned = Module::new(&file).planned();
    let of = |name: &str| planned.iter().find(|(found, _)| found == name).unwrap().1.clone();
    assert_eq!(planned.len(), 3);
    assert_eq!(of("n_texts")["input"], serde_json::json!(awkward));
    for key in awkward.into_iter().filter(|key| !key.is_empty()) {
        assert_eq!(of("n_keys")["input"][key], key);
    }
    assert_eq!(of("n_rest")["input"].as_array().unwrap()[3], 9_007_199_254_740_992_i64);
    assert_eq!(of("n_rest")["input"].as_array().unwrap()[2], 0.1);
    assert_eq!(of("n_rest")["triggers_replace"], serde_json::json!([true, null]));
}

#[tokio::test]
async fn an_empty_design_is_a_valid_file() {
    let world = World::new().await;
    let mut ada = world.designer();
    let drawn = ada.draw(Canvas::default()).await;
    let file = export(&mut ada, &drawn.id, 0, "").await.unwrap();
    expect![[r#"
        {
          "terraform": {
            "required_version": ">= 1.4.0"
          }
        }
    "#]]
    .assert_eq(&file);
    if terraform_is_here() {
        assert_eq!(Module::new(&file).planned(), []);
    }
}

#[tokio::test]
async fn what_the_platforms_templates_draw_can_be_made() {
    let world = World::new().await;
    let mut ada = world.designer();
    let templates = ada
        .templates
        .list_templates(ListTemplatesRequest::default())
        .await
        .unwrap();
    let templates = templates.into_inner().templates;
    assert!(templates.len() >= 3, "{}", templates.len());
    for template in templates {
        let request = CreateDesignRequest {
            name: template.name.clone(),
            template_id: template.id,
            ..Default::default()
        };
        let drawn = ada.make(request).await.unwrap();
        let file = export(&mut ada, &drawn.id, 0, "").await.unwrap();
        if terraform_is_here() {
            let planned = Module::new(&file).planned();
            assert_eq!(planned.len(), drawn.canvas.unwrap().nodes.len(), "{}", template.name);
        }
    }
}

#[tokio::test]
async fn a_version_is_exported_as_it_was_published() {
    let world = World::new().await;
    let mut ada = world.designer();
    let drawn = ada.draw(canvas(["a"])).await;
    ada.publish(&drawn.id, "").await.unwrap();
    let published = export(&mut ada, &drawn.id, 0, "").await.unwrap();
    let drawn = ada.get(&drawn.id).await.unwrap();
    ada.redraw(&drawn, canvas(["b"])).await.unwrap();
    assert_eq!(export(&mut ada, &drawn.id, 1, "").await.unwrap(), published);
    let current = export(&mut ada, &drawn.id, 0, "").await.unwrap();
    assert!(current.contains("n_b") && !current.contains("n_a"), "{current}");

    let nowhere = uuid::Uuid::now_v7().to_string();
    for (id, version) in [(&drawn.id, 2), (&nowhere, 0), (&nowhere, 1)] {
        let refused = reason(export(&mut ada, id, version, "").await);
        assert_eq!(refused.0, "RESOURCE_NOT_FOUND");
    }
    let mut stranger = world.designer_of(kit::ids::OrgId::new(), ada.id);
    assert_eq!(
        reason(export(&mut stranger, &drawn.id, 0, "").await).0,
        "RESOURCE_NOT_FOUND"
    );
    ada.delete(&drawn.id, "").await.unwrap();
    assert_eq!(reason(export(&mut ada, &drawn.id, 1, "").await).0, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn what_cannot_be_exported_is_told_node_by_node() {
    let world = World::new().await;
    let mut ada = world.designer();
    let mut bucket = configured("bucket", [("acl", text("private"))]);
    bucket.resource_type = "aws_s3_bucket".to_owned();
    let drawn = Canvas {
        nodes: vec![
            bucket,
            configured(
                "meta",
                [
                    ("count", number(2.0)),
                    ("depends_on", list(Vec::new())),
                    ("input", text("kept")),
                    ("a\nb", text("")),
                ],
            ),
            node("x"),
            node("y"),
            node("z"),
            node("before"),
            node("after"),
        ],
        edges: vec![
            edge("x", "y"),
            edge("y", "z"),
            edge("z", "x"),
            edge("before", "x"),
            edge("x", "after"),
        ],
    };
    let drawn = ada.draw(drawn).await;
    let (told, fields) = reason(export(&mut ada, &drawn.id, 0, "").await);
    assert_eq!(told, "DESIGN_INVALID");
    assert_eq!(
        fields,
        [
            "bucket.resource_type",
            "meta.configuration.a?b",
            "meta.configuration.count",
            "meta.configuration.depends_on",
            "x.depends_on",
            "y.depends_on",
            "z.depends_on"
        ]
    );
}

#[tokio::test]
async fn every_violation_of_the_request_is_told_at_once() {
    let world = World::new().await;
    let mut ada = world.designer();
    let refused = reason(export(&mut ada, "one", -1, "../prod").await);
    let fields = ["design_id", "version", "state_name"].map(str::to_owned);
    assert_eq!(refused, ("INVALID_REQUEST".to_owned(), fields.into()));
}

#[tokio::test]
async fn a_large_file_comes_in_parts_and_hashes_to_what_the_first_says() {
    use sha2::Digest;
    let world = World::new().await;
    let mut ada = world.designer();
    let drawn = ada
        .draw(Canvas {
            nodes: (0..10)
                .map(|index| configured(&format!("n{index}"), [("input", text(&"${".repeat(40_000)))]))
                .collect(),
            edges: Vec::new(),
        })
        .await;
    let request = ExportTerraformRequest {
        design_id: drawn.id,
        ..Default::default()
    };
    let parts = parts(&mut ada, request).await.unwrap();
    assert!(parts.len() > 4, "{}", parts.len());
    assert!(parts.iter().all(|part| (1..=256 << 10).contains(&part.content.len())));
    assert!(
        parts[1..]
            .iter()
            .all(|part| part.file_name.is_empty() && part.sha256.is_empty())
    );
    let file: Vec<u8> = parts.iter().flat_map(|part| part.content.clone()).collect();
    assert_eq!(parts[0].sha256, hex::encode(sha2::Sha256::digest(file)));
}

#[tokio::test]
async fn a_job_exports_its_own_design_for_its_own_state_alone() {
    let world = World::new().await;
    let mut ada = world.designer();
    let (mine, other) = (ada.draw(canvas(["a"])).await, ada.draw(canvas(["a"])).await);
    let credential = world
        .served
        .office
        .job(world.org, &["designs.design.export"], &mine.id, "prod");
    let mut job = Designer::new(world.served.with(&credential), ada.id);
    assert!(export(&mut job, &mine.id, 0, "prod").await.is_ok());
    assert!(export(&mut job, &mine.id, 0, "").await.is_ok());
    for (id, state) in [(&other.id, "prod"), (&mine.id, "prod2"), (&other.id, "")] {
        assert_eq!(reason(export(&mut job, id, 0, state).await).0, "CALLER_NOT_ALLOWED");
    }
}

#[tokio::test]
async fn an_address_that_is_none_stops_the_start() {
    let world = World::new().await;
    for address in ["board3.example", "https://user:secret@host"] {
        let mut env = world.served.env.clone();
        env.push(("BOARD3_TERRAFORM_HTTP".to_owned(), address.to_owned()));
        let Err(problems) = kit::service::start(designs::SERVICE, kit::config::Env::of(env)).await else {
            panic!("{address} is no address");
        };
        let told = problems.to_string();
        assert!(
            told.contains("BOARD3_TERRAFORM_HTTP must be an address") && !told.contains("secret"),
            "{told}"
        );
    }
}
