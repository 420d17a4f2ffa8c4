//! Any RPC by its path, with any bytes as its message, and what must hold for every answer.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use api::policy::Method;
use bytes::{Buf, BufMut};
use kit::{Error, Reason, auth::token::SigningKey};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, Value};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_types::StatusExt;
use uuid::Uuid;

/// Whose token it is: a service's own lives for a minute, and a sweep takes longer.
static OF_SERVICES: Mutex<BTreeMap<String, (SigningKey, String)>> = Mutex::new(BTreeMap::new());

/// A token of a service, which is signed anew for each call that is made with it.
pub(crate) fn of_service(key: SigningKey, slice: &str) -> String {
    let token = key.sign_service("test", slice);
    let mut known = OF_SERVICES.lock().expect("no holder panics");
    known.insert(token.clone(), (key, slice.to_owned()));
    token
}

fn fresh(credential: &str) -> String {
    let known = OF_SERVICES.lock().expect("no holder panics");
    match known.get(credential) {
        Some((key, slice)) => key.sign_service("test", slice),
        None => credential.to_owned(),
    }
}

/// What a call was answered.
pub(crate) struct Answer {
    /// The `x-request-id` that was sent.
    pub(crate) id: String,
    /// What was called, for messages of assertions.
    pub(crate) what: String,
    /// Every message, or the status.
    pub(crate) result: Result<Vec<Vec<u8>>, Status>,
    echoed: Vec<String>,
}

impl Answer {
    /// The first message of an answer that is OK.
    pub(crate) fn ok(&self) -> &[u8] {
        self.echo();
        match &self.result {
            Ok(messages) => messages.first().unwrap_or_else(|| panic!("{}: no message", self.what)),
            Err(status) => panic!("{}: {}", self.what, testkit::render::status(status)),
        }
    }

    /// The status of a refusal with this reason. Every failure of the suite comes through here.
    pub(crate) fn refused(&self, wanted: Reason) -> &Status {
        self.refused_for(&[wanted])
    }

    /// The status of a refusal with one of these reasons.
    pub(crate) fn refused_for(&self, wanted: &[Reason]) -> &Status {
        self.echo();
        let what = &self.what;
        let status = match &self.result {
            Ok(messages) => panic!("{what}: {} messages instead of {wanted:?}", messages.len()),
            Err(status) => status,
        };
        let shown = testkit::render::status(status);
        let details = status.get_error_details();
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("{what}: no ErrorInfo: {shown}"));
        assert_eq!(info.domain, "board3", "{what}");
        let reason = Reason::from_str_name(&format!("ERROR_REASON_{}", info.reason));
        let reason = reason.unwrap_or_else(|| panic!("{what}: {} is no reason", info.reason));
        assert_eq!(Error::new(reason, "").code(), status.code(), "{what}: {shown}");
        assert!(wanted.contains(&reason), "{what}: {shown} instead of {wanted:?}");
        let told = details
            .request_info()
            .unwrap_or_else(|| panic!("{what}: no RequestInfo: {shown}"));
        assert_eq!(told.request_id, self.id, "{what}");
        assert_eq!(info.metadata.get("request_id"), Some(&self.id), "{what}");
        let empty = details
            .bad_request()
            .is_none_or(|request| request.field_violations.is_empty());
        assert!(
            reason != Reason::InvalidRequest || !empty,
            "{what}: no violation: {shown}"
        );
        for word in [
            "ERROR:",
            "relation \"",
            "violates",
            "panicked",
            "diesel",
            "postgres:",
            "select ",
            "insert ",
        ] {
            assert!(!shown.contains(word), "{what} tells {word:?}: {shown}");
        }
        status
    }

    /// The fields of an invalid request.
    pub(crate) fn violations(&self) -> Vec<String> {
        let details = self.refused(Reason::InvalidRequest).get_error_details();
        let violations = details
            .bad_request()
            .into_iter()
            .flat_map(|request| &request.field_violations);
        violations.map(|violation| violation.field.clone()).collect()
    }

    /// The one `x-request-id` of the answer, whatever it is.
    pub(crate) fn given(&self) -> &str {
        let [given] = self.echoed.as_slice() else {
            panic!("{}: {:?}", self.what, self.echoed)
        };
        given
    }

    fn echo(&self) {
        assert_eq!(self.echoed, [self.id.as_str()], "{}: x-request-id", self.what);
    }
}

/// A call with a message.
pub(crate) async fn call(channel: &Channel, path: &str, credential: &str, message: &[u8]) -> Answer {
    send(
        channel,
        path,
        credential,
        Some(message.to_vec()),
        &format!("sweep-{}", Uuid::now_v7()),
    )
    .await
}

/// A call without a message: headers and an end.
pub(crate) async fn call_without_message(channel: &Channel, path: &str, credential: &str) -> Answer {
    send(channel, path, credential, None, &format!("sweep-{}", Uuid::now_v7())).await
}

