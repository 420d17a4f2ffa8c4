//! Terraform's HTTP backend as its client speaks it, for machines without a `terraform`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::terraform::Checkout;

/// As often as a client asks while the service is away.
const TRIES: usize = 30;

/// One state at its address.
pub(super) struct State {
    host: String,
    path: String,
    authorization: String,
}

impl State {
    pub(super) fn of(checkout: &Checkout<'_>) -> Result<State> {
        let address = checkout.address()?;
        let rest = address.strip_prefix("http://").context("the demo speaks plain HTTP")?;
        let (host, path) = rest.split_once('/').context("a state's address has a path")?;
        Ok(State {
            host: host.to_owned(),
            path: format!("/{path}"),
            authorization: checkout.authorization(),
        })
    }

    /// GET: the state, if there is one.
    pub(super) async fn read(&self) -> Result<Option<Value>> {
        match self.ask("GET", "", "").await? {
            (200, body) if !body.is_empty() => Ok(Some(serde_json::from_str(&body)?)),
            (200 | 204 | 404, _) => Ok(None),
            (status, body) => bail!("GET answered {status} {body}"),
        }
    }

    /// LOCK, GET, POST of `after` if there is one, UNLOCK; answers what GET did.
    pub(super) async fn locked(&self, operation: &str, after: Option<&Value>) -> Result<Option<Value>> {
        let id = Uuid::new_v4().to_string();
        let lock = json!({"ID": id, "Operation": operation, "Info": "", "Who": "demo@board3", "Version": "1.11.4",
            "Created": "2026-01-01T00:00:00Z", "Path": ""})
        .to_string();
        self.must("LOCK", "", &lock).await?;
        let before = self.read().await?;
        if let Some(after) = after {
            self.must("POST", &format!("?ID={id}"), &after.to_string()).await?;
        }
        self.must("UNLOCK", "", &lock).await?;
        Ok(before)
    }

    async fn must(&self, method: &str, query: &str, body: &str) -> Result<()> {
        match self.ask(method, query, body).await? {
            (200, _) => Ok(()),
            (status, body) => bail!("{method} answered {status} {body}"),
        }
    }

    /// Status and body; asks again while the service is away or overloaded, as Terraform does.
    async fn ask(&self, method: &str, query: &str, body: &str) -> Result<(u16, String)> {
        let mut last = None;
        for _ in 0..TRIES {
            match timeout(Duration::from_secs(20), self.once(method, query, body)).await {
                Ok(Ok((status, body))) if status < 500 && status != 429 => return Ok((status, body)),
                Ok(Ok((status, _))) => last = Some(format!("status {status}")),
                Ok(Err(error)) => last = Some(error.to_string()),
                Err(_) => last = Some("no answer".to_owned()),
            }
            sleep(Duration::from_millis(500)).await;
        }
        bail!("{method} {}: {}", self.path, last.unwrap_or_default())
    }

    async fn once(&self, method: &str, query: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.host).await?;
        let head = format!(
            "{method} {}{query} HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.path,
            self.host,
            self.authorization,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body)? } else { body.to_owned() };
        Ok((status.context("an HTTP status")?, body))
    }
}

/// A body without the frames of chunked transfer (RFC 9112, 7.1).
fn unchunked(mut framed: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = framed.split_once("\r\n").context("a chunk has a size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(rest.get(..size).context("a whole chunk")?);
        framed = rest.get(size + 2..).context("a chunk ends its line")?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn chunks_are_joined_and_a_cut_body_is_refused() {
        assert_eq!(unchunked("4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n").unwrap(), "Wikipedia");
        assert!(unchunked("9\r\nWiki").is_err());
    }
}
