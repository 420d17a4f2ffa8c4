//! What a request of Terraform's holds: a body with a bound and a digest, a lock's id, a state's name.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use kit::{Error, Result};
use md5::{Digest, Md5};
use tonic::body::Body;

use crate::{
    content::{CHUNK, too_large},
    memory::Share,
    wire::lock::MOST_INFO_BYTES,
};

/// A body as it comes in.
pub(super) struct Incoming {
    body: Body,
    /// The most bytes of it.
    pub(super) limit: u64,
    read: u64,
}

impl Incoming {
    pub(super) fn new(body: Body, limit: u64) -> Self {
        Incoming { body, limit, read: 0 }
    }

    /// The start of it, and whether that is all: at most a chunk then. Of what is known to be longer nothing is read.
    ///
    /// # Errors
    /// OVERLOADED where there is no room.
    pub(super) async fn start(&mut self, share: &mut Share) -> Result<(Vec<u8>, bool)> {
        let told = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if told > CHUNK {
            return Ok((Vec::new(), false));
        }
        let mut start = Vec::with_capacity(told);
        while start.len() <= CHUNK {
            let Some(part) = self.part().await? else {
                return Ok((start, true));
            };
            share.grow_for((start.len() + part.len()) as u64)?;
            start.extend_from_slice(&part);
        }
        Ok((start, false))
    }

    /// The next part; none at its end.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE beyond the limit, and at once where the length is told.
    pub(super) async fn part(&mut self) -> Result<Option<Bytes>> {
        if self.read.saturating_add(self.body.size_hint().lower()) > self.limit {
            return Err(too_large(self.limit));
        }
        let part = self.next().await?;
        self.read += part.as_ref().map_or(0, |part| part.len() as u64);
        if self.read <= self.limit {
            return Ok(part);
        }
        Err(too_large(self.limit))
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(part) = frame.into_data() {
                        return Ok(Some(part));
                    }
                }
                Some(Err(broken)) => return Err(Error::violation("body", "broke off").with_source(broken)),
            }
        }
    }
}

/// A short body, whole and as its digest says.
pub(super) async fn collected(headers: &HeaderMap, body: Body) -> Result<Vec<u8>> {
    let told = told_md5(headers)?;
    let mut body = Incoming::new(body, MOST_INFO_BYTES);
    let mut whole = Vec::new();
    while let Some(part) = body.part().await? {
        whole.extend_from_slice(&part);
    }
    if told.is_some_and(|told| Md5::digest(&whole)[..] != told) {
        return Err(Error::violation("content_md5", "is not the content's"));
    }
    Ok(whole)
}

/// The digest that `Content-MD5` tells (RFC 1864), if there is one.
pub(super) fn told_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>> {
    let Some(value) = headers.get("content-md5") else {
        return Ok(None);
    };
    let digest = STANDARD
        .decode(value.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    let digest = digest.ok_or_else(|| Error::violation("content_md5", "must be the Base64 of 16 bytes"))?;
    Ok(Some(digest))
}

/// The first parameter of this name that is not empty.
pub(super) fn parameter(parts: &Parts, name: &str) -> Option<String> {
    let pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    // What cannot be decoded is no lock's id, and must not pass for no id at all.
    let value = values.find(|value| !value.is_empty())?;
    Some(decoded(&value.replace('+', " ")).unwrap_or_else(|| "\0".to_owned()))
}

/// A text without its percent-encoding; none where that is malformed.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let mut decoded = [0];
            hex::decode_to_slice(digits, &mut decoded).ok()?;
            bytes.push(decoded[0]);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;

    use super::*;
    use crate::model::lock::LockId;

    #[test]
    fn names_and_lock_ids_are_read_as_they_were_meant() {
        assert_eq!(decoded("a%2Fb/c").as_deref(), Some("a/b/c"));
        assert_eq!(decoded("%"), None);
        assert_eq!(decoded("%zz"), None);
        assert_eq!(decoded("%ff"), None);
        let parts = |query: &str| {
            let request = Request::get(format!("/v1/states/a?{query}")).body(()).unwrap();
            request.into_parts().0
        };
        assert_eq!(parameter(&parts("ID=1&env=dev"), "ID").as_deref(), Some("1"));
        assert_eq!(parameter(&parts("env=dev&ID=a%20b"), "ID").as_deref(), Some("a b"));
        assert_eq!(parameter(&parts("ID=&x"), "ID"), None);
        assert_eq!(parameter(&parts("id=1"), "ID"), None);
        assert!(LockId::parse(&parameter(&parts("ID=%zz"), "ID").unwrap()).is_none());
    }
}
