//! A provider of Terraform (plugin protocol 6, the part of it that a plan and an apply need) and the cloud behind it.
//!
//! The cloud's servers have an id, a name, which cannot be changed, a size, tags and a password. Tests change them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use prost::Message;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    server::{NamedService, UnaryService},
};

/// The servers by id, and whether reading them fails.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<(BTreeMap<String, Value>, bool)>>);

/// The cloud, served for as long as this lives.
pub(crate) struct Cloud {
    held: Held,
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Cloud {
    pub(crate) async fn serve() -> Cloud {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Held::default();
        let provider = Provider(held.clone());
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(provider);
            let _ = server.serve_with_incoming(incoming).await;
        });
        Cloud { held, address, serving }
    }

    /// `TF_REATTACH_PROVIDERS`.
    pub(crate) fn reattach(&self) -> String {
        json!({"board3.test/board3/fake": {
            "Protocol": "grpc", "ProtocolVersion": 6, "Pid": std::process::id(), "Test": true,
            "Addr": {"Network": "tcp", "String": self.address.to_string()},
        }})
        .to_string()
    }

    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        change(self.held.0.lock().unwrap().0.get_mut(id).unwrap());
    }

    pub(crate) fn delete(&self, id: &str) {
        self.held.0.lock().unwrap().0.remove(id).unwrap();
    }

    /// Whether reading a server fails from now on.
    pub(crate) fn fail(&self, fails: bool) {
        self.held.0.lock().unwrap().1 = fails;
    }
}

/// A value as Terraform and its providers tell it: in one of two formats.
#[derive(Clone, PartialEq, Message)]
struct Dynamic {
    #[prost(bytes = "vec", tag = "1")]
    msgpack: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    json: Vec<u8>,
}

impl Dynamic {
    fn of(value: &Value) -> Option<Dynamic> {
        Some(Dynamic {
            msgpack: Vec::new(),
            json: value.to_string().into_bytes(),
        })
    }

    fn read(dynamic: Option<&Dynamic>) -> Value {
        let Some(dynamic) = dynamic else { return Value::Null };
        if dynamic.msgpack.is_empty() {
            return serde_json::from_slice(&dynamic.json).unwrap_or_default();
        }
        unpack(&mut dynamic.msgpack.as_slice())
    }
}

#[derive(Clone, PartialEq, Message)]
struct Diagnostic {
    #[prost(int32, tag = "1")]
    severity: i32,
    #[prost(string, tag = "2")]
    summary: String,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    kind: Vec<u8>,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(bool, tag = "5")]
    optional: bool,
    #[prost(bool, tag = "6")]
    computed: bool,
    #[prost(bool, tag = "7")]
    sensitive: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Block {
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(message, optional, tag = "2")]
    block: Option<Block>,
}

#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, optional, tag = "1")]
    provider: Option<Schema>,
    #[prost(btree_map = "string, message", tag = "2")]
    resources: BTreeMap<String, Schema>,
}

/// A request of which nothing is read, or an answer that says nothing.
#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct Upgrade {
    #[prost(message, optional, tag = "3")]
    raw: Option<Raw>,
}

#[derive(Clone, PartialEq, Message)]
struct Raw {
    #[prost(bytes = "vec", tag = "1")]
    json: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Upgraded {
    #[prost(message, optional, tag = "1")]
    state: Option<Dynamic>,
}

#[derive(Clone, PartialEq, Message)]
struct Read {
    #[prost(message, optional, tag = "2")]
    current: Option<Dynamic>,
}

/// What reading answers.
#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(message, optional, tag = "1")]
    state: Option<Dynamic>,
    #[prost(message, repeated, tag = "2")]
    diagnostics: Vec<Diagnostic>,
}

/// A change that is to be planned or applied.
#[derive(Clone, PartialEq, Message)]
struct Change {
    #[prost(message, optional, tag = "2")]
    prior: Option<Dynamic>,
    #[prost(message, optional, tag = "3")]
    next: Option<Dynamic>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(string, tag = "1")]
    attribute: String,
}