/// A call under this `x-request-id`.
pub(crate) async fn send(
    channel: &Channel,
    path: &str,
    credential: &str,
    message: Option<Vec<u8>>,
    id: &str,
) -> Answer {
    let mut request = Request::new(futures_util::stream::iter(message));
    request.set_timeout(Duration::from_secs(20));
    let metadata = request.metadata_mut();
    if !id.is_empty() {
        metadata.insert("x-request-id", id.parse().expect("an id is ASCII"));
    }
    if !credential.is_empty() {
        metadata.insert(
            "authorization",
            format!("Bearer {}", fresh(credential))
                .parse()
                .expect("a credential is ASCII"),
        );
    }
    let echoes = |metadata: &tonic::metadata::MetadataMap| {
        let values = metadata.get_all("x-request-id").iter();
        values
            .map(|value| value.to_str().unwrap_or("?").to_owned())
            .collect::<Vec<_>>()
    };
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the service is there");
    let route = path.parse().expect("a path");
    let (result, echoed) = match client.streaming(request, route, Raw).await {
        Err(status) => {
            let echoed = echoes(status.metadata());
            (Err(status), echoed)
        }
        Ok(response) => {
            let echoed = echoes(response.metadata());
            let mut stream = response.into_inner();
            let mut messages = Vec::new();
            let result = loop {
                match stream.message().await {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break Ok(messages),
                    Err(status) => break Err(status),
                }
            };
            (result, echoed)
        }
    };
    Answer {
        id: id.to_owned(),
        what: path.to_owned(),
        result,
        echoed,
    }
}

/// Bytes as they are.
#[derive(Clone, Copy)]
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
    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// The message types of an RPC: what it takes, and what it answers.
pub(crate) fn types(method: &Method) -> (MessageDescriptor, MessageDescriptor) {
    let pool = DescriptorPool::decode(api::DESCRIPTORS).expect("the descriptors are our own and whole");
    let service = pool
        .get_service_by_name(method.service)
        .expect("the table is made from the protos");
    let rpc = service
        .methods()
        .find(|rpc| rpc.name() == method.name)
        .expect("the table is made from the protos");
    (rpc.input(), rpc.output())
}

/// The most bytes of a message, as the service's comment tells it.
pub(crate) fn limit(method: &Method) -> usize {
    let (input, _) = types(method);
    let service = input
        .parent_pool()
        .get_service_by_name(method.service)
        .expect("the table is made from the protos");
    let file = service.parent_file();
    let locations = file
        .file_descriptor_proto()
        .source_code_info
        .iter()
        .flat_map(|info| &info.location);
    let comment = locations
        .filter(|it| it.path == service.path())
        .find_map(|it| it.leading_comments.clone());
    let comment = comment.unwrap_or_default();
    let told = comment
        .split(" are at most ")
        .nth(1)
        .unwrap_or_else(|| panic!("{} tells no limit", method.service));
    let (number, unit) = told.split_once(' ').expect("a number and a unit");
    let unit = if unit.starts_with("MiB") { 1 << 20 } else { 1 << 10 };
    number.parse::<usize>().expect("a number and a unit") * unit
}

/// A request, to be changed by the names of its fields.
pub(crate) fn request(method: &Method, message: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(types(method).0, message).expect("a fixture is a message of its RPC")
}

/// An answer, to be read by the names of its fields.
pub(crate) fn reply(method: &Method, message: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(types(method).1, message).expect("an answer is a message of its RPC")
}

/// Whether messages have a field of this name, or of this path of names.
pub(crate) fn has(message: &MessageDescriptor, field: &str) -> bool {
    let (name, below) = field
        .split_once('.')
        .map_or((field, None), |(name, below)| (name, Some(below)));
    message.get_field_by_name(name).is_some_and(|found| match below {
        Some(below) => found.kind().as_message().is_some_and(|inner| has(inner, below)),
        None => true,
    })
}

/// Sets a text, or a list to this text alone.
pub(crate) fn set(message: &mut DynamicMessage, field: &str, text: &str) {
    if let Some((name, below)) = field.split_once('.') {
        let inner = message.get_field_by_name_mut(name).and_then(Value::as_message_mut);
        return set(inner.unwrap_or_else(|| panic!("{name} is no message")), below, text);
    }
    let text = Value::String(text.to_owned());
    let found = message.descriptor().get_field_by_name(field);
    let list = found.unwrap_or_else(|| panic!("there is no field {field}")).is_list();
    message.set_field_by_name(field, if list { Value::List(vec![text]) } else { text });
}

/// Reads a text, or the first of a list; empty where there is none.
pub(crate) fn text(message: &DynamicMessage, field: &str) -> String {
    if let Some((name, below)) = field.split_once('.') {
        let inner = message.get_field_by_name(name);
        let inner = inner.as_deref().and_then(Value::as_message);
        return inner.map_or_else(String::new, |inner| text(inner, below));
    }
    let value = message.get_field_by_name(field);
    let first = value.as_deref().and_then(|value| match value {
        Value::List(items) => items.first().and_then(Value::as_str),
        other => other.as_str(),
    });
    first.unwrap_or_default().to_owned()
}
