//! Terraform's `http` backend at `/v1/states/{name}`, and at `/v1/locks/{name}` for proxies that drop LOCK and UNLOCK.
//!
//! A GET is answered 404 only to an admitted caller whose organization has no such content: Terraform takes a 404 for
//! an empty state, and would make everything anew. Terraform shows nothing of an error but its status.

use std::{borrow::Cow, time::Duration};

use api::{
    policy::{self, Method},
    terraform_state::v1::{LockStateResponse, UnlockStateResponse, UploadStateResponse},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, StreamBody};
use kit::{
    Error, Reason, Result,
    auth::scope::{Admitted, OrgScope},
    db::Tx,
    rpc::Door,
};
use md5::{Digest, Md5};
use serde_json::json;
use tonic::{Status, body::Body};
use uuid::Uuid;

use futures_util::StreamExt;

use crate::{
    backend::{Backend, bound_design, force_missing, may_force, release, take, take_away},
    content::{Arriving, Place, too_large},
    model::{
        StateId,
        lock::{Lock, LockId, mismatch},
        state::{State, StateName},
    },
    store,
    wire::lock::{MOST_INFO_BYTES, lock_info},
};

/// How much of a body that is too large is still read, so that its sender comes to see the answer.
const DRAINED: u64 = 64 << 20;
/// For how long.
const DRAINED_FOR: Duration = Duration::from_secs(5);

/// The key under which an error of ours holds the call's request id, which the response's headers tell anyway.
const REQUEST_ID: &str = "request_id";

/// Speaks Terraform's `http` backend.
pub(crate) struct TerraformHttp {
    pub(crate) backend: Backend,
}

/// What Terraform wants, by method and path.
#[derive(Clone, Copy)]
enum Wanted {
    Read,
    Write,
    Lock,
    Unlock,
}

/// What a request wants, and the encoded name of the state.
fn wanted(parts: &Parts) -> Option<(Wanted, &str)> {
    let path = parts.uri.path();
    let method = parts.method.as_str();
    if let Some(name) = path.strip_prefix("/v1/states/") {
        let wanted = match method {
            "GET" => Wanted::Read,
            "POST" | "PUT" => Wanted::Write,
            "LOCK" => Wanted::Lock,
            "UNLOCK" => Wanted::Unlock,
            _ => return None,
        };
        return Some((wanted, name));
    }
    let name = path.strip_prefix("/v1/locks/")?;
    match method {
        "POST" | "PUT" | "LOCK" => Some((Wanted::Lock, name)),
        "DELETE" | "UNLOCK" => Some((Wanted::Unlock, name)),
        _ => None,
    }
}

#[async_trait::async_trait]
impl Door for TerraformHttp {
    fn method(&self, parts: &Parts) -> Option<&'static Method> {
        let (wanted, _) = wanted(parts)?;
        policy::find(match wanted {
            Wanted::Read => "/board3.terraform_state.v1.StateService/DownloadState",
            Wanted::Write => "/board3.terraform_state.v1.StateService/UploadState",
            Wanted::Lock => "/board3.terraform_state.v1.LockService/LockState",
            Wanted::Unlock => "/board3.terraform_state.v1.LockService/UnlockState",
        })
    }

    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(None);
        };
        let invalid = || Error::new(Reason::CredentialInvalid, "the authorization header cannot be read");
        let (scheme, rest) = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .ok_or_else(invalid)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Some(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(invalid());
        }
        let pair = STANDARD.decode(rest.trim()).map_err(|_| invalid())?;
        let pair = String::from_utf8(pair).map_err(|_| invalid())?;
        // The user's name plays no part.
        let (_, password) = pair.split_once(':').ok_or_else(invalid)?;
        Ok(Some(password.to_owned()))
    }

    async fn serve(&self, scope: OrgScope, request: Request<Body>) -> Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let (wanted, name) = wanted(&parts).ok_or_else(|| Error::internal("a request without a method's policy"))?;
        let name = decoded(name).and_then(|name| StateName::parse(&name));
        let name = name.ok_or_else(|| Error::violation("name", StateName::RULE))?;
        scope.within("state", name.as_str())?;
        let request_id = scope.call().request_id.clone();
        let answer = match wanted {
            Wanted::Read => self.read(scope, name).await,
            Wanted::Write => self.write(scope, name, &parts, body).await,
            Wanted::Lock => self.lock(scope, name, &parts, body).await,
            Wanted::Unlock => self.unlock(scope, name, &parts, body).await,
        };
        answer.map_err(|error| error.with(REQUEST_ID, request_id))
    }

    fn refuse(&self, error: &Error) -> Response<Body> {
        let status = status(error.reason());
        let mut response = match error.told(Lock::TOLD).filter(|_| status == StatusCode::LOCKED) {
            // Terraform shows the holder, and stops waiting for it where it cannot read who that is.
            Some(info) => json_response(info.to_owned()),
            None => json_response(
                json!({
                    "reason": error.reason_name(),
                    "message": message(error),
                    "request_id": error.told(REQUEST_ID),
                })
                .to_string(),
            ),
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"Board3\""),
                );
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST, PUT, LOCK, UNLOCK"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let delay = error.retry_delay().unwrap_or(Duration::from_secs(1));
                let seconds = delay.as_millis().div_ceil(1000).max(1);
                headers.insert(
                    header::RETRY_AFTER,
                    HeaderValue::from(u64::try_from(seconds).unwrap_or(1)),
                );
            }
            _ => {}
        }
        response
    }
}