#[derive(Clone, PartialEq, Message)]
struct Steps {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Message)]
struct Planned {
    #[prost(message, optional, tag = "1")]
    state: Option<Dynamic>,
    #[prost(message, repeated, tag = "2")]
    replace: Vec<Steps>,
}

#[derive(Clone, PartialEq, Message)]
struct Applied {
    #[prost(message, optional, tag = "1")]
    state: Option<Dynamic>,
}

#[derive(Clone)]
struct Provider(Held);

impl NamedService for Provider {
    const NAME: &'static str = "tfplugin6.Provider";
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

impl tower::Service<http::Request<tonic::body::Body>> for Provider {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answering<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let held = self.0.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "GetProviderSchema" => answered(request, |_: Nothing| schemas()).await,
                "ValidateProviderConfig" | "ValidateResourceConfig" | "ConfigureProvider" | "StopProvider" => {
                    answered(request, |_: Nothing| Nothing {}).await
                }
                "UpgradeResourceState" => answered(request, upgraded).await,
                "ReadResource" => answered(request, move |read| held.read(&read)).await,
                "PlanResourceChange" => answered(request, |change| planned(&change)).await,
                "ApplyResourceChange" => answered(request, move |change| held.apply(&change)).await,
                other => Status::unimplemented(other.to_owned()).into_http(),
            })
        })
    }
}

/// One RPC.
struct Unary<F>(Option<F>);

impl<F, I, O> UnaryService<I> for Unary<F>
where
    F: FnOnce(I) -> O,
    I: Send + 'static,
    O: Send + 'static,
{
    type Response = O;
    type Future = std::future::Ready<Result<Response<O>, Status>>;

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let rpc = self.0.take().expect("a call is answered once");
        std::future::ready(Ok(Response::new(rpc(request.into_inner()))))
    }
}

async fn answered<I, O>(
    request: http::Request<tonic::body::Body>,
    rpc: impl FnOnce(I) -> O,
) -> http::Response<tonic::body::Body>
where
    I: Message + Default + 'static,
    O: Message + Default + 'static,
{
    let codec = tonic_prost::ProstCodec::<O, I>::default();
    tonic::server::Grpc::new(codec).unary(Unary(Some(rpc)), request).await
}

fn schemas() -> Schemas {
    let attribute = |name: &str, kind: Value| Attribute {
        name: name.to_owned(),
        kind: kind.to_string().into_bytes(),
        ..Attribute::default()
    };
    let attributes = vec![
        Attribute {
            computed: true,
            ..attribute("id", json!("string"))
        },
        Attribute {
            required: true,
            ..attribute("name", json!("string"))
        },
        Attribute {
            optional: true,
            ..attribute("size", json!("number"))
        },
        Attribute {
            optional: true,
            ..attribute("tags", json!(["map", "string"]))
        },
        Attribute {
            optional: true,
            sensitive: true,
            ..attribute("password", json!("string"))
        },
    ];
    let server = Schema {
        block: Some(Block { attributes }),
    };
    let provider = Schema {
        block: Some(Block::default()),
    };
    Schemas {
        provider: Some(provider),
        resources: [("fake_server".to_owned(), server)].into(),
    }
}

fn upgraded(upgrade: Upgrade) -> Upgraded {
    let json = upgrade.raw.unwrap_or_default().json;
    Upgraded {
        state: Some(Dynamic {
            msgpack: Vec::new(),
            json,
        }),
    }
}

fn planned(change: &Change) -> Planned {
    let prior = Dynamic::read(change.prior.as_ref());
    let mut next = Dynamic::read(change.next.as_ref());
    if next.is_object() && next["id"].is_null() {
        next["id"] = json!(format!("srv-{}", next["name"].as_str().unwrap_or_default()));
    }
    let renamed = prior.is_object() && next.is_object() && prior["name"] != next["name"];
    let step = Step {
        attribute: "name".to_owned(),
    };
    Planned {
        state: Dynamic::of(&next),
        replace: renamed.then(|| Steps { steps: vec![step] }).into_iter().collect(),
    }
}

