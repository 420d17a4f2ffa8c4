//! Drift: resources are coloured as the last check of each state tells.

use api::{
    designs::v1::{Design, ListResourcesRequest, ResourceDriftKind},
    events::v1::{DriftChecked, DriftedResource, Event, event::Payload},
};
use diesel_migrations::EmbeddedMigrations;
use kit::{
    config::Env,
    db::migrate::Slice,
    ids::OrgId,
    service::{Build, Parts, Service},
};
use prost::Message;
use prost_types::Timestamp;
use testkit::{Role, Served};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::world::{Designer, World, canvas, wait};

/// A slice with kit's tables alone, under a name that the service listens to.
static STATES: Slice = Slice {
    name: "terraform_state",
    migrations: EmbeddedMigrations::new(&[]),
};

fn nothing(_: &mut Env) -> Option<Build> {
    Some(Box::new(|_| Box::pin(async { Ok(Parts::new()) })))
}

struct States {
    _served: Served,
    outbox: Client,
    told: i64,
}

/// A world beside a stand-in for terraform_state.
async fn world() -> (World, States) {
    let instance = Uuid::new_v4().simple().to_string();
    let instance = ("BOARD3_INSTANCE", instance.as_str());
    let toy = Service {
        slice: &STATES,
        configure: nothing,
    };
    let served = testkit::serve_with(toy, &[instance]).await;
    let address = format!("http://{}", served.running.grpc);
    let outbox = served.database.client(&STATES, Role::App).await;
    let states = States {
        _served: served,
        outbox,
        told: 0,
    };
    let served = testkit::serve_with(designs::SERVICE, &[instance, ("BOARD3_TERRAFORM_STATE", &address)]).await;
    (World::of(served).await, states)
}

impl States {
    /// Tells of a check's part and waits until it is applied.
    async fn tell(&mut self, world: &World, org: OrgId, checked: DriftChecked) {
        let event = Event {
            event_id: Uuid::now_v7().to_string(),
            organization_id: org.to_string(),
            occurred_at: Some(Timestamp {
                seconds: 1_767_225_600 + self.told,
                nanos: 5_000,
            }),
            payload: Some(Payload::DriftChecked(checked)),
            ..Event::default()
        };
        let insert = "insert into outbox (event_id, org_id, envelope) values (gen_random_uuid(), $1::text::uuid, $2)";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&org.to_string(), &event.encode_to_vec()];
        self.outbox.execute(insert, &values).await.unwrap();
        self.told += 1;
        world.applied("designs.resource_drifts", self.told).await;
    }
}

fn state(design: &Design, name: &str) -> DriftChecked {
    DriftChecked {
        check_id: Uuid::now_v7().to_string(),
        state_id: Uuid::now_v7().to_string(),
        state_name: name.to_owned(),
        design_id: design.id.clone(),
        ..DriftChecked::default()
    }
}

fn part(of: &DriftChecked, part: i32, resources: &[(&str, bool)]) -> DriftChecked {
    DriftChecked {
        part,
        drifted_resources: 9,
        resources: resources
            .iter()
            .map(|(address, deleted)| DriftedResource {
                address: (*address).to_owned(),
                deleted: *deleted,
            })
            .collect(),
        ..of.clone()
    }
}

/// Each drifted resource's node, state and kind, in the order of the answer.
async fn coloured(designer: &mut Designer, design: &Design) -> Vec<(String, String, ResourceDriftKind)> {
    let request = ListResourcesRequest {
        design_id: design.id.clone(),
        ..Default::default()
    };
    let resources = designer
        .designs
        .list_resources(request)
        .await
        .unwrap()
        .into_inner()
        .resources;
    let coloured = resources.into_iter().flat_map(|resource| {
        let node = resource.node_id;
        let drifts = resource.drifts.into_iter();
        drifts.map(move |drift| (node.clone(), drift.state_name.clone(), drift.kind()))
    });
    coloured.collect()
}

fn colours(expected: &[(&str, &str, ResourceDriftKind)]) -> Vec<(String, String, ResourceDriftKind)> {
    let owned = |(node, state, kind): &(&str, &str, _)| ((*node).to_owned(), (*state).to_owned(), *kind);
    expected.iter().map(owned).collect()
}

