//! A designs service, people who draw with it, and what they draw.

use std::{collections::BTreeMap, time::Duration};

use api::{
    designs::v1::{
        Canvas, CloudProvider, CreateDesignRequest, DeleteDesignRequest, Design, Edge, EdgeKind, GetDesignRequest,
        ListDesignsRequest, ListDesignsResponse, Node, Position, PublishDesignRequest, PublishDesignResponse, Size,
        UpdateDesignRequest, design_service_client::DesignServiceClient,
        template_service_client::TemplateServiceClient,
    },
    events::v1::{Event, event::Payload},
};
use kit::ids::{OrgId, UserId};
use prost::Message;
use prost_types::{FieldMask, ListValue, Struct, Value, value::Kind};
use testkit::{Caller, Served};
use tokio_postgres::Client;
use tonic::Status;
use tonic_types::StatusExt;

pub(crate) const PLATFORM: &str = "00000000-0000-7000-8000-000000000000";

pub(crate) struct World {
    pub(crate) served: Served,
    /// The superuser's connection, in the service's schema.
    pub(crate) admin: Client,
    pub(crate) org: OrgId,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::of(testkit::serve(designs::SERVICE).await).await
    }

    /// A world around a service that runs.
    pub(crate) async fn of(served: Served) -> Self {
        // A service keeps to itself what a panic says; a test tells why it failed.
        drop(std::panic::take_hook());
        let admin = served.database.admin().await;
        admin.batch_execute("set search_path = designs").await.unwrap();
        World {
            served,
            admin,
            org: OrgId::new(),
        }
    }

    /// A new user who may do everything with designs.
    pub(crate) fn designer(&self) -> Designer {
        self.designer_of(self.org, UserId::new())
    }

    pub(crate) fn designer_of(&self, org: OrgId, user: UserId) -> Designer {
        Designer::new(self.served.caller_as(org, user, &["designs.*.*"]), user)
    }

    /// One number that the database answers.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    /// What was told about designs so far: id, revision, whether deleted.
    pub(crate) async fn told(&self) -> Vec<(String, i64, bool)> {
        let rows = self
            .admin
            .query("select envelope from outbox order by id", &[])
            .await
            .unwrap();
        let events = rows.iter().map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap());
        let told = events.filter_map(|event| match event.payload {
            Some(Payload::DesignChanged(changed)) => Some((changed.design_id, changed.revision, changed.deleted)),
            _ => None,
        });
        told.collect()
    }

    /// The audited actions so far, and what each was about.
    pub(crate) async fn audited(&self) -> Vec<(String, String)> {
        let rows = self
            .admin
            .query("select envelope from outbox order by id", &[])
            .await
            .unwrap();
        let events = rows.iter().map(|row| Event::decode(row.get::<_, &[u8]>(0)).unwrap());
        let audited = events.filter(|event| event.audited);
        audited
            .map(|event| (event.action, event.resource.unwrap_or_default().id))
            .collect()
    }

    /// Waits until a consumer has gone past everything that its source has told: `told` events.
    pub(crate) async fn applied(&self, consumer: &str, told: i64) {
        let cursor = format!("select coalesce(max(position), 0) from cursors where consumer = '{consumer}'");
        wait(&format!("{consumer} at {told}"), async || {
            self.number(&cursor).await >= told
        })
        .await;
    }

    /// How many rows each table has, and a hash of all of them: equal where nothing was written.
    pub(crate) async fn rows(&self) -> BTreeMap<String, String> {
        let mut rows = BTreeMap::new();
        for table in [
            "designs",
            "design_versions",
            "resources",
            "templates",
            "resource_drifts",
            "user_names",
            "requests",
        ] {
            let query = format!(
                "select count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from {table} t"
            );
            rows.insert(
                table.to_owned(),
                self.admin.query_one(&query, &[]).await.unwrap().get(0),
            );
        }
        rows
    }
}

pub(crate) struct Designer {
    pub(crate) designs: DesignServiceClient<Caller>,
    pub(crate) templates: TemplateServiceClient<Caller>,
    pub(crate) id: UserId,
}

impl Designer {
    pub(crate) fn new(caller: Caller, id: UserId) -> Self {
        Designer {
            designs: DesignServiceClient::new(caller.clone()),
            templates: TemplateServiceClient::new(caller),
            id,
        }
    }

    pub(crate) async fn make(&mut self, request: CreateDesignRequest) -> Result<Design, Status> {
        Ok(self.designs.create_design(request).await?.into_inner().design.unwrap())
    }