impl Held {
    fn read(&self, read: &Read) -> Found {
        let held = self.0.lock().unwrap();
        if held.1 {
            let failed = Diagnostic {
                severity: 1,
                summary: "the cloud does not answer".to_owned(),
            };
            return Found {
                state: read.current.clone(),
                diagnostics: vec![failed],
            };
        }
        let current = Dynamic::read(read.current.as_ref());
        let server = held.0.get(current["id"].as_str().unwrap_or_default());
        Found {
            state: Dynamic::of(server.unwrap_or(&Value::Null)),
            diagnostics: Vec::new(),
        }
    }

    fn apply(&self, change: &Change) -> Applied {
        let (prior, next) = (
            Dynamic::read(change.prior.as_ref()),
            Dynamic::read(change.next.as_ref()),
        );
        let mut held = self.0.lock().unwrap();
        if next.is_null() {
            held.0.remove(prior["id"].as_str().unwrap_or_default());
        } else {
            held.0
                .insert(next["id"].as_str().unwrap_or_default().to_owned(), next.clone());
        }
        Applied {
            state: Dynamic::of(&next),
        }
    }
}

/// Reads MessagePack, as much of it as servers are made of; what is not known reads as nothing.
fn unpack(bytes: &mut &[u8]) -> Value {
    let first = take(bytes, 1)[0];
    match first {
        0x00..=0x7f => json!(first),
        0xe0..=0xff => json!(i64::from(first as i8)),
        0x80..=0x8f => map(bytes, usize::from(first & 0x0f)),
        0x90..=0x9f => (0..first & 0x0f).map(|_| unpack(bytes)).collect(),
        0xa0..=0xbf => text(bytes, usize::from(first & 0x1f)),
        0xc0 => Value::Null,
        0xc2 | 0xc3 => json!(first == 0xc3),
        0xca => json!(f32::from_be_bytes(take(bytes, 4).try_into().unwrap())),
        0xcb => json!(f64::from_be_bytes(take(bytes, 8).try_into().unwrap())),
        0xcc..=0xcf => json!(number(bytes, 1 << (first - 0xcc))),
        0xd0 => json!(number(bytes, 1) as i8),
        0xd1 => json!(number(bytes, 2) as i16),
        0xd2 => json!(number(bytes, 4) as i32),
        0xd3 => json!(number(bytes, 8) as i64),
        // Extensions: a value that is not known.
        0xd4..=0xd8 => {
            take(bytes, 1 + (1 << (first - 0xd4)));
            Value::Null
        }
        0xc7..=0xc9 => {
            let length = number(bytes, 1 << (first - 0xc7)) as usize;
            take(bytes, length + 1);
            Value::Null
        }
        0xd9..=0xdb => {
            let length = number(bytes, 1 << (first - 0xd9)) as usize;
            text(bytes, length)
        }
        0xdc | 0xdd => {
            let length = number(bytes, 2 << (first - 0xdc));
            (0..length).map(|_| unpack(bytes)).collect()
        }
        0xde | 0xdf => {
            let length = number(bytes, 2 << (first - 0xde)) as usize;
            map(bytes, length)
        }
        other => panic!("{other:#x} is not told by Terraform"),
    }
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn number(bytes: &mut &[u8], length: usize) -> u64 {
    take(bytes, length)
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn text(bytes: &mut &[u8], length: usize) -> Value {
    Value::String(String::from_utf8(take(bytes, length).to_vec()).unwrap())
}

fn map(bytes: &mut &[u8], length: usize) -> Value {
    let pairs = (0..length).map(|_| {
        let Value::String(key) = unpack(bytes) else {
            panic!("keys are texts")
        };
        (key, unpack(bytes))
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}