#[tokio::test]
async fn resources_are_coloured_by_the_last_check_of_each_state() {
    use ResourceDriftKind::{Changed, Deleted};
    let (world, mut states) = world().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a", "b", "c"])).await;
    let (prod, stage) = (state(&made, "prod"), state(&made, "stage"));

    let found = [
        ("terraform_data.n_a[0]", false),
        ("terraform_data.n_a[1]", true),
        (r#"terraform_data.n_b["x.y"]"#, false),
        ("module.m.terraform_data.n_c", true),
        ("data.http.n_c", true),
        ("terraform_data.elsewhere", true),
    ];
    states.tell(&world, world.org, part(&prod, 0, &found)).await;
    let first = colours(&[("a", "prod", Deleted), ("b", "prod", Changed)]);
    assert_eq!(coloured(&mut ada, &made).await, first);
    let more = [
        ("terraform_data.n_c", false),
        ("terraform_data.n_b", true),
        ("terraform_data.n_a", false),
    ];
    states.tell(&world, world.org, part(&prod, 1, &more)).await;
    let whole = colours(&[("a", "prod", Deleted), ("b", "prod", Deleted), ("c", "prod", Changed)]);
    assert_eq!(coloured(&mut ada, &made).await, whole);

    // Another state of the same design, and another organization's of the same id.
    states
        .tell(&world, world.org, part(&stage, 0, &[("terraform_data.n_b", false)]))
        .await;
    let both = colours(&[
        ("a", "prod", Deleted),
        ("b", "prod", Deleted),
        ("b", "stage", Changed),
        ("c", "prod", Changed),
    ]);
    assert_eq!(coloured(&mut ada, &made).await, both);
    states
        .tell(&world, OrgId::new(), part(&prod, 0, &[("terraform_data.n_a", false)]))
        .await;
    assert_eq!(coloured(&mut ada, &made).await, both);

    // The next check says what there is now, or that there is nothing.
    let next = DriftChecked {
        check_id: Uuid::now_v7().to_string(),
        ..prod.clone()
    };
    states
        .tell(&world, world.org, part(&next, 0, &[("terraform_data.n_c", true)]))
        .await;
    let less = colours(&[("b", "stage", Changed), ("c", "prod", Deleted)]);
    assert_eq!(coloured(&mut ada, &made).await, less);
    states.tell(&world, world.org, prod).await;
    states.tell(&world, world.org, stage).await;
    assert_eq!(coloured(&mut ada, &made).await, []);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn a_drift_says_when_and_where_it_was_found_and_follows_the_address() {
    let (world, mut states) = world().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a", "b"])).await;
    let prod = state(&made, "prod");
    states
        .tell(&world, world.org, part(&prod, 0, &[("terraform_data.n_a", false)]))
        .await;
    let request = ListResourcesRequest {
        design_id: made.id.clone(),
        page_size: 1,
        ..Default::default()
    };
    let page = ada.designs.list_resources(request).await.unwrap().into_inner();
    let drift = &page.resources[0].drifts[0];
    assert_eq!((&drift.state_id, drift.state_name.as_str()), (&prod.state_id, "prod"));
    let at = Timestamp {
        seconds: 1_767_225_600,
        nanos: 5_000,
    };
    assert_eq!(drift.detected_at, Some(at));

    // Terraform knows addresses: the node that has the name now is the one that has drifted.
    let mut renamed = canvas(["a", "b"]);
    renamed.nodes[0].name = "n_b".to_owned();
    renamed.nodes[1].name = "n_a".to_owned();
    ada.redraw(&made, renamed).await.unwrap();
    let found = coloured(&mut ada, &made).await;
    assert_eq!(found, colours(&[("b", "prod", ResourceDriftKind::Changed)]));
}

#[tokio::test]
async fn a_check_without_a_design_or_with_nonsense_holds_up_nothing() {
    let (world, mut states) = world().await;
    let mut ada = world.designer();
    let made = ada.draw(canvas(["a"])).await;
    let loose = DriftChecked {
        design_id: String::new(),
        ..state(&made, "loose")
    };
    states
        .tell(&world, world.org, part(&loose, 0, &[("terraform_data.n_a", false)]))
        .await;
    let nonsense = DriftChecked {
        state_id: "one".to_owned(),
        ..state(&made, "nonsense")
    };
    states.tell(&world, world.org, part(&nonsense, 0, &[])).await;
    states
        .tell(
            &world,
            world.org,
            part(&state(&made, "prod"), 0, &[("terraform_data.n_a", false)]),
        )
        .await;
    wait("one dead letter", async || {
        world.number("select count(*) from dead_letters").await == 1
    })
    .await;
    assert_eq!(coloured(&mut ada, &made).await.len(), 1);
}