/// The status of a failure: what Terraform tries again (429, 500, 503), waits for (423), or gives up at (all else).
fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::InvalidRequest | Reason::PageTokenInvalid | Reason::RequestIdReused => StatusCode::BAD_REQUEST,
        Reason::CredentialInvalid | Reason::SessionRevoked => StatusCode::UNAUTHORIZED,
        Reason::PermissionMissing | Reason::CallerNotAllowed | Reason::OrganizationRequired => StatusCode::FORBIDDEN,
        Reason::ResourceNotFound => StatusCode::NOT_FOUND,
        // Not 404: a mistyped address must not look like an empty state.
        Reason::MethodUnknown => StatusCode::METHOD_NOT_ALLOWED,
        Reason::StateLocked => StatusCode::LOCKED,
        Reason::LockMismatch | Reason::SerialConflict => StatusCode::CONFLICT,
        Reason::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Reason::KeyMissing
        | Reason::DependencyUnavailable
        | Reason::RevocationUnknown
        | Reason::Overloaded
        | Reason::DeadlineExceeded
        | Reason::Conflict => StatusCode::SERVICE_UNAVAILABLE,
        Reason::ContentCorrupt | Reason::Internal | Reason::Unspecified => StatusCode::INTERNAL_SERVER_ERROR,
        // None of these is an answer to Terraform.
        Reason::SecretAlreadyShown
        | Reason::ResourceExists
        | Reason::LoginFailed
        | Reason::RefreshTokenInvalid
        | Reason::Escalation
        | Reason::InvitationInvalid
        | Reason::LastOwner
        | Reason::EpochChanged
        | Reason::LeaseLost
        | Reason::LogSealed
        | Reason::ExecutionFinished
        | Reason::DesignNotPublished
        | Reason::DesignInvalid
        | Reason::EtagMismatch
        | Reason::EventsPruned
        | Reason::LogGap => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn message(error: &Error) -> Cow<'_, str> {
    if error.reason() == Reason::MethodUnknown {
        return "no such method or address here; states are at /v1/states/{name}".into();
    }
    match error.violations().first() {
        Some(violation) => format!("{}: {} {}", error.message(), violation.field, violation.description).into(),
        None => error.message().into(),
    }
}

impl TerraformHttp {
    async fn read(&self, scope: OrgScope, name: StateName) -> Result<Response<Body>> {
        let reading = self.backend.kit.db.read(&scope, async |tx| {
            let state = store::state::find_named(tx, &name).await?;
            let state = state.ok_or_else(|| Error::not_found("state", name.as_str()))?;
            if state.latest_version == 0 {
                return Err(Error::not_found("state_version", 0));
            }
            tx.about(&state);
            store::lock::update_seen(tx, state.id).await?;
            let version = store::version::find(tx, state.id, state.latest_version).await?;
            let version = version.ok_or_else(|| crate::content::corrupt("the current version is missing"))?;
            self.backend.read(tx, &state, version).await
        });
        let reading = reading.await?;
        let length = reading.version.size_bytes;
        let frames = reading
            .parts()
            .map(|part| part.map(http_body::Frame::data).map_err(Status::from));
        let mut response = json_response(String::new());
        // With its length told, a body that breaks off is no success to anyone.
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = Body::new(StreamBody::new(frames));
        Ok(response)
    }

