//! A caller of Terraform's HTTP backend that keeps its connection, as Terraform does.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use uuid::Uuid;

/// How much of a refusal is shown.
const SHOWN: usize = 500;

/// One connection to one state.
pub(super) struct Door {
    sender: SendRequest<Full<Bytes>>,
    path: String,
    headers: HeaderMap,
}

impl Door {
    /// Connects; `gzip` says whether answers may be compressed, which Terraform always accepts.
    pub(super) async fn open(address: &str, api_key: &str, state: &str, gzip: bool) -> Result<Door> {
        let stream = TcpStream::connect(address).await.context("the HTTP backend")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its failure is told to who waits for an answer.
        tokio::spawn(connection);
        let basic = STANDARD.encode(format!("bench:{api_key}"));
        let mut headers = HeaderMap::from_iter([
            (HOST, address.parse()?),
            (AUTHORIZATION, format!("Basic {basic}").parse()?),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        if gzip {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Door {
            sender,
            path: format!("/v1/states/{state}"),
            headers,
        })
    }

    /// Takes the state's lock.
    pub(super) async fn lock(&mut self, id: &str, operation: &str) -> Result<()> {
        self.lock_call("LOCK", id, operation).await
    }

    /// Gives it back.
    pub(super) async fn unlock(&mut self, id: &str, operation: &str) -> Result<()> {
        self.lock_call("UNLOCK", id, operation).await
    }

    async fn lock_call(&mut self, method: &str, id: &str, operation: &str) -> Result<()> {
        let body = format!(
            r#"{{"ID":"{id}","Operation":"{operation}","Info":"","Who":"ada@bench","Version":"1.11.4","Created":"2026-01-01T00:00:00.000000001Z","Path":""}}"#
        );
        self.call(method, "", body.into()).await.map(drop)
    }

    /// Reads the state to its end and answers how many bytes came, compressed or not.
    pub(super) async fn get(&mut self) -> Result<usize> {
        self.call("GET", "", Bytes::new()).await
    }

    /// Writes the state, under a lock if there is one.
    pub(super) async fn post(&mut self, lock: Option<&str>, content: impl Into<Bytes>) -> Result<()> {
        let query = lock.map(|id| format!("?ID={id}")).unwrap_or_default();
        self.call("POST", &query, content.into()).await.map(drop)
    }

    async fn call(&mut self, method: &str, query: &str, body: Bytes) -> Result<usize> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.parse()?;
        *request.uri_mut() = format!("{}{query}", self.path).parse()?;
        request.headers_mut().clone_from(&self.headers);
        self.sender.ready().await?;
        let mut answer = self
            .sender
            .send_request(request)
            .await
            .with_context(|| method.to_owned())?;
        let (mut length, mut start) = (0, Vec::new());
        while let Some(frame) = answer.body_mut().frame().await {
            let Ok(part) = frame.with_context(|| method.to_owned())?.into_data() else {
                continue;
            };
            length += part.len();
            let room = SHOWN.saturating_sub(start.len()).min(part.len());
            start.extend_from_slice(&part[..room]);
        }
        ensure!(
            answer.status().is_success(),
            "{method} was answered {}: {}",
            answer.status(),
            String::from_utf8_lossy(&start)
        );
        ensure!(
            self.headers.contains_key(ACCEPT_ENCODING) || !answer.headers().contains_key(CONTENT_ENCODING),
            "{method} was answered as gzip"
        );
        Ok(length)
    }
}

/// Another lock's id.
pub(super) fn lock_id() -> String {
    Uuid::new_v4().to_string()
}
