//! Messages that are too large, too deep, not messages, or for nobody: a clear refusal with a reason and a request id.

use std::time::Duration;

use api::{
    designs::v1::{Canvas, Node, Position, Size},
    identity::v1::{LoginRequest, auth_service_client::AuthServiceClient},
};
use bytes::{Buf, BufMut};
use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};
use testkit::Caller;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_types::StatusExt;

use crate::{
    house::House,
    story::{blank, reason, told_request_id},
};

/// Bytes as they are, for what no generated client would send.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

async fn raw(channel: Caller, path: &'static str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    Ok(client.unary(Request::new(message), path, Raw).await?.into_inner())
}

/// Checks code, reason and that the answer can be found in the log.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, expected: &str) -> Status {
    let status = answer.expect_err("a refusal");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (code, expected),
        "{status:?}"
    );
    let id = told_request_id(&status);
    assert!(!id.is_empty(), "no request id in {status:?}");
    let header = status.metadata().get("x-request-id").and_then(|id| id.to_str().ok());
    assert_eq!(header, Some(id.as_str()));
    status
}

/// A canvas of one node whose configuration nests this deep, by structs or by lists.
fn nested(levels: usize, by_lists: bool) -> Canvas {
    let mut value = Value {
        kind: Some(Kind::BoolValue(true)),
    };
    // The configuration itself is the first level.
    for _ in 1..levels {
        let kind = if by_lists {
            Kind::ListValue(ListValue { values: vec![value] })
        } else {
            let fields = [("deeper".to_owned(), value)].into();
            Kind::StructValue(Struct { fields })
        };
        value = Value { kind: Some(kind) };
    }
    let node = Node {
        id: "node".to_owned(),
        resource_type: "terraform_data".to_owned(),
        name: "node".to_owned(),
        position: Some(Position { x: 0.0, y: 0.0 }),
        size: Some(Size {
            width: 1.0,
            height: 1.0,
        }),
        configuration: Some(Struct {
            fields: [("input".to_owned(), value)].into(),
        }),
        ..Node::default()
    };
    Canvas {
        nodes: vec![node],
        edges: Vec::new(),
    }
}

/// An encoded field with these bytes, before them.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
    field.extend_from_slice(bytes);
    field
}

/// An encoded CreateDesignRequest whose node's configuration holds lists this deep: no honest encoder makes that.
fn bomb(levels: usize) -> Vec<u8> {
    let mut value = Value {
        kind: Some(Kind::BoolValue(true)),
    }
    .encode_to_vec();
    for _ in 0..levels {
        // Value.list_value = 6, ListValue.values = 1
        value = field(6, &field(1, &value));
    }
    let entry = [field(1, b"input"), field(2, &value)].concat();
    // Struct.fields = 1, Node.configuration = 7, Canvas.nodes = 1, CreateDesignRequest.canvas = 4
    let node = [field(1, b"node"), field(7, &field(1, &entry))].concat();
    [blank("a bomb").encode_to_vec(), field(4, &field(1, &node))].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused_with_the_limit() {
    let house = House::shared().await;
    let ada = house.sign_up("ada").await;
    let mut request = blank("large");
    request.description = "x".repeat(5 << 20);
    let told = refused(
        ada.designs(house).create_design(request).await,
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
    );
    let limit = told
        .get_details_error_info()
        .unwrap()
        .metadata
        .get("limit_bytes")
        .cloned();
    assert_eq!(limit.as_deref(), Some("4194304"));

    let request = LoginRequest {
        password: "x".repeat(1 << 20),
        ..LoginRequest::default()
    };
    let login = AuthServiceClient::new(house.identity().channel()).login(request).await;
    refused(login, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_nested_too_deep_is_refused_and_hurts_nobody() {
    let house = House::shared().await;
    let ada = house.sign_up("ada").await;
    let create = async |levels, by_lists| {
        let mut request = blank("nested");
        request.canvas = Some(nested(levels, by_lists));
        ada.designs(house).create_design(request).await
    };
    for by_lists in [true, false] {
        create(32, by_lists).await.expect("32 levels are allowed");
    }
    let told = refused(create(33, true).await, Code::InvalidArgument, "INVALID_REQUEST");
    let fields = told.get_details_bad_request().unwrap().field_violations;
    assert!(
        fields
            .iter()
            .any(|violation| violation.field.starts_with("canvas.nodes[0].configuration")),
        "{fields:?}"
    );

    let path = "/board3.designs.v1.DesignService/CreateDesign";
    refused(create(33, false).await, Code::InvalidArgument, "INVALID_REQUEST");
    for levels in [200, 20_000] {
        let answer = raw(house.designs().with(&ada.access), path, bomb(levels)).await;
        refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
    }
    let answer = raw(house.designs().with(&ada.access), path, vec![0xff; 64]).await;
    refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
    assert!(house.alive("designs"));
    house.design(&ada, "goes on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_service_here_serves_is_unimplemented() {
    let house = House::shared().await;
    let ada = house.sign_up("ada").await;
    for path in [
        "/board3.designs.v1.DesignService/Nothing",
        "/board3.designs.v9.DesignService/CreateDesign",
        "/",
        // Another service's.
        "/board3.identity.v1.UserService/GetMe",
        "/board3.audit.v1.AuditService/ListAuditLogs",
    ] {
        for credential in ["", ada.access.as_str()] {
            let answer = raw(house.designs().with(credential), path, Vec::new()).await;
            let status = answer.expect_err(path);
            if credential.is_empty() && reason(&status) == "CREDENTIAL_INVALID" {
                continue;
            }
            refused(Err::<(), _>(status), Code::Unimplemented, "METHOD_UNKNOWN");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_while_the_database_is_slow_is_told_as_such() {
    let house = House::shared().await;
    let ada = house.sign_up("ada").await;
    let design = house.design(&ada, "locked").await;
    let mut admin = house.database().admin().await;
    let lock = admin.transaction().await.unwrap();
    let sql = "select from designs.designs where id = $1::text::uuid for update";
    lock.execute(sql, &[&design.id]).await.unwrap();
    let answer = loop {
        let mut request = Request::new(api::designs::v1::DeleteDesignRequest {
            design_id: design.id.clone(),
            ..Default::default()
        });
        request.set_timeout(Duration::from_secs(1));
        let answer = ada.designs(house).delete_design(request).await;
        // On a busy machine the client's own timer, a tenth of a second behind, may win.
        if !answer.as_ref().is_err_and(|status| status.code() == Code::Cancelled) {
            break answer;
        }
    };
    lock.rollback().await.unwrap();
    refused(answer, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    house.read_design(&ada, &design.id).await.expect("it was not deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_ready_soon_after_its_start() {
    let house = House::open().await;
    for slice in crate::house::SLICES {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            house.stop(slice).await;
            house.start(slice, &[]).await;
            best = best.min(house.wait_ready_of(slice).await);
        }
        println!("{slice} is ready {best:?} after its start");
        assert!(best < Duration::from_secs(1), "{slice} takes {best:?}");
    }
}