    async fn write(&self, scope: OrgScope, name: StateName, parts: &Parts, body: Body) -> Result<Response<Body>> {
        let given = match parameter(parts, "ID") {
            None => None,
            Some(id) => Some(LockId::parse(&id).ok_or_else(|| Error::violation("ID", LockId::RULE))?),
        };
        let md5 = told_md5(&parts.headers)?;
        let known = self
            .backend
            .kit
            .db
            .look(&scope, async |tx| store::state::find_named(tx, &name).await);
        let known = known.await?;
        let id = known.map_or_else(StateId::new, |state| state.id);
        let place = Place {
            org: scope.org(),
            state: id,
            version: Uuid::new_v4(),
        };
        let mut arriving = Arriving::new(&self.backend.ring, place, self.backend.limit);
        let mut body = Incoming::new(body, self.backend.limit);
        while let Some(part) = body.part().await? {
            arriving.push(&part).await?;
        }
        let mut content = arriving.finish(md5).await?;
        let force = may_force(&scope);
        let written = self.backend.kit.db.write(&scope, async |tx| {
            let state = held(tx, &scope, id, &name).await?;
            if state.id != id {
                // Made by another call since; what is sealed to one state fits no other.
                return Err(Error::new(
                    Reason::Conflict,
                    "the state was made by another call; try again",
                ));
            }
            let written = self.backend.write(tx, &state, given.as_ref(), &mut content, force);
            let (version, created) = written.await?;
            Ok(UploadStateResponse {
                version: Some(version.into()),
                created,
            })
        });
        written.await.map_err(|error| match error.reason() {
            // Who writes without a lock is not to wait for it: what is sent is older than what the holder will write.
            Reason::StateLocked => mismatch("the state is locked, and the write names no lock"),
            _ => error,
        })?;
        Ok(empty())
    }

    async fn lock(&self, scope: OrgScope, name: StateName, parts: &Parts, body: Body) -> Result<Response<Body>> {
        let told = lock_info(&collected(&parts.headers, body).await?)?;
        let mut taken = None;
        let id = StateId::new();
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = held(tx, &scope, id, &name).await?;
            let lock = take(tx, &state, &told.lock).await?;
            taken = Some(lock.info_json());
            Ok(LockStateResponse {
                lock: Some(lock.into()),
            })
        });
        reply.await?;
        Ok(json_response(taken.unwrap_or_default()))
    }

    async fn unlock(&self, scope: OrgScope, name: StateName, parts: &Parts, body: Body) -> Result<Response<Body>> {
        let body = collected(&parts.headers, body).await?;
        // Terraform's force-unlock sends nothing, not even the id that its user typed; OpenTofu's sends the id alone.
        let told = if body.trim_ascii().is_empty() {
            None
        } else {
            Some(lock_info(&body)?)
        };
        let force = may_force(&scope);
        let forced = told.as_ref().is_none_or(|told| told.bare);
        if forced && !force {
            return Err(force_missing());
        }
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = store::state::lock_named(tx, &name).await?;
            let state = state.ok_or_else(|| mismatch("there is no such state, and no lock of it"))?;
            tx.about(&state);
            match &told {
                Some(told) if !told.bare => release(tx, &state, &told.lock.id, force).await?,
                told => {
                    let id = told.as_ref().map(|told| &told.lock.id);
                    take_away(tx, &state, id, "force-unlock by Terraform").await?;
                }
            }
            Ok(UnlockStateResponse {})
        });
        reply.await?;
        Ok(empty())
    }
}

/// The state of a name, made if there is none, held until the transaction ends. A job's belongs to the job's design.
async fn held(tx: &mut Tx, scope: &OrgScope, id: StateId, name: &StateName) -> Result<State> {
    let mut state = store::state::lock_named(tx, name).await?;
    if state.is_none() {
        state = store::state::insert(tx, id, name, bound_design(scope)?).await?;
    }
    if state.is_none() {
        // Another call has made it since, which the insert waited for.
        state = store::state::lock_named(tx, name).await?;
    }
    let state = state.ok_or_else(|| Error::internal("a state is neither there nor can it be made"))?;
    tx.about(&state);
    Ok(state)
}

/// A body as it comes in.
struct Incoming {
    body: Body,
    limit: u64,
    read: u64,
}

impl Incoming {
    fn new(body: Body, limit: u64) -> Self {
        Incoming { body, limit, read: 0 }
    }

    /// The next part; none at its end.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE beyond the limit, after as much of the rest as is worth it.
    async fn part(&mut self) -> Result<Option<bytes::Bytes>> {
        let part = self.next().await?;
        self.read += part.as_ref().map_or(0, |part| part.len() as u64);
        if self.read <= self.limit {
            return Ok(part);
        }
        let most = self.read + DRAINED;
        let drain = async {
            while let Ok(Some(part)) = self.next().await {
                self.read += part.len() as u64;
                if self.read > most {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DRAINED_FOR, drain).await;
        Err(too_large(self.limit))
    }

    async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
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
async fn collected(headers: &HeaderMap, body: Body) -> Result<Vec<u8>> {
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
fn told_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>> {
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
fn parameter(parts: &Parts, name: &str) -> Option<String> {
    let pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    // What cannot be decoded is no lock's id, and must not pass for no id at all.
    let value = values.find(|value| !value.is_empty())?;
    Some(decoded(&value.replace('+', " ")).unwrap_or_else(|| "\0".to_owned()))
}

/// A text without its percent-encoding; none where that is malformed.
fn decoded(text: &str) -> Option<String> {
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

fn json_response(body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::from(body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn empty() -> Response<Body> {
    Response::new(Body::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
