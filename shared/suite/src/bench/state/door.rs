//! A caller of Terraform's HTTP backend that keeps its connection, as Terraform does.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use uuid::Uuid;

/// How much of a refusal is shown.
const SHOWN: usize = 500;

/// One connection to one state.
pub(super) struct Door {
    stream: BufReader<TcpStream>,
    path: String,
    headers: String,
    gzip: bool,
}

impl Door {
    /// Connects; `gzip` says whether answers may be compressed, which Terraform always accepts.
    pub(super) async fn open(address: &str, api_key: &str, state: &str, gzip: bool) -> Result<Door> {
        let stream = TcpStream::connect(address).await.context("the HTTP backend")?;
        stream.set_nodelay(true)?;
        let basic = STANDARD.encode(format!("bench:{api_key}"));
        let accepts = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
        Ok(Door {
            stream: BufReader::with_capacity(64 << 10, stream),
            path: format!("/v1/states/{state}"),
            headers: format!("Host: {address}\r\nAuthorization: Basic {basic}\r\n{accepts}"),
            gzip,
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
        self.call(method, "", body.as_bytes()).await.map(drop)
    }

    /// Reads the state to its end and answers how many bytes came, compressed or not.
    pub(super) async fn get(&mut self) -> Result<usize> {
        self.call("GET", "", b"").await
    }

    /// Writes the state, under a lock if there is one.
    pub(super) async fn post(&mut self, lock: Option<&str>, content: &[u8]) -> Result<()> {
        let query = lock.map(|id| format!("?ID={id}")).unwrap_or_default();
        self.call("POST", &query, content).await.map(drop)
    }

    async fn call(&mut self, method: &str, query: &str, body: &[u8]) -> Result<usize> {
        let head = format!(
            "{method} {}{query} HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.headers,
            body.len()
        );
        if body.len() < 8 << 10 {
            self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        } else {
            self.stream.write_all(head.as_bytes()).await?;
            self.stream.write_all(body).await?;
        }
        let answer = answered(&mut self.stream).await.with_context(|| method.to_owned())?;
        ensure!(
            (200..300).contains(&answer.status),
            "{method} was answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.start)
        );
        ensure!(self.gzip || !answer.gzip, "{method} was answered as gzip");
        Ok(answer.length)
    }
}

/// Another lock's id.
pub(super) fn lock_id() -> String {
    Uuid::new_v4().to_string()
}

struct Answer {
    status: u16,
    gzip: bool,
    length: usize,
    /// The first bytes of the body.
    start: Vec<u8>,
}

async fn answered(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut answer = Answer {
        status: status.with_context(|| format!("no answer: {line:?}"))?,
        gzip: false,
        length: 0,
        start: Vec::new(),
    };
    let (mut length, mut chunked) = (0, false);
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let header = line.trim_end().to_ascii_lowercase();
        let Some((name, value)) = header.split_once(':') else {
            ensure!(header.is_empty(), "a header cannot be read: {header}");
            break;
        };
        match (name, value.trim()) {
            ("content-length", value) => length = value.parse()?,
            ("transfer-encoding", "chunked") => chunked = true,
            ("content-encoding", "gzip") => answer.gzip = true,
            _ => {}
        }
    }
    if !chunked {
        passed(stream, length, &mut answer).await?;
        return Ok(answer);
    }
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let chunk = usize::from_str_radix(line.trim_end(), 16).context("the length of a chunk")?;
        passed(stream, chunk, &mut answer).await?;
        line.clear();
        stream.read_line(&mut line).await?;
        if chunk == 0 {
            return Ok(answer);
        }
    }
}

/// Reads so many bytes, of which nothing is kept but the start of all.
async fn passed(stream: &mut (impl AsyncBufRead + Unpin), length: usize, answer: &mut Answer) -> Result<()> {
    let mut stream = stream.take(length as u64);
    answer.length += length;
    loop {
        let some = stream.fill_buf().await?;
        if some.is_empty() {
            break;
        }
        let room = SHOWN.saturating_sub(answer.start.len()).min(some.len());
        answer.start.extend_from_slice(&some[..room]);
        let some = some.len();
        stream.consume(some);
    }
    if stream.limit() > 0 {
        bail!("the answer breaks off");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_and_not_beyond() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                     HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nlostHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut";
        let mut stream = &text[..];
        let first = answered(&mut stream).await.unwrap();
        assert_eq!((first.status, first.gzip, first.length), (200, true, 3));
        let second = answered(&mut stream).await.unwrap();
        assert_eq!((second.status, second.start.as_slice()), (409, &b"lost"[..]));
        assert!(answered(&mut stream).await.is_err());
    }
}