    /// A design with this canvas.
    pub(crate) async fn draw(&mut self, canvas: Canvas) -> Design {
        self.make(new("drawn", canvas)).await.unwrap()
    }

    pub(crate) async fn get(&mut self, id: &str) -> Result<Design, Status> {
        let request = GetDesignRequest {
            design_id: id.to_owned(),
        };
        Ok(self.designs.get_design(request).await?.into_inner().design.unwrap())
    }

    /// Writes the named fields of `design` under its etag.
    pub(crate) async fn update(&mut self, design: &Design, fields: &[&str]) -> Result<Design, Status> {
        let request = update(design, fields);
        Ok(self.designs.update_design(request).await?.into_inner().design.unwrap())
    }

    pub(crate) async fn rename(&mut self, design: &Design, name: &str) -> Result<Design, Status> {
        let named = Design {
            name: name.to_owned(),
            ..design.clone()
        };
        self.update(&named, &["name"]).await
    }

    pub(crate) async fn redraw(&mut self, design: &Design, canvas: Canvas) -> Result<Design, Status> {
        let drawn = Design {
            canvas: Some(canvas),
            ..design.clone()
        };
        self.update(&drawn, &["canvas"]).await
    }

    pub(crate) async fn delete(&mut self, id: &str, etag: &str) -> Result<(), Status> {
        let request = DeleteDesignRequest {
            design_id: id.to_owned(),
            etag: etag.to_owned(),
            ..Default::default()
        };
        self.designs.delete_design(request).await.map(drop)
    }

    pub(crate) async fn publish(&mut self, id: &str, message: &str) -> Result<PublishDesignResponse, Status> {
        let request = PublishDesignRequest {
            design_id: id.to_owned(),
            message: message.to_owned(),
            ..Default::default()
        };
        Ok(self.designs.publish_design(request).await?.into_inner())
    }

    pub(crate) async fn list(&mut self, request: ListDesignsRequest) -> Result<ListDesignsResponse, Status> {
        Ok(self.designs.list_designs(request).await?.into_inner())
    }
}

pub(crate) fn new(name: &str, canvas: Canvas) -> CreateDesignRequest {
    CreateDesignRequest {
        name: name.to_owned(),
        cloud_provider: CloudProvider::Builtin.into(),
        canvas: Some(canvas),
        ..Default::default()
    }
}

pub(crate) fn update(design: &Design, fields: &[&str]) -> UpdateDesignRequest {
    UpdateDesignRequest {
        design_id: design.id.clone(),
        design: Some(design.clone()),
        update_mask: Some(FieldMask {
            paths: fields.iter().map(|&field| field.to_owned()).collect(),
        }),
        etag: design.etag.clone(),
        ..Default::default()
    }
}

pub(crate) fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        resource_type: "terraform_data".to_owned(),
        name: format!("n_{id}"),
        position: Some(Position { x: 40.0, y: 0.5 }),
        size: Some(Size {
            width: 160.0,
            height: 80.0,
        }),
        ..Default::default()
    }
}

pub(crate) fn edge(from: &str, to: &str) -> Edge {
    Edge {
        from: from.to_owned(),
        to: to.to_owned(),
        kind: EdgeKind::DependsOn.into(),
    }
}

/// Nodes with these ids, and nothing else.
pub(crate) fn canvas<'a>(ids: impl IntoIterator<Item = &'a str>) -> Canvas {
    Canvas {
        nodes: ids.into_iter().map(node).collect(),
        edges: Vec::new(),
    }
}

pub(crate) fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

pub(crate) fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

pub(crate) fn list(values: Vec<Value>) -> Value {
    value(Kind::ListValue(ListValue { values }))
}

pub(crate) fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    Struct {
        fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}

/// The reason of a failure, with the name of each violated field.
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> (String, Vec<String>) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("{status:?} carries ErrorInfo"));
    assert!(
        info.metadata.contains_key("request_id"),
        "{status:?} carries its request id"
    );
    let violations = details
        .bad_request()
        .into_iter()
        .flat_map(|request| &request.field_violations);
    (
        info.reason.clone(),
        violations.map(|violation| violation.field.clone()).collect(),
    )
}

/// One value of a failure's metadata.
pub(crate) fn metadata(status: &Status, key: &str) -> String {
    status.get_details_error_info().unwrap().metadata[key].clone()
}

/// Asks again until it holds, for at most 20 s.
pub(crate) async fn wait(what: &str, holds: impl AsyncFn() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(20), asked).await;
    assert!(held.is_ok(), "waited in vain for {what}");
}
